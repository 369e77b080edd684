"""Every image operation and the colour jitter against Pillow's pixels."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxnlt.augment import autoaugment, pillow
from tests.augment.pictures import compare, random_images, with_pillow

CLASSES = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
ORDERS = tuple(itertools.permutations(range(3)))

# Compiled once each: operation by operation is slower than compiling.
apply_jitter = jax.jit(pillow.apply_jitter)
sample_jitter = jax.jit(pillow.sample_jitter, static_argnums=1)


@functools.partial(jax.jit, static_argnames="choices")
def apply_choices(images, choices, which):
    return pillow.apply_choices(images, choices, which)


@pytest.mark.parametrize("shape", [(17, 24, 3), (8, 8, 1)])
@pytest.mark.parametrize("op", pillow.OPS)
def test_every_operation_equals_pillow(op, shape):
    height, width, _ = shape
    between = 3 if op == "posterize" else 0.123
    drawn = itertools.product((*autoaugment.MAGNITUDES[op], between), (-1, 1))
    choices = dict.fromkeys(
        autoaugment.resolve(op, float(magnitude), sign, height, width)
        for magnitude, sign in drawn
    )
    choices = (pillow.IDENTITY, *choices)
    images = random_images(3 * len(choices), *shape)
    which = np.arange(len(images), dtype=np.int32) % len(choices)
    out = np.asarray(apply_choices(images, choices, which))
    pairs = zip(images, which, strict=True)
    expected = np.stack([with_pillow(image, *choices[k]) for image, k in pairs])
    assert out.dtype == np.uint8
    compare(out, expected, op in pillow.SHEAR_OPS)
    if shape[-1] == 3:
        assert (out[which > 0] != images[which > 0]).any()


def test_autocontrast_rounds_as_float64_does():
    # in some ranges Pillow sends the lightest level to 254, not 255
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4000, 1, 3, 1), np.uint8)
    choices = (("autocontrast", 0.0),)
    out = apply_choices(images, choices, np.zeros(len(images), np.int32))
    expected = [with_pillow(image, *choices[0]) for image in images]
    np.testing.assert_array_equal(out, expected)
    assert (np.max(expected, (1, 2, 3)) == 254).any()


def test_other_operations_and_channels_are_refused():
    images, which = jnp.zeros((1, 4, 4, 3), jnp.uint8), jnp.zeros(1, jnp.int32)
    with pytest.raises(ValueError, match="twist"):
        pillow.apply_choices(images, (("twist", 1.0),), which)
    with pytest.raises(ValueError, match="channels"):
        pillow.apply_choices(images[..., :2], (pillow.IDENTITY,), which)


def jittered(image, order, factors):
    """The three enhancements in their order, uint8 [H, W, C]."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    for op in order:
        picture = CLASSES[op](picture).enhance(float(factors[op]))
    return np.asarray(picture).reshape(image.shape)


@pytest.mark.parametrize("shape", [(32, 32, 3), (7, 12, 1)])
def test_fixed_factors_and_orders_equal_pillow(shape):
    """All six orders of factors in and beyond the range, to the bit."""
    rng = np.random.default_rng(0)
    factors = rng.uniform(0.6, 1.4, (3, 600)).astype(np.float32)
    factors[:, :125] = np.array(
        list(itertools.product((0, 0.6, 1, 1.4, 1.9), repeat=3)), np.float32
    ).T
    order = np.array(ORDERS, np.int32)[np.arange(600) % 6].T
    images = random_images(600, *shape)
    # Coloured and sharp, as noise of a narrow range is not.
    images[300:] = rng.integers(0, 256, images[300:].shape, np.uint8)
    draws = pillow.JitterDraws(order, factors)
    out = np.asarray(apply_jitter(images, draws))
    assert out.dtype == np.uint8
    expected = [
        jittered(image, order[:, i], factors[:, i])
        for i, image in enumerate(images)
    ]
    np.testing.assert_array_equal(out, expected)
    # The order matters: at the bounds levels are cut off.
    other = np.asarray(apply_jitter(images, draws._replace(order=order[::-1])))
    assert (other != out).any((1, 2, 3)).mean() > 0.5


def test_jitter_draws_are_even():
    batch = 60_000
    draws = jax.device_get(sample_jitter(jax.random.key(0), batch))
    assert draws.order.dtype == np.int32 and draws.factors.dtype == np.float32
    found, counts = np.unique(draws.order, axis=1, return_counts=True)
    assert sorted(map(tuple, found.T.tolist())) == sorted(ORDERS)
    np.testing.assert_allclose(counts / batch, 1 / 6, atol=0.01)
    for factors in draws.factors:
        assert 0.6 - 1e-6 <= factors.min() < 0.601
        assert 1.399 < factors.max() <= 1.4 + 1e-6
        counts, _ = np.histogram(factors, 8, (0.6, 1.4))
        np.testing.assert_allclose(counts / batch, 1 / 8, atol=0.01)
    columns = np.concatenate([draws.factors, draws.order[:2]])
    correlation = np.corrcoef(columns) - np.eye(5)
    correlation[3:, 3:] = 0  # the first op is not the second
    assert np.abs(correlation).max() < 0.02
    with jax.enable_x64(True):
        wide = jax.device_get(sample_jitter(jax.random.key(0), batch))
    assert all(map(np.array_equal, wide, draws))
