"""RandAugment: as in the PyPI package of that name, and the standard one.

Every image draws its own operations.  Strengths are on the grids of
autoaugment.py, and pillow.py applies the operations.

Source: randaugment 1.0.2 (``papers/h2e.md`` section 9); Cubuk et al.,
"RandAugment", 2020.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Key, UInt8

from jaxnlt.augment import autoaugment, pillow
from jaxnlt.augment.indexing import pick
from jaxnlt.augment.pillow import IDENTITY, Choice

# The package: 15 operations at 9 levels, so 135 x 135 pairs.
PYPI_OPS = (
    "invert",
    "cutout",
    "sharpness",
    "autocontrast",
    "posterize",
    "shearX",
    "translateX",
    "translateY",
    "shearY",
    "rotate",
    "equalize",
    "contrast",
    "color",
    "solarize",
    "brightness",
)
LEVELS = 9  # the levels 1..9 of the grids ``autoaugment.MAGNITUDES``
CUTOUT_SIDES = (0, 2, 4, 7, 9, 11, 13, 16, 18, 20)  # pixels, by level
CUTOUT_COLOUR = (125, 122, 113)  # red, green, blue

# Cubuk et al. 2020, figure 2: no invert, no cutout.
STANDARD_OPS = (
    "identity",
    "autocontrast",
    "equalize",
    "rotate",
    "solarize",
    "color",
    "posterize",
    "contrast",
    "brightness",
    "sharpness",
    "shearX",
    "shearY",
    "translateX",
    "translateY",
)
# N and M of the paper's ResNet-50, and the M of the greatest strength.
NUM_OPS = 2
MAGNITUDE = 9.0
GREATEST = 10.0


def _integers(
    key: Key[Array, ""], shape: tuple[int, ...], count: int
) -> Int[Array, "..."]:
    """int32 in 0 .. count - 1, the same whatever jax_enable_x64 says."""
    return jax.random.randint(key, shape, 0, count, jnp.int32)


# --- the package ------------------------------------------------------------


class PypiDraws(NamedTuple):
    """The two operations of each image.

    Attributes:
      op: index into ``PYPI_OPS``.
      level: 1..9.
      positive: sign of a shear, translation or enhancement.
      applied: whether the operation is applied.
      cut_y: row of the middle of the cutout's square.
      cut_x: column of the middle of the cutout's square.
    """

    op: Int[Array, "2 B"]
    level: Int[Array, "2 B"]
    positive: Bool[Array, "2 B"]
    applied: Bool[Array, "2 B"]
    cut_y: Int[Array, "2 B"]
    cut_x: Int[Array, "2 B"]


def sample_pypi(
    key: Key[Array, ""], batch: int, height: int, width: int
) -> PypiDraws:
    """Draws operation, level, sign, coin and middle uniformly.

    Args:
      key: JAX key.
      batch: how many images.
      height: of the images, pixels.
      width: of the images, pixels.

    Returns:
      Draws.
    """
    keys = jax.random.split(key, 6)
    shape = (2, batch)
    return PypiDraws(
        _integers(keys[0], shape, len(PYPI_OPS)),
        1 + _integers(keys[1], shape, LEVELS),
        _integers(keys[2], shape, 2) == 1,
        _integers(keys[3], shape, 2) == 1,
        _integers(keys[4], shape, height),
        _integers(keys[5], shape, width),
    )


@functools.lru_cache
def pypi_choices(
    height: int, width: int
) -> tuple[tuple[Choice, ...], Int[np.ndarray, "15 10 2"]]:
    """All distinct operations of the package but the cutout, the identity here.

    Args:
      height: of the images, pixels.
      width: of the images, pixels.

    Returns:
      The choices, the identity first, and int32 [15, 10, 2]: the choice of an
      operation at a level, for sign -1 and for sign +1.
    """
    choices = {IDENTITY: 0}
    index = np.zeros((len(PYPI_OPS), LEVELS + 1, 2), np.int32)
    for i, op in enumerate(PYPI_OPS):
        if op == "cutout":
            continue
        for level, magnitude in enumerate(autoaugment.MAGNITUDES[op]):
            for side, sign in enumerate((-1, 1)):
                choice = autoaugment.resolve(
                    op, float(magnitude), sign, height, width
                )
                index[i, level, side] = choices.setdefault(choice, len(choices))
    index.setflags(write=False)
    return tuple(choices), index


def cutout(
    images: UInt8[Array, "B H W C"],
    side: Int[Array, "B"],
    y: Int[Array, "B"],
    x: Int[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """Paints a square, cut off at the borders, in the package's colour.

    Args:
      images: uint8 [B, H, W, C], C 1 or 3.
      side: int32 [B], pixels; an odd side is reduced by one.
      y: int32 [B], row of the middle, the first row of the lower half.
      x: int32 [B], column of the middle.

    Returns:
      uint8 [B, H, W, C].

    Source: randaugment 1.0.2, ``papers/h2e.md`` section 9.
    """
    height, width, channels = images.shape[1:]
    half = (side // 2)[:, None, None]
    rows = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    columns = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    y, x = y[:, None, None], x[:, None, None]
    inside = (rows >= y - half) & (rows < y + half)
    inside &= (columns >= x - half) & (columns < x + half)
    colour = np.array(CUTOUT_COLOUR, np.uint8)
    if channels == 1:
        colour = colour[1:2]  # its grey level as well
    return jnp.where(inside[..., None], jnp.asarray(colour), images)


def apply_pypi(
    images: UInt8[Array, "B H W C"], draws: PypiDraws
) -> UInt8[Array, "B H W C"]:
    """Applies the drawn pair, first operation, then second.

    Args:
      images: uint8 [B, H, W, C], C 1 or 3.
      draws: one entry an image.

    Returns:
      uint8 [B, H, W, C].

    Source: randaugment 1.0.2, ``papers/h2e.md`` section 9.
    """
    height, width = images.shape[1:3]
    choices, index = pypi_choices(height, width)
    sides = np.array(CUTOUT_SIDES, np.int32)
    for slot in (0, 1):
        op, level = draws.op[slot], draws.level[slot]
        applied = draws.applied[slot]
        sign = draws.positive[slot].astype(jnp.int32)
        row = (op * (LEVELS + 1) + level) * 2 + sign
        which = jnp.where(applied, pick(index.reshape(-1), row), 0)
        images = pillow.apply_choices(images, choices, which)
        cut = applied & (op == PYPI_OPS.index("cutout"))
        side = jnp.where(cut, pick(sides, level), 0)
        images = cutout(images, side, draws.cut_y[slot], draws.cut_x[slot])
    return images


def pypi(
    key: Key[Array, ""], images: UInt8[Array, "B H W C"]
) -> UInt8[Array, "B H W C"]:
    """One of 135 x 135 pairs an image, each operation with probability 1/2.

    Args:
      key: JAX key.
      images: uint8 [B, H, W, C], C 1 or 3.

    Returns:
      uint8 [B, H, W, C].

    Source: randaugment 1.0.2, ``papers/h2e.md`` section 9.
    """
    return apply_pypi(images, sample_pypi(key, *images.shape[:3]))


# --- the standard one -------------------------------------------------------


class StandardDraws(NamedTuple):
    """The N operations of each image.

    Attributes:
      op: index into ``STANDARD_OPS``.
      positive: sign of a shear, translation, rotation or enhancement.
    """

    op: Int[Array, "N B"]
    positive: Bool[Array, "N B"]


def sample_standard(
    key: Key[Array, ""], batch: int, num_ops: int = NUM_OPS
) -> StandardDraws:
    """Draws operation and sign uniformly, with replacement.

    Args:
      key: JAX key.
      batch: how many images.
      num_ops: N.

    Returns:
      Draws.
    """
    op_key, sign_key = jax.random.split(key)
    shape = (num_ops, batch)
    return StandardDraws(
        _integers(op_key, shape, len(STANDARD_OPS)),
        _integers(sign_key, shape, 2) == 1,
    )


@functools.lru_cache
def standard_choices(
    magnitude: float, height: int, width: int
) -> tuple[tuple[Choice, ...], Int[np.ndarray, "14 2"]]:
    """The 14 operations at one strength, linear up to AutoAugment's greatest.

    Args:
      magnitude: M in [0, 10].
      height: of the images, pixels.
      width: of the images, pixels.

    Returns:
      The choices and int32 [14, 2]: the choice of an operation, for sign -1
      and for sign +1; rotations have a sign too.

    Raises:
      ValueError: another magnitude.
    """
    if not 0 <= magnitude <= GREATEST:
        raise ValueError(f"magnitude must lie in [0, 10]: {magnitude}")
    choices = {IDENTITY: 0}
    index = np.zeros((len(STANDARD_OPS), 2), np.int32)
    for i, op in enumerate(STANDARD_OPS):
        if op == "identity":
            continue
        weakest, strongest = autoaugment.MAGNITUDES[op][[0, -1]]
        value = weakest + (strongest - weakest) * magnitude / GREATEST
        if op == "posterize":
            value = np.round(value)
        for side, sign in enumerate((-1, 1)):
            signed = value * sign if op == "rotate" else value
            choice = autoaugment.resolve(op, float(signed), sign, height, width)
            index[i, side] = choices.setdefault(choice, len(choices))
    index.setflags(write=False)
    return tuple(choices), index


def apply_standard(
    images: UInt8[Array, "B H W C"],
    draws: StandardDraws,
    magnitude: float = MAGNITUDE,
) -> UInt8[Array, "B H W C"]:
    """Applies the N drawn operations one after the other.

    Args:
      images: uint8 [B, H, W, C], C 1 or 3.
      draws: one entry an image.
      magnitude: M in [0, 10].

    Returns:
      uint8 [B, H, W, C].

    Source: Cubuk et al. 2020, figure 2.
    """
    choices, index = standard_choices(magnitude, *images.shape[1:3])
    for op, positive in zip(draws.op, draws.positive, strict=True):
        row = 2 * op + positive.astype(jnp.int32)
        which = pick(index.reshape(-1), row)
        images = pillow.apply_choices(images, choices, which)
    return images


def standard(
    key: Key[Array, ""],
    images: UInt8[Array, "B H W C"],
    num_ops: int = NUM_OPS,
    magnitude: float = MAGNITUDE,
) -> UInt8[Array, "B H W C"]:
    """N operations an image at one magnitude M, always applied.

    Args:
      key: JAX key.
      images: uint8 [B, H, W, C], C 1 or 3.
      num_ops: N.
      magnitude: M in [0, 10], 10 as strong as AutoAugment's strongest level.

    Returns:
      uint8 [B, H, W, C].

    Source: Cubuk et al. 2020, figure 2 and section 4 (N 2, M 9).
    """
    draws = sample_standard(key, images.shape[0], num_ops)
    return apply_standard(images, draws, magnitude)
