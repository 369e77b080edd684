"""Strong augmentation of digits: draws, SciPy's affine map, no mirroring."""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.ndimage

from jaxnlt.augment import digits
from tests.augment.pictures import random_images

# Compiled once each: operation by operation is slower than compiling.
apply_digits = jax.jit(digits.apply_digits)
sample_digits = jax.jit(digits.sample_digits, static_argnums=(1, 2, 3))
strong = jax.jit(digits.strong)


def unchanged(batch):
    """Draws of digits_strong that change nothing: the square lies outside."""
    zero, one = np.zeros(batch, np.float32), np.ones(batch, np.float32)
    far = np.full(batch, -9, np.int32)
    return digits.DigitDraws(zero, one, zero, zero, zero, one, one, far, far)


def test_digits_draws_around_unchanged():
    images = random_images(4, 8, 8, 1)
    out = apply_digits(images, unchanged(4))
    assert out.dtype == jnp.float32
    np.testing.assert_array_equal(out, images)

    draws = sample_digits(jax.random.key(0), 5000, 8, 8)
    limits = (15, 0.15, 0.2, 1, 1, 0.2, 0.2)
    for values, middle, limit in zip(
        draws[:7], unchanged(1)[:7], limits, strict=True
    ):
        offset = np.asarray(values) - middle
        assert np.abs(offset).max() <= limit * 1.0001
        assert offset.min() < -0.99 * limit and offset.max() > 0.99 * limit
    correlation = np.corrcoef(np.stack(draws))  # each drawn by itself
    assert np.abs(correlation - np.eye(len(draws))).max() < 0.06
    assert np.unique(draws.cut_y).tolist() == [-3, *range(8)]
    assert np.unique(draws.cut_x).tolist() == list(range(8))
    # Half of the digits keep each property, both shifts at once.
    pairs = zip(draws[:7], unchanged(1)[:7], strict=True)
    still = [values == middle for values, middle in pairs]
    still.append(draws.cut_y < 0)
    assert all(abs(kept.mean() - 0.5) < 0.03 for kept in still)
    np.testing.assert_array_equal(still[3], still[4])


def test_digits_affine_map_equals_scipy():
    images = random_images(8, 8, 8, 1)
    drawn = sample_digits(jax.random.key(2), 8, 8, 8)
    still = unchanged(8)
    kept = ("contrast", "brightness", "cut_y", "cut_x")
    draws = drawn._replace(**{name: getattr(still, name) for name in kept})
    out = np.asarray(apply_digits(images, draws))
    for i in range(8):
        angle = np.deg2rad(drawn.angle[i])
        cos, sin = np.cos(angle), np.sin(angle)
        turn = np.array([[cos, -sin], [sin, cos]])
        shear = np.array([[1, 0], [drawn.shear[i], 1]])
        matrix = turn @ shear / np.asarray(drawn.scale)[i]
        middle = np.array([3.5, 3.5])
        shift = np.array([drawn.shift_y[i], drawn.shift_x[i]])
        expected = scipy.ndimage.affine_transform(
            images[i, ..., 0].astype(float),
            matrix,
            offset=middle - matrix @ (middle + shift),
            order=1,
            mode="grid-constant",
        )
        np.testing.assert_allclose(out[i, ..., 0], expected, atol=1e-2)


def test_digits_contrast_brightness_and_cutout():
    images = random_images(2, 8, 8, 1)
    draws = unchanged(2)._replace(
        contrast=np.array([0.8, 1.2], np.float32),
        brightness=np.array([1.1, 0.9], np.float32),
        cut_y=np.array([3, 0], np.int32),
        cut_x=np.array([4, 7], np.int32),
    )
    levels = images.astype(float)
    mean = levels.mean((1, 2, 3), keepdims=True)
    contrast = np.array([0.8, 1.2])[:, None, None, None]
    brightness = np.array([1.1, 0.9])[:, None, None, None]
    expected = np.clip(brightness * (mean + contrast * (levels - mean)), 0, 255)
    expected[0, 2:5, 3:6] = 0
    expected[1, :2, 6:] = 0
    out = apply_digits(images, draws)
    np.testing.assert_allclose(out, expected, atol=1e-3)


def test_digits_strong_never_mirrors():
    draws = sample_digits(jax.random.key(0), 2000, 8, 8)
    assert (jnp.linalg.det(digits.affine_matrix(draws)) > 0.7).all()
    # light in the upper left corner stays there
    images = np.zeros((2000, 16, 16, 1), np.uint8)
    images[:, :8, :8] = 200
    out = np.asarray(strong(jax.random.key(1), images))
    assert (out[:, :, :8].sum((1, 2, 3)) > out[:, :, 8:].sum((1, 2, 3))).all()
    assert (out[:, :8].sum((1, 2, 3)) > out[:, 8:].sum((1, 2, 3))).all()
