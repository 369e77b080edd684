"""Policy operations against the numbers of the authors' code."""

import functools

import jax
import numpy as np

from jaxnlt.augment import autoaugment, pillow
from tests.golden.cases import golden


@functools.partial(jax.jit, static_argnames="choices")
def apply_choices(images, choices, which):
    return pillow.apply_choices(images, choices, which)


@golden("dasc_augment_ops")
def test_policy_operation(case):
    """The function that augment.apply_policy calls, one choice drawn."""
    image, op = case["image_in"], str(case["op"])
    height, width = image.shape[:2]
    choice = autoaugment.resolve(
        op, float(case["magnitude"]), int(case["sign"]), height, width
    )
    out = apply_choices(
        image[None], (pillow.IDENTITY, choice), np.ones(1, np.int32)
    )
    difference = np.abs(np.asarray(out[0]).astype(int) - case["image_out"])
    if op in pillow.POINT_OPS or op.startswith("translate"):
        assert difference.max() == 0
    elif op in pillow.BLEND_OPS:
        assert difference.max() <= 1
    else:
        assert difference.mean() <= 2
