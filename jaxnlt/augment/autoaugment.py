"""The learned AutoAugment policies: 25 pairs of operations each.

A table states which operation, how strong and how likely; each image draws one
pair, a sign and a coin for each operation.  pillow.py applies them.

Source: ``papers/dasc.md`` section 2 (CIFAR-10's table and magnitude grids),
``papers/unicon.md`` section 9 (both tables).
"""

import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from jaxnlt.augment import pillow
from jaxnlt.augment.indexing import pick
from jaxnlt.augment.pillow import IDENTITY, Choice

# --- the policies -----------------------------------------------------------

_ENHANCE_GRID = np.linspace(0.0, 0.9, 10)
_SHEAR_GRID = np.linspace(0.0, 0.3, 10)
_TRANSLATE_GRID = np.linspace(0.0, 150.0 / 331.0, 10)

# Operation -> magnitude of the levels 0..9.
MAGNITUDES: dict[str, np.ndarray] = {
    "shearX": _SHEAR_GRID,
    "shearY": _SHEAR_GRID,
    "translateX": _TRANSLATE_GRID,
    "translateY": _TRANSLATE_GRID,
    "rotate": np.linspace(0.0, 30.0, 10),
    "color": _ENHANCE_GRID,
    "contrast": _ENHANCE_GRID,
    "brightness": _ENHANCE_GRID,
    "sharpness": _ENHANCE_GRID,
    "posterize": np.round(np.linspace(8.0, 4.0, 10)),
    "solarize": np.linspace(256.0, 0.0, 10),
    "autocontrast": np.zeros(10),
    "equalize": np.zeros(10),
    "invert": np.zeros(10),
}

# (operation, level, probability), twice; applied from left to right.
Step = tuple[str, int, float]
Policy = tuple[tuple[Step, Step], ...]

#: CIFAR-10's policy.
SUB_POLICIES: Policy = (
    (("invert", 0, 0.1), ("contrast", 6, 0.2)),
    (("rotate", 2, 0.7), ("translateX", 9, 0.3)),
    (("sharpness", 1, 0.8), ("sharpness", 3, 0.9)),
    (("shearY", 8, 0.5), ("translateY", 9, 0.7)),
    (("autocontrast", 0, 0.5), ("equalize", 0, 0.9)),
    (("shearY", 7, 0.2), ("posterize", 7, 0.3)),
    (("color", 3, 0.4), ("brightness", 7, 0.6)),
    (("sharpness", 9, 0.3), ("brightness", 9, 0.7)),
    (("equalize", 0, 0.6), ("equalize", 0, 0.5)),
    (("contrast", 7, 0.6), ("sharpness", 5, 0.6)),
    (("color", 7, 0.7), ("translateX", 8, 0.5)),
    (("equalize", 0, 0.3), ("autocontrast", 0, 0.4)),
    (("translateY", 3, 0.4), ("sharpness", 6, 0.2)),
    (("brightness", 6, 0.9), ("color", 8, 0.2)),
    (("solarize", 2, 0.5), ("invert", 0, 0.0)),
    (("equalize", 0, 0.2), ("autocontrast", 0, 0.6)),
    (("equalize", 0, 0.2), ("equalize", 0, 0.8)),
    (("color", 9, 0.9), ("equalize", 0, 0.6)),
    (("autocontrast", 0, 0.8), ("solarize", 8, 0.2)),
    (("brightness", 3, 0.1), ("color", 0, 0.7)),
    (("solarize", 5, 0.4), ("autocontrast", 0, 0.9)),
    (("translateY", 9, 0.9), ("translateY", 9, 0.7)),
    (("autocontrast", 0, 0.9), ("solarize", 3, 0.8)),
    (("equalize", 0, 0.8), ("invert", 0, 0.1)),
    (("translateY", 9, 0.7), ("autocontrast", 0, 0.9)),
)
#: ImageNet's policy.
IMAGENET: Policy = (
    (("posterize", 8, 0.4), ("rotate", 9, 0.6)),
    (("solarize", 5, 0.6), ("autocontrast", 0, 0.6)),
    (("equalize", 0, 0.8), ("equalize", 0, 0.6)),
    (("posterize", 7, 0.6), ("posterize", 6, 0.6)),
    (("equalize", 0, 0.4), ("solarize", 4, 0.2)),
    (("equalize", 0, 0.4), ("rotate", 8, 0.8)),
    (("solarize", 3, 0.6), ("equalize", 0, 0.6)),
    (("posterize", 5, 0.8), ("equalize", 0, 1.0)),
    (("rotate", 3, 0.2), ("solarize", 8, 0.6)),
    (("equalize", 0, 0.6), ("posterize", 6, 0.4)),
    (("rotate", 8, 0.8), ("color", 0, 0.4)),
    (("rotate", 9, 0.4), ("equalize", 0, 0.6)),
    (("equalize", 0, 0.0), ("equalize", 0, 0.8)),
    (("invert", 0, 0.6), ("equalize", 0, 1.0)),
    (("color", 4, 0.6), ("contrast", 8, 1.0)),
    (("rotate", 8, 0.8), ("color", 2, 1.0)),
    (("color", 8, 0.8), ("solarize", 7, 0.8)),
    (("sharpness", 7, 0.4), ("invert", 0, 0.6)),
    (("shearX", 5, 0.6), ("equalize", 0, 1.0)),
    (("color", 0, 0.4), ("equalize", 0, 0.6)),
    (("equalize", 0, 0.4), ("solarize", 4, 0.2)),
    (("solarize", 5, 0.6), ("autocontrast", 0, 0.6)),
    (("invert", 0, 0.6), ("equalize", 0, 1.0)),
    (("color", 4, 0.6), ("contrast", 8, 1.0)),
    (("equalize", 0, 0.8), ("equalize", 0, 0.6)),
)


