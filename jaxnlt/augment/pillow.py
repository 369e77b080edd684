"""Pillow's image operations on batches of uint8 images, in pure JAX.

``apply_choices`` takes a short static list of operations and, for every image,
the index of its operation.  Operations fall into four families (look-up table,
blend, nearest-neighbour, shear).  Each family runs once over the whole batch
with parameters of each image; parameters of "do nothing" leave an image
unchanged to the bit.  So nothing is computed for each operation, and no result
has to be selected.  ``jitter`` draws its blends anew for every image.

Tables that depend only on the static list are computed in float64 NumPy, as
Pillow does, while tracing; on the device everything is int32 and float32
whatever ``jax_enable_x64`` is.

Source: behaviour of Pillow 13 and of torchvision's ColorJitter on its images;
``papers/dasc.md`` section 2 names the operations.
"""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt8

# An operation and its value: the factor of a blend, bits, a threshold,
# degrees, pixels, a shear; see ``autoaugment.resolve``.
Choice = tuple[str, float]
IDENTITY: Choice = ("identity", 0.0)

FILL = 128  # grey behind rotated, sheared and translated images
_ONE = 1 << 16  # 1.0 in Pillow's 16.16 fixed point
_LEVELS = np.arange(256)

POINT_OPS = ("invert", "posterize", "solarize", "autocontrast", "equalize")
BLEND_OPS = ("color", "contrast", "brightness", "sharpness")
NEAREST_OPS = ("translateX", "translateY", "rotate")
SHEAR_OPS = ("shearX", "shearY")
OPS = POINT_OPS + BLEND_OPS + NEAREST_OPS + SHEAR_OPS

# What the rows of ``JitterDraws.factors`` change, and how far from 1 they go.
JITTERED = ("brightness", "contrast", "saturation")
JITTER = 0.4
_GRID = 1 << 20  # factors between 1 and 2
_ORDERS = np.array(list(itertools.permutations(range(3))), np.int32)


# --- draws -------------------------------------------------------------------


def uniform(key: Key[Array, ""], count: int, batch: int) -> Float[Array, "n B"]:
    """Uniform draws in [0, 1), float32 also where x64 is on.

    Args:
      key: JAX key.
      count: draws an image.
      batch: how many images.

    Returns:
      float32 [count, B].
    """
    return jax.random.uniform(key, (count, batch), jnp.float32)


def integers(uniform: Float[Array, "*n"], count: int) -> Int[Array, "*n"]:
    """Turns uniform draws into integers.

    Args:
      uniform: in [0, 1).
      count: how many integers there are, far below 2^23.

    Returns:
      int32 in 0..count-1.
    """
    return jnp.floor(uniform * jnp.float32(count)).astype(jnp.int32)


# --- all operations ----------------------------------------------------------


