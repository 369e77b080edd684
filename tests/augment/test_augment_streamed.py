"""What the device still does to images that the host has cropped."""

import jax
import numpy as np
import pytest
from PIL import Image

from jaxnlt.augment import table

# Operation by operation is slower than compiling.
flip, rotate = jax.jit(table.flip), jax.jit(table.rotate)
flip_rotate = jax.jit(table.flip_rotate)


def images(count, height, width):
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (count, height, width, 3), np.uint8)


def test_half_of_the_images_are_mirrored():
    given = images(400, 4, 6)
    out = np.asarray(flip(jax.random.key(0), given))
    mirrored = (out == given[:, :, ::-1]).all((1, 2, 3))
    kept = (out == given).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 160 < mirrored.sum() < 240


@pytest.mark.parametrize("height, width", [(31, 31), (24, 40)])
def test_rotation_is_pillow_s(height, width):
    angles = np.array([0, 3, -7.5, 15, -15, 11.3, 90], np.float32)
    given = images(len(angles), height, width)
    out = np.asarray(rotate(given, angles))
    for image, angle, found in zip(given, angles, out, strict=True):
        expected = np.asarray(Image.fromarray(image).rotate(float(angle)))
        # Pillow counts in 2^-16 of a pixel: a few lie on an edge.
        assert (found != expected).any(-1).mean() < 0.01
    np.testing.assert_array_equal(out[0], given[0])


def test_angles_of_h2e_reach_fifteen_degrees_either_way():
    # A line through the middle: its end says by how much it is turned.
    given = np.zeros((300, 61, 61, 3), np.uint8)
    given[:, 30, 30:] = 255
    out = np.asarray(flip_rotate(jax.random.key(1), given))[..., 0]
    rows = np.arange(61)[None, :, None]
    angles = []
    for side, column in ((out, 54), (out[:, :, ::-1], 54)):
        lit = side[:, :, column : column + 1] > 0
        found = lit.any((1, 2))
        height = (rows * lit)[found].sum((1, 2)) / lit[found].sum((1, 2))
        angles += np.degrees(np.arctan2(30 - height, column - 30)).tolist()
    angles = np.array(angles)
    assert len(angles) == 300 and 13 < angles.max() < 16.5
    assert -16.5 < angles.min() < -13 and abs(angles.mean()) < 1.5
