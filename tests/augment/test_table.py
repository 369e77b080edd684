"""The table of augmentations, its crops, flips and rotations, and views."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxnlt.augment import table
from tests.augment.pictures import random_images

BATCH = 32

# Compiled once each: operation by operation is slower than compiling.
sample_crop_flip = jax.jit(table.sample_crop_flip, static_argnums=(1, 2, 3))
shift, crop_flip = jax.jit(table.shift), jax.jit(table.crop_flip)
flip, rotate = jax.jit(table.flip), jax.jit(table.rotate)
flip_rotate = jax.jit(table.flip_rotate)

# What all augmentations are made of, one after another.
PARTS = {
    part.__name__: part
    for name in sorted(table.FOR_IMAGES)
    for part in table.AUGMENTATIONS[name]
}


def test_parts_follow_one_another_with_a_key_each():
    def part(name):
        def augmentation(key, images):
            keys.append(jax.random.key_data(key).tolist())
            return [*images, name]

        return augmentation

    keys = []
    made = table.augment(jax.random.key(5), [], [part(n) for n in "abc"])
    assert made == ["a", "b", "c"]
    assert len(set(map(str, keys))) == 3
    assert table.augment(jax.random.key(5), [0], ()) == [0]


def test_crops():
    """Names without a crop are for images that the host has cropped."""
    found = [name for name in table.AUGMENTATIONS if table.crops(name)]
    first = {name.split("_")[0] for name in found}
    assert len(found) == 6
    assert first == {"crop", "autoaugment", "randaugment"}


@pytest.mark.parametrize("name", PARTS)
def test_every_augmentation(name):
    grey = name in ("strong", "pypi", "standard")
    images = random_images(BATCH, 16, 16, 1 if grey else 3)
    function = jax.jit(PARTS[name])
    key = jax.random.key(5)
    out = np.asarray(function(key, images))
    assert out.shape == images.shape
    assert out.dtype in (np.uint8, np.float32)
    assert out.min() >= 0 and out.max() <= 255
    np.testing.assert_array_equal(function(key, images), out)
    assert (np.asarray(function(jax.random.key(6), images)) != out).any()
    # an image's result does not depend on its neighbours
    others = images.copy()
    others[1:] = 255 - others[1:]
    np.testing.assert_array_equal(function(key, others)[0], out[0])
    # nor on jax_enable_x64, but for the digits' last bits
    with jax.enable_x64(True):
        wide = np.asarray(function(key, images))
    exact = name == "strong"
    assert wide.dtype == (np.float64 if exact else out.dtype)
    np.testing.assert_allclose(wide, out, rtol=0, atol=1e-3)


def test_crop_flip_cuts_the_padded_image():
    images = random_images(BATCH, 32, 32, 3)
    key = jax.random.key(1)
    draws = jax.device_get(sample_crop_flip(key, BATCH, 32, 32))
    out = np.asarray(crop_flip(key, images))
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    assert out.dtype == np.uint8 and draws.flip.any()
    for i in range(BATCH):
        top, left = 4 + draws.top[i], 4 + draws.left[i]
        crop = padded[i, top : top + 32, left : left + 32]
        crop = crop[:, ::-1] if draws.flip[i] else crop
        np.testing.assert_array_equal(out[i], crop)


def test_crop_draws_are_even():
    draws = sample_crop_flip(jax.random.key(0), 20_000, 32, 32)
    for offset in draws.top, draws.left:
        values, counts = np.unique(offset, return_counts=True)
        assert values.tolist() == list(range(-4, 5))
        np.testing.assert_allclose(counts / 20_000, 1 / 9, atol=0.01)
    assert abs(float(draws.flip.mean()) - 0.5) < 0.02
    correlation = np.corrcoef(np.stack(draws))
    assert np.abs(correlation - np.eye(3)).max() < 0.03


def test_shift_moves_by_one_pixel_and_fills_with_black():
    images = random_images(400, 8, 8, 1) | 1  # no black inside
    out = np.asarray(shift(jax.random.key(0), images))
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1), (0, 0)))
    found = np.zeros((3, 3), int)
    for i in range(len(images)):
        windows = np.lib.stride_tricks.sliding_window_view(
            padded[i, ..., 0], (8, 8)
        )
        hits = np.argwhere((windows == out[i, ..., 0]).all((2, 3)))
        assert len(hits)
        if len(hits) == 1:
            found[tuple(hits[0])] += 1
    assert found.min() > 20


def noise(count, height, width):
    rng = np.random.default_rng(0)
    return rng.integers(1, 256, (count, height, width, 3), np.uint8)


def test_half_of_the_images_are_mirrored():
    given = noise(400, 4, 6)
    out = np.asarray(flip(jax.random.key(0), given))
    mirrored = (out == given[:, :, ::-1]).all((1, 2, 3))
    kept = (out == given).all((1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 160 < mirrored.sum() < 240


@pytest.mark.parametrize("height, width", [(31, 31), (24, 40)])
def test_rotation_is_pillow_s(height, width):
    angles = np.array([0, 3, -7.5, 15, -15, 11.3, 90], np.float32)
    given = noise(len(angles), height, width)
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
    angles = []
    for side in (out, out[:, :, ::-1]):
        lit = side[:, :, 54] > 0
        lit = lit[lit.any(1)]
        height = (np.arange(61) * lit).sum(1) / lit.sum(1)
        angles += np.degrees(np.arctan2(30 - height, 54 - 30)).tolist()
    angles = np.array(angles)
    assert len(angles) == 300 and 13 < angles.max() < 16.5
    assert -16.5 < angles.min() < -13 and abs(angles.mean()) < 1.5


def test_normalise():
    images = random_images(2, 4, 4, 3)
    mean, std = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)
    expected = (images / 255 - np.array(mean)) / np.array(std)
    out = table.normalise(jnp.asarray(images), mean, std)
    assert out.dtype == jnp.float32
    np.testing.assert_allclose(out, expected, atol=1e-5)
    half = table.normalise(jnp.asarray(images), mean, std, jnp.bfloat16)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half, out.astype(jnp.bfloat16))
    with jax.enable_x64(True):
        wide = table.normalise(jnp.asarray(images), mean, std, jnp.float64)
    assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, expected, atol=1e-12)
