"""Without gathers and scatters on a TPU, and with the same bits."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.augment import autoaugment, pillow, randaugment, table
from tests.augment.pictures import random_images

# Whether an augmentation rotates, which needs a gather.
ROTATES = {
    table.crop_flip: False,
    pillow.jitter: False,
    autoaugment.policy: True,
    randaugment.pypi: True,
}
GATHERS = re.compile(r"\"?stablehlo\.gather\"?.*-> tensor<((?:\d+x)+)")
BATCH = 8


@pytest.mark.parametrize("part", ROTATES)
def test_a_tpu_gathers_only_rotations(part):
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = jax.ShapeDtypeStruct((BATCH, 32, 32, 3), np.uint8)
    lowered = jax.jit(part).trace(key, images)
    text = lowered.lower(lowering_platforms=("tpu",)).as_text()
    shapes = [shape[:-1].split("x") for shape in GATHERS.findall(text)]
    sizes = [math.prod(map(int, shape)) for shape in shapes]
    assert "stablehlo.scatter" not in text
    # Autocontrast gathers a word for each image and channel.
    large = {size for size in sizes if size > BATCH * 3}
    assert large == ({BATCH * 32 * 32 * 3} if ROTATES[part] else set())


def both(monkeypatch, function, *arguments):
    """The result of a function as here, and as on a TPU."""
    here = jax.jit(function)(*arguments)
    monkeypatch.setattr(
        jax.lax,
        "platform_dependent",
        lambda *operands, tpu, default: tpu(*operands),
    )
    return map(np.asarray, (here, jax.jit(lambda *a: function(*a))(*arguments)))


def test_a_tpu_has_the_same_pixels(monkeypatch):
    height, width = 19, 14
    drawn = [
        (op, float(magnitudes[level]), sign)
        for op, magnitudes in autoaugment.MAGNITUDES.items()
        for level in (4, 9)
        for sign in (-1, 1)
    ]
    choices = [autoaugment.resolve(*draw, height, width) for draw in drawn]
    images = random_images(len(choices), height, width, 3)
    which = np.arange(len(choices), dtype=np.int32)
    here, there = both(
        monkeypatch,
        lambda images: pillow.apply_choices(images, choices, which),
        images,
    )
    np.testing.assert_array_equal(there, here)
    assert (here != images).any((1, 2, 3)).mean() > 0.5


def test_a_tpu_cuts_the_same_crops(monkeypatch):
    images = random_images(300, 9, 6, 2)
    y, x = np.random.default_rng(0).integers(-3, 4, (2, len(images)))
    draws = table.CropDraws(*map(jnp.int32, (y, x)), jnp.asarray(y > 0))

    def cut(images):
        return table.apply_crop(images, draws, (3, 3))

    here, there = both(monkeypatch, cut, images)
    np.testing.assert_array_equal(there, here)