# --- operations and their values --------------------------------------------


def resolve(
    op: str, magnitude: float, sign: int, height: int, width: int
) -> Choice:
    """The operation with the value that ``pillow.apply_choices`` takes.

    Enhancement: factor 1 + sign * magnitude.  Translation: pixels,
    sign * magnitude * size.  Shear: sign * magnitude.  The others have no
    sign (rotation is always counter-clockwise).

    Args:
      op: a key of ``MAGNITUDES``.
      magnitude: a number from the operation's grid, or any other.
      sign: +1 or -1.
      height: of the images, pixels.
      width: of the images, pixels.

    Returns:
      (op, value).

    Source: ``papers/dasc.md`` section 2.
    """
    if op in pillow.BLEND_OPS:
        return op, 1.0 + magnitude * sign
    if op == "translateX":
        return op, magnitude * width * sign
    if op == "translateY":
        return op, magnitude * height * sign
    if op in ("shearX", "shearY"):
        return op, magnitude * sign
    return op, magnitude


@functools.lru_cache
def slot_choices(
    slot: int, height: int, width: int, table: Policy = SUB_POLICIES
) -> tuple[tuple[Choice, ...], Int[np.ndarray, "25 2"]]:
    """All distinct operations of one half of the sub-policies.

    Args:
      slot: 0 for the first operation of each pair, 1 for the second.
      height: of the images, pixels.
      width: of the images, pixels.
      table: the policy.

    Returns:
      The choices, the identity first, and int32 [25, 2]: the choice of a
      sub-policy, for sign -1 and for sign +1.
    """
    choices = [IDENTITY]
    index = np.zeros((len(table), 2), np.int32)
    for row, sub_policy in enumerate(table):
        op, level, _ = sub_policy[slot]
        for column, sign in enumerate((-1, 1)):
            magnitude = float(MAGNITUDES[op][level])
            choice = resolve(op, magnitude, sign, height, width)
            if choice not in choices:
                choices.append(choice)
            index[row, column] = choices.index(choice)
    index.setflags(write=False)
    return tuple(choices), index


def probabilities(
    table: Policy = SUB_POLICIES,
) -> Float[np.ndarray, "25 2"]:
    """Probability with which each operation of a sub-policy is applied.

    Args:
      table: the policy.

    Returns:
      float32 [25, 2].
    """
    return np.array([[step[2] for step in pair] for pair in table], np.float32)


# --- sampling and application -----------------------------------------------


class PolicyDraws(NamedTuple):
    """The sub-policy of each image; sign and coin of its two operations.

    Attributes:
      policy: 0..24.
      positive: sign of each operation.
      applied: whether each operation is applied.
    """

    policy: Int[Array, "B"]
    positive: Bool[Array, "2 B"]
    applied: Bool[Array, "2 B"]


def sample_policy(
    key: Key[Array, ""], batch: int, table: Policy = SUB_POLICIES
) -> PolicyDraws:
    """Draws sub-policies and signs uniformly, coins by the table.

    Args:
      key: JAX key.
      batch: how many images.
      table: the policy.

    Returns:
      Draws.
    """
    uniform = pillow.uniform(key, 5, batch)
    policy = pillow.integers(uniform[0], len(table))
    chances = pick(probabilities(table), policy).T
    return PolicyDraws(policy, uniform[1:3] < 0.5, uniform[3:5] < chances)


def apply_policy(
    images: UInt8[Array, "B H W C"],
    draws: PolicyDraws,
    table: Policy = SUB_POLICIES,
) -> UInt8[Array, "B H W C"]:
    """Applies the drawn sub-policy, first operation, then second.

    Args:
      images: uint8 [B, H, W, C], C 1 or 3.
      draws: one entry an image.
      table: the policy.

    Returns:
      uint8 [B, H, W, C].

    Source: ``papers/dasc.md`` section 2.
    """
    height, width = images.shape[1:3]
    for slot in (0, 1):
        choices, index = slot_choices(slot, height, width, table)
        sign = draws.positive[slot].astype(jnp.int32)
        which = pick(index.reshape(-1), 2 * draws.policy + sign)
        which = jnp.where(draws.applied[slot], which, 0)
        images = pillow.apply_choices(images, choices, which)
    return images


def policy(
    key: Key[Array, ""], images: UInt8[Array, "B H W C"]
) -> UInt8[Array, "B H W C"]:
    """One of CIFAR-10's sub-policies an image (strong, after a weak one)."""
    return apply_policy(images, sample_policy(key, images.shape[0]))


def imagenet_policy(
    key: Key[Array, ""], images: UInt8[Array, "B H W C"]
) -> UInt8[Array, "B H W C"]:
    """One of ImageNet's sub-policies an image (strong, after a weak one)."""
    draws = sample_policy(key, images.shape[0], IMAGENET)
    return apply_policy(images, draws, IMAGENET)
