"""Without gathers and scatters on a TPU, and with the same bits."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.augment import autoaugment, indexing, pillow, randaugment, table
from tests.augment.pictures import random_images

PARTS = (table.flip_rotate, autoaugment.policy, randaugment.pypi)


@pytest.mark.parametrize("part", PARTS)
def test_a_tpu_neither_gathers_nor_scatters(part):
    key = jax.eval_shape(lambda: jax.random.key(0))
    images = jax.ShapeDtypeStruct((8, 32, 32, 3), np.uint8)
    lowered = jax.jit(part).trace(key, images)
    here, there = (
        lowered.lower(lowering_platforms=(platform,)).as_text()
        for platform in ("cpu", "tpu")
    )
    assert "stablehlo.gather" in here
    assert not re.findall("stablehlo.(?:gather|scatter)", there)


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
    monkeypatch.setattr(indexing, "_BLOCK", 4 * width)  # the last one is short
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
        lambda images, which: pillow.apply_choices(images, choices, which),
        images,
        which,
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