def apply_choices(
    images: UInt8[Array, "B H W C"],
    choices: Sequence[Choice],
    which: Int[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """Applies to every image the operation that it drew.

    Args:
      images: uint8 [B, H, W, C], C is 1 (grey) or 3 (red, green, blue).
      choices: K operations with their values, static.
      which: int32 [B], index into choices.

    Returns:
      uint8 [B, H, W, C].

    Raises:
      ValueError: an operation that does not exist, or another C.

    Source: ``papers/dasc.md`` section 2; Pillow's ImageOps, ImageEnhance and
    transform.
    """
    names = {name for name, _ in choices}
    unknown = names - {*OPS, IDENTITY[0]}
    if unknown:
        raise ValueError(f"no such image operation: {sorted(unknown)}")
    if images.shape[-1] not in (1, 3):
        raise ValueError(f"images must have 1 or 3 channels: {images.shape}")
    if names & set(POINT_OPS):
        images = _point(images, choices, which)
    if names & set(BLEND_OPS):
        images = _blend(images, choices, which)
    if names & set(NEAREST_OPS):
        images = _nearest(images, choices, which)
    if "shearY" in names:
        images = _shear_y(images, "shearY", choices, which)
    if "shearX" in names:
        # The same with rows and columns exchanged.
        turned = jnp.swapaxes(images, 1, 2)
        turned = _shear_y(turned, "shearX", choices, which)
        images = jnp.swapaxes(turned, 1, 2)
    return images


def _chosen(
    choices: Sequence[Choice], which: Int[Array, "B"], op: str
) -> Bool[Array, "B"]:
    """Which images drew the operation."""
    return jnp.asarray([name == op for name, _ in choices])[which]


# --- look-up tables ----------------------------------------------------------


def _point(
    images: UInt8[Array, "B H W C"],
    choices: Sequence[Choice],
    which: Int[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """Looks levels up in a table of 256 entries for each image and channel."""
    fixed = np.stack([_fixed_table(*choice) for choice in choices])
    batch, height, width, channels = images.shape
    pixels = images.reshape(batch, height * width, channels).astype(jnp.int32)
    tables = jnp.broadcast_to(
        jnp.asarray(fixed)[which][:, :, None], (batch, 256, channels)
    )
    names = {name for name, _ in choices}
    if "autocontrast" in names:
        chosen = _chosen(choices, which, "autocontrast")[:, None, None]
        tables = jnp.where(chosen, _autocontrast_table(pixels), tables)
    if "equalize" in names:
        chosen = _chosen(choices, which, "equalize")[:, None, None]
        tables = jnp.where(chosen, _equalize_table(pixels), tables)
    out = jnp.take_along_axis(
        tables.astype(jnp.uint8), pixels, axis=1, mode="promise_in_bounds"
    )
    return out.reshape(images.shape)


def _fixed_table(op: str, value: float) -> Int[np.ndarray, "256"]:
    """Table of an operation that does not depend on the image."""
    table = _LEVELS
    if op == "invert":
        table = 255 - _LEVELS
    elif op == "posterize":
        table = _LEVELS & ~(2 ** (8 - int(value)) - 1)
    elif op == "solarize":
        table = np.where(value > _LEVELS, _LEVELS, 255 - _LEVELS)
    return table.astype(np.int32)


def _autocontrast_table(
    pixels: Int[Array, "B P C"],
) -> Int[Array, "B 256 C"]:
    """Tables ``floor(255 (v - lo) / (hi - lo))``, the identity if hi = lo.

    Pillow computes v * scale - lo * scale in float64 and truncates, so where
    the exact quotient is an integer it may land one level lower; a stored
    table says where.

    Args:
      pixels: int32 [B, P, C].

    Returns:
      int32 [B, 256, C].
    """
    rows, bits = _autocontrast_slips()
    low, high = pixels.min(axis=1), pixels.max(axis=1)
    words = jnp.asarray(bits)[jnp.asarray(rows)[low, high].astype(jnp.int32)]
    shifts = jnp.arange(8, dtype=jnp.uint8)
    slips = (words[..., None] >> shifts) & jnp.uint8(1)
    slips = slips.reshape(*low.shape, 256).swapaxes(1, 2).astype(jnp.int32)
    low, high = low[:, None, :], high[:, None, :]
    levels = jnp.arange(256, dtype=jnp.int32)[None, :, None]
    # Levels outside [lo, hi] do not occur; the clip keeps them in range.
    inside = jnp.clip(levels - low, 0, high - low)
    table = inside * 255 // jnp.maximum(high - low, 1) - slips
    return jnp.where(high > low, table, levels)


@functools.lru_cache(maxsize=1)
def _autocontrast_slips() -> tuple[
    Int[np.ndarray, "256 256"], UInt8[np.ndarray, "rows 32"]
]:
    """Where float64 falls below the exact integer quotient.

    Returns:
      uint16 [256, 256]: row for (lo, hi); uint8 [rows, 32]: its 256 bits,
      lowest bit first.
    """
    rows = np.zeros((256, 256), np.uint16)
    patterns = [np.zeros((1, 32), np.uint8)]
    count = 1
    for low in range(255):
        high = np.arange(low + 1, 256)[:, None]
        scale = 255.0 / (high - low)
        inside = np.clip(_LEVELS, low, high)
        exact = (inside - low) * 255 // (high - low)
        # Pillow's expression, term by term.
        pillow = (inside * scale + -low * scale).astype(np.int64)
        slips = np.packbits(exact > pillow, axis=1, bitorder="little")
        found = np.nonzero(slips.any(axis=1))[0]
        rows[low, found + low + 1] = count + np.arange(len(found))
        patterns.append(slips[found])
        count += len(found)
    return rows, np.concatenate(patterns)


def _equalize_table(pixels: Int[Array, "B P C"]) -> Int[Array, "B 256 C"]:
    """Tables ``(step // 2 + #{pixels < v}) // step``.

    The step is #{pixels below the largest level} // 255; if it is 0, the table
    is the identity.

    Args:
      pixels: int32 [B, P, C].

    Returns:
      int32 [B, 256, C].
    """

    def count(column: Int[Array, "P"]) -> Int[Array, "256"]:
        return (
            jnp.zeros(256, jnp.int32)
            .at[column]
            .add(1, mode="promise_in_bounds")
        )

    histogram = jax.vmap(jax.vmap(count, 1, 1))(pixels)
    below = jnp.cumsum(histogram, axis=1, dtype=jnp.int32) - histogram
    below_top = jnp.take_along_axis(
        below, pixels.max(axis=1, keepdims=True), axis=1
    )
    step = below_top // 255
    table = (step // 2 + below) // jnp.maximum(step, 1)
    levels = jnp.arange(256, dtype=jnp.int32)[None, :, None]
    return jnp.where(step > 0, jnp.minimum(table, 255), levels)


# --- blends ------------------------------------------------------------------


def blend(
    pixels: Int[Array, "B H W C"],
    degenerate: Int[Array, "#B #H #W #C"],
    factor: Float[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """Blends with a degenerate image, ``trunc(clip(d + factor * (in - d)))``.

    Args:
      pixels: int32 [B, H, W, C], levels 0..255.
      degenerate: int32, d, broadcastable to the pixels.
      factor: float32 [B], not negative; 1 gives the image back.

    Returns:
      uint8 [B, H, W, C].

    Source: Pillow's Image.blend; ``papers/dasc.md`` section 2.
    """
    # A compiler may fuse d + factor * difference into one rounding, which
    # moves some levels by one.  If the factor is cut into two halves of 12
    # bits, both products are exact and fusing them changes nothing.
    bits = jax.lax.bitcast_convert_type(factor, jnp.uint32)
    coarse = jax.lax.bitcast_convert_type(
        bits & jnp.uint32(0xFFFFF000), jnp.float32
    )
    high, low = (
        part[:, None, None, None] for part in (coarse, factor - coarse)
    )
    difference = (pixels - degenerate).astype(jnp.float32)
    product = high * difference + low * difference
    out = degenerate.astype(jnp.float32) + product
    return jnp.clip(out, 0.0, 255.0).astype(jnp.uint8)


def grey(pixels: Int[Array, "B H W C"]) -> Int[Array, "B H W 1"]:
    """Grey levels ``(19595 r + 38470 g + 7471 b + 2^15) >> 16``.

    Args:
      pixels: int32 [B, H, W, C], C 1 or 3.

    Returns:
      int32 [B, H, W, 1]; a grey image is unchanged.

    Source: Pillow's conversion to "L".
    """
    if pixels.shape[-1] == 1:
        return pixels
    weights = jnp.array([19595, 38470, 7471], jnp.int32)
    total = (pixels * weights).sum(-1, keepdims=True, dtype=jnp.int32)
    return (total + 0x8000) >> 16


def mean_level(levels: Int[Array, "B H W 1"]) -> Int[Array, "B 1 1 1"]:
    """The mean of each image's levels, rounded half up.

    Args:
      levels: int32 [B, H, W, 1].

    Returns:
      int32 [B, 1, 1, 1].

    Source: Pillow's ImageEnhance.Contrast.
    """
    count = levels.shape[1] * levels.shape[2]
    total = levels.sum((1, 2, 3), keepdims=True, dtype=jnp.int32)
    return (2 * total + count) // (2 * count)


def _blend(
    images: UInt8[Array, "B H W C"],
    choices: Sequence[Choice],
    which: Int[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """Blends with the degenerate image of each operation.

    It is grey (color), its mean (contrast), black (brightness) or smoothed
    (sharpness); other operations blend by a factor of 1.
    """
    factors = np.array(
        [value if name in BLEND_OPS else 1.0 for name, value in choices],
        np.float32,
    )
    pixels = images.astype(jnp.int32)
    levels = grey(pixels)
    degenerates = {
        "color": lambda: levels,
        "contrast": lambda: mean_level(levels),
        "sharpness": lambda: _smooth(pixels),
    }
    names = {name for name, _ in choices}
    degenerate = jnp.zeros_like(pixels)
    for op, make in degenerates.items():
        if op in names:
            chosen = _chosen(choices, which, op)[:, None, None, None]
            degenerate = jnp.where(chosen, make(), degenerate)
    return blend(pixels, degenerate, jnp.asarray(factors)[which])


def _smooth(pixels: Int[Array, "B H W C"]) -> Int[Array, "B H W C"]:
    """Mean of 3x3 pixels, the centre five times; the border is copied."""
    height, width = pixels.shape[1:3]
    if height < 3 or width < 3:
        return pixels
    rows = pixels[:, :-2] + pixels[:, 1:-1] + pixels[:, 2:]
    total = rows[:, :, :-2] + rows[:, :, 1:-1] + rows[:, :, 2:]
    total = total + 4 * pixels[:, 1:-1, 1:-1]
    # 13 is odd, so total / 13 is never half an integer: rounding in integers
    # and rounding Pillow's float32 sum agree.
    inner = (2 * total + 13) // 26
    inner = jnp.pad(inner, ((0, 0), (1, 1), (1, 1), (0, 0)))
    y, x = jnp.arange(height)[:, None], jnp.arange(width)[None, :]
    border = (y == 0) | (y == height - 1) | (x == 0) | (x == width - 1)
    return jnp.where(border[None, :, :, None], pixels, inner)


# --- nearest-neighbour geometry ----------------------------------------------


def take(
    images: Num[Array, "B H W C"],
    y: Int[Array, "#B #h #w"],
    x: Int[Array, "#B #h #w"],
    fill: int,
) -> Num[Array, "B h w C"]:
    """Gathers ``images[b, y, x]``, a constant where (y, x) lies outside.

    Args:
      images: [B, H, W, C].
      y: int32, broadcastable to [B, h, w], source rows.
      x: int32, broadcastable to [B, h, w], source columns.
      fill: value outside of the image.

    Returns:
      [B, h, w, C], dtype of ``images``.
    """
    batch, height, width, channels = images.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    flat = jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1)
    shape = flat.shape
    out = jnp.take_along_axis(
        images.reshape(batch, height * width, channels),
        flat.reshape(batch, -1, 1),
        axis=1,
        mode="promise_in_bounds",
    ).reshape(*shape, channels)
    return jnp.where(inside[..., None], out, jnp.asarray(fill, images.dtype))


def _nearest(
    images: UInt8[Array, "B H W C"],
    choices: Sequence[Choice],
    which: Int[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """Maps ``in(a0 x + a1 y + a2, a3 x + a4 y + a5)``, grey outside."""
    height, width = images.shape[1:3]
    table = np.array(
        [_coefficients(*choice, height, width) for choice in choices], np.int32
    )
    a = jnp.asarray(table)[which]
    a0, a1, a2, a3, a4, a5 = (a[:, i, None, None] for i in range(6))
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    return take(
        images,
        (a3 * x + a4 * y + a5) >> 16,
        (a0 * x + a1 * y + a2) >> 16,
        FILL,
    )


def _coefficients(
    op: str, value: float, height: int, width: int
) -> tuple[int, ...]:
    """The six numbers of the map from output to input, 16.16 fixed point."""
    identity = (_ONE, 0, 0, 0, _ONE, 0)
    if op == "translateX":
        return _ONE, 0, math.floor(value + 0.5) * _ONE, 0, _ONE, 0
    if op == "translateY":
        return _ONE, 0, 0, 0, _ONE, math.floor(value + 0.5) * _ONE
    if op != "rotate" or value % 360 == 0:
        return identity
    # Pillow rounds sine and cosine to 15 digits, turns about the middle and
    # samples at pixel centres (+ 0.5).
    cos = round(math.cos(-math.radians(value % 360)), 15)
    sin = round(math.sin(-math.radians(value % 360)), 15)
    left = cos * -width / 2 + sin * -height / 2 + width / 2
    top = -sin * -width / 2 + cos * -height / 2 + height / 2
    exact = (
        cos,
        sin,
        left + cos * 0.5 + sin * 0.5,
        -sin,
        cos,
        top - sin * 0.5 + cos * 0.5,
    )
    return tuple(math.floor(number * _ONE + 0.5) for number in exact)


# --- shear -------------------------------------------------------------------


def _shear_y(
    images: UInt8[Array, "B H W C"],
    op: str,
    choices: Sequence[Choice],
    which: Int[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """Shears ``in(x, y + m (x + 1/2))``, cubic (a = -1), grey outside."""
    height, width = images.shape[1:3]
    slopes = np.array([value if name == op else 0 for name, value in choices])
    offset = slopes[:, None] * (np.arange(width) + 0.5)
    whole = np.floor(offset)
    shift = jnp.asarray(whole.astype(np.int32))[which][:, None, :]
    d = jnp.asarray((offset - whole).astype(np.float32))[which]
    d = d[:, None, :, None]
    nearest = np.floor(offset + 0.5).astype(np.int32)
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    v1, v2, v3, v4 = (
        take(images, jnp.clip(y + shift + tap, 0, height - 1), x, FILL).astype(
            jnp.int32
        )
        for tap in (-1, 0, 1, 2)
    )
    # Coefficients are integers, so float32 holds them exactly.
    p2, p3, p4 = (
        p.astype(jnp.float32)
        for p in (v3 - v1, 2 * (v1 - v2) + v3 - v4, v2 - v1 + v4 - v3)
    )
    value = v2.astype(jnp.float32) + d * (p2 + d * (p3 + d * p4))
    out = jnp.clip(value, 0.0, 255.0).astype(jnp.uint8)
    source = y + jnp.asarray(nearest)[which][:, None, :]
    inside = (source >= 0) & (source < height)
    return jnp.where(inside[..., None], out, jnp.uint8(FILL))


# --- colour jitter -----------------------------------------------------------


class JitterDraws(NamedTuple):
    """In which order each image is changed, and how far.

    Attributes:
      order: indices into ``JITTERED``, first to last.
      factors: of each entry of ``JITTERED``.
    """

    order: Int[Array, "3 B"]
    factors: Float[Array, "3 B"]


def sample_jitter(key: Key[Array, ""], batch: int) -> JitterDraws:
    """Draws the order uniformly, factors uniformly in 1 - 0.4 .. 1 + 0.4.

    Args:
      key: JAX key.
      batch: how many images.

    Returns:
      Draws.
    """
    order_key, factor_key = jax.random.split(key)
    which = jax.random.randint(order_key, (batch,), 0, len(_ORDERS), jnp.int32)
    # Factors on a grid are exact in float32, whatever the compiler does.
    most = int(JITTER * _GRID)
    offset = jax.random.randint(
        factor_key, (3, batch), -most, most + 1, jnp.int32
    )
    return JitterDraws(
        jnp.asarray(_ORDERS)[which].T,
        (_GRID + offset).astype(jnp.float32) / jnp.float32(_GRID),
    )


def apply_jitter(
    images: UInt8[Array, "B H W C"], draws: JitterDraws
) -> UInt8[Array, "B H W C"]:
    """Brightness, contrast and saturation, one after another.

    The contrast is about the mean of the result of the earlier steps, and every
    step rounds to 8 bits.

    Args:
      images: uint8 [B, H, W, C], C 1 or 3.
      draws: one entry an image.

    Returns:
      uint8 [B, H, W, C].

    Source: ``papers/dasc.md`` section 2; torchvision's ColorJitter.
    """
    for op in draws.order:
        pixels = images.astype(jnp.int32)
        saturation = grey(pixels)
        which = op[:, None, None, None]
        degenerate = jnp.where(which == 1, mean_level(saturation), saturation)
        degenerate = jnp.where(which == 0, 0, degenerate)
        factor = jnp.take_along_axis(draws.factors, op[None], axis=0)[0]
        images = blend(pixels, degenerate, factor)
    return images


def jitter(
    key: Key[Array, ""], images: UInt8[Array, "B H W C"]
) -> UInt8[Array, "B H W C"]:
    """Colour jitter of brightness, contrast and saturation by up to 0.4.

    It is torchvision's ColorJitter(0.4, 0.4, 0.4), drawn anew for every image.

    Args:
      key: JAX key.
      images: uint8 [B, H, W, C], C 1 or 3.

    Returns:
      uint8 [B, H, W, C].

    Source: ``papers/dasc.md`` section 2.
    """
    return apply_jitter(images, sample_jitter(key, images.shape[0]))
