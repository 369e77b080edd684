"""Strong augmentation of handwritten digits, which have a direction.

A digit is rotated, scaled, sheared, shifted, changed in contrast and
brightness, and covered by a small square, but never mirrored.  The strengths
are ours, chosen for images of 8x8 pixels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, Num

from jaxnlt.augment import pillow
from jaxnlt.augment.indexing import take

# Half-widths of the uniform draws.
ROTATION = 15.0  # degrees
SCALE = 0.15
SHEAR = 0.2  # columns a row
SHIFT = 1.0  # pixels
CONTRAST = 0.2
BRIGHTNESS = 0.2

CUTOUT = 3  # side of the black square, pixels
APPLIED = 0.5  # probability of each change


class DigitDraws(NamedTuple):
    """What happens to each digit.

    Attributes:
      angle: degrees.
      scale: of the digit, 1 for none.
      shear: columns a row.
      shift_y: pixels.
      shift_x: pixels.
      contrast: factor about the mean level.
      brightness: factor.
      cut_y: row of the middle of the black square, negative for none.
      cut_x: column of the middle of the black square.
    """

    angle: Float[Array, "B"]
    scale: Float[Array, "B"]
    shear: Float[Array, "B"]
    shift_y: Float[Array, "B"]
    shift_x: Float[Array, "B"]
    contrast: Float[Array, "B"]
    brightness: Float[Array, "B"]
    cut_y: Int[Array, "B"]
    cut_x: Int[Array, "B"]


def sample_digits(
    key: Key[Array, ""], batch: int, height: int, width: int
) -> DigitDraws:
    """Uniform draws, each of which applies with probability 1/2.

    Applying all of them leaves too little of an 8x8 digit: an 8 becomes a 3.

    Args:
      key: JAX key.
      batch: how many images.
      height: of the images, pixels.
      width: of the images, pixels.

    Returns:
      Draws; both shifts apply together.
    """
    key_values, key_coins = jax.random.split(key)
    # With x64 in float64, so that any number of devices agrees to 1e-10.
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


def affine_matrix(draws: DigitDraws) -> Float[Array, "B 2 2"]:
    r"""Maps offsets from the middle in the output to those in the input.

    .. math:: R(\mathrm{angle}) \begin{pmatrix} 1 & 0 \\ \mathrm{shear} & 1
       \end{pmatrix} / \mathrm{scale}

    Args:
      draws: one entry an image.

    Returns:
      [B, 2, 2] for (row, column) vectors; the determinant is positive, so that
      a digit is never mirrored.
    """
    radians = jnp.deg2rad(draws.angle)
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    rows = (
        (cos - sin * draws.shear, -sin),
        (sin + cos * draws.shear, cos),
    )
    matrix = jnp.stack([jnp.stack(row, -1) for row in rows], -2)
    return matrix / draws.scale[:, None, None]


def apply_digits(
    images: Num[Array, "B H W C"], draws: DigitDraws
) -> Float[Array, "B H W C"]:
    """Affine map (bilinear, black outside), contrast, brightness, cutout.

    Args:
      images: uint8 [B, H, W, C].
      draws: one entry an image.

    Returns:
      float32 [B, H, W, C], 0..255; float64 where x64 is on.
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


def _bilinear(
    images: Num[Array, "B H W C"],
    y: Float[Array, "B H W"],
    x: Float[Array, "B H W"],
) -> Float[Array, "B H W C"]:
    """Images at the points (y, x); black outside."""
    floor_y, floor_x = jnp.floor(y), jnp.floor(x)
    part_y, part_x = (y - floor_y)[..., None], (x - floor_x)[..., None]
    top, left = floor_y.astype(jnp.int32), floor_x.astype(jnp.int32)

    def row(i: Int[Array, "B H W"]) -> Float[Array, "B H W C"]:
        a = take(images, i, left, 0).astype(float)
        b = take(images, i, left + 1, 0).astype(float)
        return a + part_x * (b - a)

    upper = row(top)
    return upper + part_y * (row(top + 1) - upper)


def strong(
    key: Key[Array, ""], images: Num[Array, "B H W C"]
) -> Float[Array, "B H W C"]:
    """Affine map, contrast, brightness and cutout of each digit (strong)."""
    return apply_digits(images, sample_digits(key, *images.shape[:3]))
