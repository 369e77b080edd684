"""TODO."""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxnlt.augment import pillow

# digits_strong: half-widths of the uniform draws
ROTATION = 15.0  # degrees


SCALE = 0.15


SHEAR = 0.2


SHIFT = 1.0  # pixels


CONTRAST = 0.2


BRIGHTNESS = 0.2


CUTOUT = 3  # side of the black square, pixels


APPLIED = 0.5  # probability of each of them, as in a policy


class DigitDraws(NamedTuple):
    """What happens to each digit; every field float [B] but the square."""

    angle: jax.Array  # degrees
    scale: jax.Array  # of the digit, 1 = as it was
    shear: jax.Array  # columns per row
    shift_y: jax.Array  # pixels
    shift_x: jax.Array
    contrast: jax.Array  # factor about the mean level
    brightness: jax.Array  # factor
    cut_y: jax.Array  # int32 [B], middle of the black square
    cut_x: jax.Array


def sample_digits(
    key: jax.Array, batch: int, height: int, width: int
) -> DigitDraws:
    """Uniform draws around "unchanged", each applied by the toss of a coin.

    The square lies anywhere; one that is not cut lies outside.  All of them
    at once leave too little of an 8x8 digit: an 8 becomes a 3.
    """
    key_values, key_coins = jax.random.split(key)
    # As exact as the rest: with x64, devices of any number agree to 1e-10.
    uniform = pillow.uniform(key_values, 9, batch).astype(float)
    coins = pillow.uniform(key_coins, 7, batch) < APPLIED
    # Both shifts share a coin.
    shared = coins[jnp.array([0, 1, 2, 3, 3, 4, 5])]
    angle, scale, shear, shift_y, shift_x, contrast, brightness = jnp.where(
        shared, 2.0 * uniform[:7] - 1.0, 0.0
    )
    outside = -CUTOUT
    return DigitDraws(
        angle * ROTATION,
        1.0 + scale * SCALE,
        shear * SHEAR,
        shift_y * SHIFT,
        shift_x * SHIFT,
        1.0 + contrast * CONTRAST,
        1.0 + brightness * BRIGHTNESS,
        jnp.where(coins[6], pillow.integers(uniform[7], height), outside),
        pillow.integers(uniform[8], width),
    )


def affine_matrix(draws: DigitDraws) -> jax.Array:
    """Float [B, 2, 2]: (row, column) offsets from the middle, out to in.

    matrix = rotation(angle) @ [[1, 0], [shear, 1]] / scale; its determinant
    is 1 / scale^2 > 0, so a digit is never mirrored.
    """
    radians = jnp.deg2rad(draws.angle)
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    rows = (
        (cos - sin * draws.shear, -sin),
        (sin + cos * draws.shear, cos),
    )
    matrix = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    return matrix / draws.scale[:, None, None]


def apply_digits(images: jax.Array, draws: DigitDraws) -> jax.Array:
    """Affine map (bilinear, black outside), contrast, brightness, cutout.

    Args:
      images: uint8 [B, H, W, C].
      draws: one entry per image.

    Returns:
      float32 [B, H, W, C], 0..255; float64 where x64 is on.

    Source:.
    """
    height, width = images.shape[1:3]
    rows = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    columns = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    middle_y, middle_x = (height - 1) / 2, (width - 1) / 2
    matrix = affine_matrix(draws)[:, :, :, None, None]
    out_y = rows.astype(float) - middle_y - draws.shift_y[:, None, None]
    out_x = columns.astype(float) - middle_x - draws.shift_x[:, None, None]
    y = matrix[:, 0, 0] * out_y + matrix[:, 0, 1] * out_x + middle_y
    x = matrix[:, 1, 0] * out_y + matrix[:, 1, 1] * out_x + middle_x
    out = _bilinear(images, y, x)

    mean = out.mean((1, 2, 3), keepdims=True)
    contrast = draws.contrast[:, None, None, None]
    brightness = draws.brightness[:, None, None, None]
    out = brightness * (mean + contrast * (out - mean))
    out = jnp.clip(out, 0.0, 255.0)

    reach = CUTOUT // 2
    cut = (jnp.abs(rows - draws.cut_y[:, None, None]) <= reach) & (
        jnp.abs(columns - draws.cut_x[:, None, None]) <= reach
    )
    return jnp.where(cut[..., None], 0, out)


def _bilinear(images: jax.Array, y: jax.Array, x: jax.Array) -> jax.Array:
    """Images at the points (y, x) [B, H, W]; black outside."""
    floor_y, floor_x = jnp.floor(y), jnp.floor(x)
    part_y, part_x = (y - floor_y)[..., None], (x - floor_x)[..., None]
    top, left = floor_y.astype(jnp.int32), floor_x.astype(jnp.int32)

    def row(i: jax.Array) -> jax.Array:
        a = pillow.take(images, i, left, 0).astype(float)
        b = pillow.take(images, i, left + 1, 0).astype(float)
        return a + part_x * (b - a)

    upper = row(top)
    return upper + part_y * (row(top + 1) - upper)
