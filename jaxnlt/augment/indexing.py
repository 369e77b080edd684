"""Indexing of whole batches: rows of tables, pixels, levels.

CPUs and GPUs gather and scatter, which a TPU does index by index.  There images
move by powers of two; levels are counted and looked up, and pixels are taken,
by matrix products: a level is 16 high + low, and each of these two digits
becomes a row of zeros with a single one.  Such numbers are exact in
bfloat16 and their sums in float32, so that both ways give the same bits.  On
two CPU cores the products take 7 to 100 times as long as scatter and gather.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, BFloat16, Int, Num, UInt8

_INSIDE = "promise_in_bounds"
_DIGITS = np.arange(16, dtype=np.uint8)
_BLOCK = 64 * 64  # pixels that products take at once


# --- rows of tables ----------------------------------------------------------


def pick(
    table: Num[np.ndarray, "K *n"], which: Int[Array, "B"]
) -> Num[Array, "B *n"]:
    """Picks a row of a static table for each image, ``table[which]``.

    Args:
      table: K rows, static.
      which: int32 [B], in 0..K-1.

    Returns:
      [B, ...], dtype of the table.
    """
    rows = jnp.asarray(table)

    def gather(which: Int[Array, "B"]) -> Num[Array, "B *n"]:
        return rows.at[which].get(mode=_INSIDE)

    def total(which: Int[Array, "B"]) -> Num[Array, "B *n"]:
        index = jnp.arange(len(rows), dtype=jnp.int32)
        chosen = which.reshape(-1, *[1] * rows.ndim) == index.reshape(
            -1, *[1] * (rows.ndim - 1)
        )
        zero = jnp.zeros((), rows.dtype)
        return jnp.where(chosen, rows, zero).sum(1, dtype=rows.dtype)

    return jax.lax.platform_dependent(which, tpu=total, default=gather)


# --- pixels ------------------------------------------------------------------


def take(
    images: Num[Array, "B H W C"],
    y: Int[Array, "B h w"],
    x: Int[Array, "B h w"],
    fill: int,
) -> Num[Array, "B h w C"]:
    """Takes ``images[b, y, x]``, a constant where (y, x) lies outside.

    On a TPU zeros with a single one choose the row, then the column: that is
    H W C products a pixel, block after block to bound the memory.

    Args:
      images: [B, H, W, C].
      y: int32, source rows.
      x: int32, source columns.
      fill: value outside of the image.

    Returns:
      [B, h, w, C], dtype of ``images``.
    """

    def product(
        images: Num[Array, "B H W C"],
        y: Int[Array, "B h w"],
        x: Int[Array, "B h w"],
    ) -> Num[Array, "B h w C"]:
        batch, height, width = y.shape
        side = max(1, min(height, _BLOCK // width))
        lacking = -height % side

        def blocks(index: Int[Array, "B h w"]) -> Int[Array, "n B side w"]:
            padded = jnp.pad(index, ((0, 0), (0, lacking), (0, 0)))
            return padded.reshape(batch, -1, side, width).swapaxes(0, 1)

        out = jax.lax.map(
            lambda at: _choose(images, at[0], at[1], fill),
            (blocks(y), blocks(x)),
        )
        out = out.swapaxes(0, 1).reshape(batch, -1, width, images.shape[-1])
        return out[:, :height]

    gather = functools.partial(_gather, fill=fill)
    exact = images.dtype == jnp.uint8
    return jax.lax.platform_dependent(
        images, y, x, tpu=product if exact else gather, default=gather
    )


def _choose(
    images: UInt8[Array, "B H W C"],
    y: Int[Array, "B h w"],
    x: Int[Array, "B h w"],
    fill: int,
) -> UInt8[Array, "B h w C"]:
    """What ``take`` takes, by products."""
    height, width = images.shape[1:3]
    row = y[..., None] == jnp.arange(height, dtype=jnp.int32)
    column = x[..., None] == jnp.arange(width, dtype=jnp.int32)
    rows = jnp.einsum(
        "bijh,bhwc->bijcw",
        row.astype(jnp.bfloat16),
        images.astype(jnp.bfloat16),
        preferred_element_type=jnp.float32,
    )
    out = jnp.where(column[..., None, :], rows, 0).sum(-1)
    inside = (row.any(-1) & column.any(-1))[..., None]
    return jnp.where(inside, out, fill).astype(jnp.uint8)


def _gather(
    images: Num[Array, "B H W C"],
    y: Int[Array, "#B #h #w"],
    x: Int[Array, "#B #h #w"],
    fill: int,
) -> Num[Array, "B h w C"]:
    """What ``take`` takes, index by index; y and x may be broadcast."""
    batch, height, width, channels = images.shape
    inside = (y >= 0) & (y < height) & (x >= 0) & (x < width)
    flat = jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1)
    out = jnp.take_along_axis(
        images.reshape(batch, height * width, channels),
        flat.reshape(batch, -1, 1),
        axis=1,
        mode=_INSIDE,
    ).reshape(*flat.shape, channels)
    return jnp.where(inside[..., None], out, jnp.asarray(fill, images.dtype))


def slide(
    images: Num[Array, "B H W C"],
    y: Int[Array, "B #W"],
    x: Int[Array, "B"],
    reach: tuple[range, range],
    fill: int | None = None,
    taps: range = range(1),
) -> tuple[Num[Array, "B H W C"], ...]:
    """Moves columns and images, ``images[b, i + y[b, j] + tap, j + x[b]]``.

    On a TPU a gather goes pixel by pixel.  There the offsets are split into
    powers of two, by each of which the whole batch moves or stays.

    Args:
      images: [B, H, W, C].
      y: int32, offset of each column's rows, or one of all columns.
      x: int32, offset of the columns; 0 where y differs between columns.
      reach: static, the values that y and x may have; 0 is one of them.
      fill: value outside of the image; None repeats the border.
      taps: rows by which the result moves too.

    Returns:
      [B, H, W, C] of each tap, dtype of ``images``.
    """
    height, width = images.shape[1:3]

    def gather(
        images: Num[Array, "B H W C"],
    ) -> tuple[Num[Array, "B H W C"], ...]:
        i = jnp.arange(height, dtype=jnp.int32)[:, None] + y[:, None, :]
        j = jnp.arange(width, dtype=jnp.int32) + x[:, None, None]
        if fill is not None:
            return tuple(_gather(images, i + tap, j, fill) for tap in taps)
        j = jnp.clip(j, 0, width - 1)
        rows = (jnp.clip(i + tap, 0, height - 1) for tap in taps)
        return tuple(_gather(images, row, j, 0) for row in rows)

    def move(
        images: Num[Array, "B H W C"],
    ) -> tuple[Num[Array, "B H W C"], ...]:
        margin = -taps[0], taps[-1]
        images = _move(images, y[:, None, :], reach[0], 1, fill, margin)
        images = _move(images, x[:, None, None], reach[1], 2, fill)
        return tuple(images[:, i : i + height] for i in range(len(taps)))

    return jax.lax.platform_dependent(images, tpu=move, default=gather)


def _move(
    images: Num[Array, "B H W C"],
    offset: Int[Array, "B 1 #W"],
    reach: range,
    axis: int,
    fill: int | None,
    margin: tuple[int, int] = (0, 0),
) -> Num[Array, "B h w C"]:
    """Moves along one axis by powers of two."""
    least = reach.start
    bits = (len(reach) - 1).bit_length()
    widths = [(0, 0)] * 4
    before, after = margin
    widths[axis] = (before - least, after + least + 2**bits - 1)
    if fill is None:
        images = jnp.pad(images, widths, mode="edge")
    else:
        images = jnp.pad(images, widths, constant_values=fill)
    steps = (offset - least)[..., None]
    for bit in reversed(range(bits)):
        size = images.shape[axis] - 2**bit
        stay = jax.lax.slice_in_dim(images, 0, size, axis=axis)
        moved = jax.lax.slice_in_dim(images, 2**bit, None, axis=axis)
        images = jnp.where((steps >> bit) & 1 == 1, moved, stay)
    return images


# --- levels ------------------------------------------------------------------


def histogram(pixels: UInt8[Array, "B P C"]) -> Int[Array, "B C 256"]:
    """Counts how many pixels of each image and channel have each level.

    Args:
      pixels: uint8 [B, P, C], P below 2^24.

    Returns:
      int32 [B, C, 256].
    """
    batch, _, channels = pixels.shape

    def scatter(pixels: UInt8[Array, "B P C"]) -> Int[Array, "B n"]:
        at = jax.vmap(lambda zeros, bins: zeros.at[bins].add(1, mode=_INSIDE))
        return at(jnp.zeros((batch, channels * 256), jnp.int32), _bins(pixels))

    def product(pixels: UInt8[Array, "B P C"]) -> Int[Array, "B n"]:
        counts = jnp.einsum(
            "bchp,bclp->bchl",
            _one_hot(pixels >> 4),
            _one_hot(pixels & 15),
            preferred_element_type=jnp.float32,
        )
        return counts.reshape(batch, channels * 256).astype(jnp.int32)

    counts = jax.lax.platform_dependent(pixels, tpu=product, default=scatter)
    return counts.reshape(batch, channels, 256)


def look_up(
    tables: UInt8[Array, "B C 256"], pixels: UInt8[Array, "B P C"]
) -> UInt8[Array, "B P C"]:
    """Replaces levels, ``tables[b, c, pixels[b, p, c]]``.

    Args:
      tables: uint8 [B, C, 256], the new level of each level.
      pixels: uint8 [B, P, C].

    Returns:
      uint8 [B, P, C].
    """
    batch, _, channels = pixels.shape

    def gather(
        tables: UInt8[Array, "B C 256"], pixels: UInt8[Array, "B P C"]
    ) -> UInt8[Array, "B P C"]:
        flat = tables.reshape(batch, channels * 256)
        out = jnp.take_along_axis(flat, _bins(pixels), axis=1, mode=_INSIDE)
        return out.reshape(pixels.shape)

    def product(
        tables: UInt8[Array, "B C 256"], pixels: UInt8[Array, "B P C"]
    ) -> UInt8[Array, "B P C"]:
        rows = jnp.einsum(
            "bchl,bchp->bclp",
            tables.reshape(batch, channels, 16, 16).astype(jnp.bfloat16),
            _one_hot(pixels >> 4),
            preferred_element_type=jnp.float32,
        )
        out = (rows * _one_hot(pixels & 15)).sum(2)
        return out.swapaxes(1, 2).astype(jnp.uint8)

    return jax.lax.platform_dependent(
        tables, pixels, tpu=product, default=gather
    )


def _bins(pixels: UInt8[Array, "B P C"]) -> Int[Array, "B P*C"]:
    """Where a pixel's level stands among the C * 256 of its image."""
    batch, _, channels = pixels.shape
    first = 256 * jnp.arange(channels, dtype=jnp.int32)
    return (pixels.astype(jnp.int32) + first).reshape(batch, -1)


def _one_hot(
    digits: UInt8[Array, "B P C"],
) -> BFloat16[Array, "B C 16 P"]:
    """1 where a pixel has a digit, else 0."""
    columns = digits.swapaxes(1, 2)[:, :, None, :]
    return (columns == _DIGITS[:, None]).astype(jnp.bfloat16)
