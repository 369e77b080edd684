"""Pillow's image operations on batches of uint8 images, in pure JAX.

``apply_choices`` takes a short static list of operations and, for every image,
the index of its operation.  Operations fall into families (look-up table,
blend, nearest-neighbour, shear).  Each family runs once over the whole
batch with parameters of each image; parameters of "do nothing" leave an image
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
from jaxtyping import Array, Bool, Float, Int, Key, UInt8, UInt32

from jaxnlt.augment.indexing import histogram, look_up, pick, slide, take

# An operation and its value: the factor of a blend, bits, a threshold,
# degrees, pixels, a shear; see ``autoaugment.resolve``.
Choice = tuple[str, float]
IDENTITY: Choice = ("identity", 0.0)

FILL = 128  # grey behind rotated, sheared and translated images
_ONE = 1 << 16  # 1.0 in Pillow's 16.16 fixed point
_LEVELS = np.arange(256, dtype=np.int32)

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
    if "rotate" in names:
        images = _nearest(images, choices, which)
    elif names & set(NEAREST_OPS):
        images = _translate(images, choices, which)
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
    return pick(np.array([name == op for name, _ in choices]), which)


# --- look-up tables ----------------------------------------------------------


def _point(
    images: UInt8[Array, "B H W C"],
    choices: Sequence[Choice],
    which: Int[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """Replaces levels by a table of 256 entries for each image and channel."""
    batch, height, width, channels = images.shape
    pixels = images.reshape(batch, height * width, channels)
    mask, mirrored = pick(
        np.array([_arithmetic(*choice) for choice in choices], np.int32), which
    ).T[..., None, None]
    tables = _LEVELS & mask
    tables = jnp.where(tables < mirrored, tables, 255 - tables)
    tables = jnp.broadcast_to(tables, (batch, channels, 256))
    adaptive = {"autocontrast": _autocontrast, "equalize": _equalize}
    names = {name for name, _ in choices}
    if names & set(adaptive):
        counts = histogram(pixels)
    for op, make in adaptive.items():
        if op in names:
            chosen = _chosen(choices, which, op)[:, None, None]
            tables = jnp.where(chosen, make(counts), tables)
    out = look_up(tables.astype(jnp.uint8), pixels)
    return out.reshape(images.shape)


def _arithmetic(op: str, value: float) -> tuple[int, int]:
    """Which bits of a level stay, and from which level on it is inverted."""
    if op == "posterize":
        return 256 - 2 ** (8 - int(value)), 256
    if op == "solarize":
        return 255, math.ceil(value)
    return 255, 0 if op == "invert" else 256


def _autocontrast(
    counts: Int[Array, "B C 256"],
) -> Int[Array, "B C 256"]:
    """Tables ``floor(255 (v - lo) / (hi - lo))``, the identity if hi = lo.

    Pillow computes v * scale - lo * scale in float64 and truncates, so where
    the exact quotient is an integer it may land one level lower; a stored
    word says where.

    Args:
      counts: int32 [B, C, 256], the histogram.

    Returns:
      int32 [B, C, 256].
    """
    found = counts > 0
    low = jnp.where(found, _LEVELS, 255).min(-1, keepdims=True)
    high = jnp.where(found, _LEVELS, 0).max(-1, keepdims=True)
    span = jnp.maximum(high - low, 1)
    # Levels outside [lo, hi] do not occur; the clip keeps them in range.
    # Nothing is negative here, and div takes half the time of //.
    scaled = jnp.clip(_LEVELS - low, 0, high - low) * 255
    quotient = jax.lax.div(scaled, jnp.broadcast_to(span, scaled.shape))
    pairs = (256 * low + high).reshape(-1)
    words = pick(_slips().reshape(-1), pairs).reshape(low.shape)
    slips = (words >> (quotient >> 3).astype(jnp.uint32)) & 1
    exact = quotient * span == scaled
    table = quotient - jnp.where(exact, slips.astype(jnp.int32), 0)
    return jnp.where(high > low, table, _LEVELS)


@functools.lru_cache(maxsize=1)
def _slips() -> UInt32[np.ndarray, "256 256"]:
    """Where float64 falls below an exact integer quotient q.

    Those q are multiples of 15 or of 17, and no two of them have the same
    q // 8, which is the bit of q.

    Returns:
      uint32 [256, 256]: a word for (lo, hi).
    """
    words = np.zeros((256, 256), np.uint32)
    for low in range(255):
        high = np.arange(low + 1, 256)[:, None]
        scale = 255.0 / (high - low)
        inside = np.clip(_LEVELS, low, high)
        exact = (inside - low) * 255 // (high - low)
        # Pillow's expression, term by term.
        pillow = (inside * scale + -low * scale).astype(np.int64)
        bits = np.uint32(1) << (exact >> 3).astype(np.uint32)
        bits = np.where(exact > pillow, bits, np.uint32(0))
        words[low, low + 1 :] = np.bitwise_or.reduce(bits, axis=1)
    return words


def _equalize(counts: Int[Array, "B C 256"]) -> Int[Array, "B C 256"]:
    """Tables ``(step // 2 + #{pixels < v}) // step``.

    The step is #{pixels below the largest level} // 255; if it is 0, the table
    is the identity.

    Args:
      counts: int32 [B, C, 256], the histogram.

    Returns:
      int32 [B, C, 256].
    """
    below = jnp.cumsum(counts, axis=-1, dtype=jnp.int32) - counts
    below_top = jnp.where(counts > 0, below, 0).max(-1, keepdims=True)
    step = below_top // 255
    divisor = jnp.broadcast_to(jnp.maximum(step, 1), below.shape)
    table = jax.lax.div(step // 2 + below, divisor)
    return jnp.where(step > 0, jnp.minimum(table, 255), _LEVELS)


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
    return blend(pixels, degenerate, pick(factors, which))


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
    a0, a1, a2, a3, a4, a5 = pick(table, which).T[..., None, None]
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
    if op != "rotate" or value % 360 == 0:
        y, x = _translation(op, value, height, width)
        return _ONE, 0, x * _ONE, 0, _ONE, y * _ONE
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


def _translation(
    op: str, value: float, height: int, width: int
) -> tuple[int, int]:
    """By how many whole rows and columns an operation moves images."""
    y, x = (
        max(-size, min(math.floor(value + 0.5), size)) if op == name else 0
        for name, size in (("translateY", height), ("translateX", width))
    )
    return y, x


def _translate(
    images: UInt8[Array, "B H W C"],
    choices: Sequence[Choice],
    which: Int[Array, "B"],
) -> UInt8[Array, "B H W C"]:
    """What ``_nearest`` does where no image is rotated, without its gather."""
    height, width = images.shape[1:3]
    table = np.array(
        [_translation(*choice, height, width) for choice in choices], np.int32
    )
    y, x = pick(table, which).T
    reach = _reach(table[:, 0]), _reach(table[:, 1])
    (moved,) = slide(images, y[:, None], x, reach, FILL)
    return moved


def _reach(offsets: Int[np.ndarray, "*n"]) -> range:
    """From the least to the greatest offset, 0 among them."""
    return range(min(0, offsets.min()), max(0, offsets.max()) + 1)


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
    whole = np.floor(offset).astype(np.int32)
    d = pick((offset - whole).astype(np.float32), which)[:, None, :, None]
    nearest = np.floor(offset + 0.5).astype(np.int32)
    v1, v2, v3, v4 = (
        tap.astype(jnp.int32)
        for tap in slide(
            images,
            pick(whole, which),
            jnp.zeros(len(images), jnp.int32),
            (_reach(whole), range(1)),
            taps=range(-1, 3),
        )
    )
    # Coefficients are integers, so float32 holds them exactly.
    p2, p3, p4 = (
        p.astype(jnp.float32)
        for p in (v3 - v1, 2 * (v1 - v2) + v3 - v4, v2 - v1 + v4 - v3)
    )
    value = v2.astype(jnp.float32) + d * (p2 + d * (p3 + d * p4))
    out = jnp.clip(value, 0.0, 255.0).astype(jnp.uint8)
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    source = y + pick(nearest, which)[:, None, :]
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
        pick(_ORDERS, which).T,
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
