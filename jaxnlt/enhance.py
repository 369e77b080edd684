"""Pillow's ImageEnhance on batches of images, and the colour jitter made of it.

An enhancement blends an image with a degenerate one: black (brightness), its
mean level (contrast), grey (saturation).  `jaxnlt.image_ops` takes the factors
of its blends from a static list, the jitter draws them anew for every image.

Source: behaviour of Pillow 13 and of torchvision's ColorJitter on its images;
papers/dasc.md §2 names the operations.
"""

import itertools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

# What the rows of `JitterDraws.factors` are of, and how far from 1 they go.
JITTERED = ("brightness", "contrast", "saturation")
JITTER = 0.4
_GRID = 1 << 20  # factors between 1 and 2
_ORDERS = np.array(list(itertools.permutations(range(3))), np.int32)


def blend(
    pixels: jax.Array, degenerate: jax.Array, factor: jax.Array
) -> jax.Array:
    """out = trunc(clip(d + factor * (in - d))); 1 gives the image back.

    Args:
      pixels: int32 [B, H, W, C], levels 0..255.
      degenerate: int32, d, broadcastable to the pixels.
      factor: float32 [B], not negative.

    Returns:
      uint8 [B, H, W, C].

    Source: Pillow's Image.blend; papers/dasc.md §2.
    """
    # A compiler may fuse d + factor * difference into one rounding, which
    # moves some levels by one.  Of a factor cut into two halves of 12 bits
    # both products are exact, so that fusing them changes nothing.
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


def grey(pixels: jax.Array) -> jax.Array:
    """(19595 r + 38470 g + 7471 b + 2^15) >> 16; a grey image as it is.

    Args:
      pixels: int32 [B, H, W, C], C 1 or 3.

    Returns:
      int32 [B, H, W, 1].

    Source: Pillow's conversion to "L".
    """
    if pixels.shape[-1] == 1:
        return pixels
    weights = jnp.array([19595, 38470, 7471], jnp.int32)
    total = (pixels * weights).sum(-1, keepdims=True, dtype=jnp.int32)
    return (total + 0x8000) >> 16


def mean_level(levels: jax.Array) -> jax.Array:
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


class JitterDraws(NamedTuple):
    """In which order each image is enhanced, and how far."""

    order: jax.Array  # int32 [3, B], indices into JITTERED, first to last
    factors: jax.Array  # float32 [3, B], of JITTERED


def sample_jitter(key: jax.Array, batch: int) -> JitterDraws:
    """The six orders alike, factors uniform in [1 - JITTER, 1 + JITTER]."""
    order_key, factor_key = jax.random.split(key)
    which = jax.random.randint(order_key, (batch,), 0, len(_ORDERS), jnp.int32)
    # On a grid whose points float32 holds, no compiler rounds them otherwise.
    most = int(JITTER * _GRID)
    offset = jax.random.randint(
        factor_key, (3, batch), -most, most + 1, jnp.int32
    )
    return JitterDraws(
        jnp.asarray(_ORDERS)[which].T,
        (_GRID + offset).astype(jnp.float32) / jnp.float32(_GRID),
    )


def apply_jitter(images: jax.Array, draws: JitterDraws) -> jax.Array:
    """Brightness, contrast and saturation, one after another.

    The contrast is about the mean of what the steps before it have left, and
    every step rounds to 8 bits.

    Args:
      images: uint8 [B, H, W, C], C 1 or 3.
      draws: one entry per image.

    Returns:
      uint8 [B, H, W, C].

    Source: papers/dasc.md §2; torchvision's ColorJitter.
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


def jitter(key: jax.Array, images: jax.Array) -> jax.Array:
    """torchvision's ColorJitter(0.4, 0.4, 0.4), drawn anew for every image.

    Args:
      key: JAX key.
      images: uint8 [B, H, W, C], C 1 or 3.

    Returns:
      uint8 [B, H, W, C].

    Source: papers/dasc.md §2.
    """
    return apply_jitter(images, sample_jitter(key, images.shape[0]))
