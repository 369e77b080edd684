"""The colour jitter of mini-ImageNet: Pillow's pixels, the key's draws."""

import functools
import itertools

import jax
import numpy as np
import pytest
from PIL import Image, ImageEnhance

from jaxnlt.augment import pillow, table
from jaxnlt.data import registry
from tests.augment.test_augment import random_images, sample_crop_flip

CLASSES = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)
ORDERS = tuple(itertools.permutations(range(3)))
BATCH = 96

# Compiled once each: operation by operation is slower than compiling.
apply_jitter = jax.jit(pillow.apply_jitter)
sample_jitter = jax.jit(pillow.sample_jitter, static_argnums=1)
VIEWS = {
    name: jax.jit(
        functools.partial(table.augment, parts=table.AUGMENTATIONS[name])
    )
    for name in ("crop_jitter_flip", "jitter_flip")
}


def with_pillow(image, order, factors):
    """The three enhancements in their order, uint8 [H, W, C]."""
    picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
    for op in order:
        picture = CLASSES[op](picture).enhance(float(factors[op]))
    return np.asarray(picture).reshape(image.shape)


def drawn(draws, i):
    return draws.order[:, i], draws.factors[:, i]


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
        with_pillow(im, *drawn(draws, i)) for i, im in enumerate(images)
    ]
    np.testing.assert_array_equal(out, expected)
    # The order matters: at the bounds levels are cut off.
    other = np.asarray(apply_jitter(images, draws._replace(order=order[::-1])))
    assert (other != out).any((1, 2, 3)).mean() > 0.5


def test_draws_are_even():
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


def test_weak_view_jitters_between_crop_and_mirror_image():
    images = random_images(BATCH, 32, 32, 3)
    key = jax.random.key(1)
    crop_key, jitter_key = jax.random.split(key)
    crop = jax.device_get(sample_crop_flip(crop_key, BATCH, 32, 32))
    draws = jax.device_get(sample_jitter(jitter_key, BATCH))
    out = np.asarray(VIEWS["crop_jitter_flip"](key, images))
    padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
    for i in range(BATCH):
        top, left = 4 + crop.top[i], 4 + crop.left[i]
        expected = padded[i, top : top + 32, left : left + 32]
        expected = with_pillow(expected, *drawn(draws, i))
        if crop.flip[i]:
            expected = expected[:, ::-1]
        np.testing.assert_array_equal(out[i], expected)
    assert crop.flip.any() and not crop.flip.all()


def test_view_of_what_the_host_has_cropped():
    images = random_images(BATCH, 20, 20, 3)
    key = jax.random.key(2)
    draws = jax.device_get(sample_jitter(jax.random.split(key)[1], BATCH))
    out = np.asarray(VIEWS["jitter_flip"](key, images))
    mirrored = []
    for i, image in enumerate(images):
        expected = with_pillow(image, *drawn(draws, i))
        mirrored.append((out[i] == expected[:, ::-1]).all())
        assert mirrored[-1] or (out[i] == expected).all()
    assert 0.3 < np.mean(mirrored) < 0.7


def test_both_views_of_red_mini_imagenet_jitter():
    """With the policy that CIFAR has."""
    entry, cifar = map(registry.get, ("red_mini_imagenet", "cifar10"))
    assert (cifar.weak, cifar.strong) == ("crop_flip", "autoaugment")
    assert entry.weak == "crop_jitter_flip"
    assert entry.strong == "crop_jitter_flip_autoaugment"
