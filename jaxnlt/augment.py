"""On-device augmentation of whole batches, inside the jitted step.

Every augmentation first draws, for each image, what will happen to it, and
then applies the draws; the two halves are separate functions, so that tests
can compare the second with Pillow.

Source: papers/dasc.md §2 (CIFAR); DESIGN.md §9 (digits).
"""

import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnlt import enhance, image_ops, policies, randaugment

# digits_strong: half-widths of the uniform draws
ROTATION = 15.0  # degrees
SCALE = 0.15
SHEAR = 0.2
SHIFT = 1.0  # pixels
CONTRAST = 0.2
BRIGHTNESS = 0.2
CUTOUT = 3  # side of the black square, pixels
APPLIED = 0.5  # probability of each of them, as in a policy


def normalise(
    images: jax.Array,
    mean: Sequence[float],
    std: Sequence[float],
    dtype: DTypeLike = jnp.float32,
) -> jax.Array:
    """(images / 255 - mean) / std.

    Args:
      images: [..., C], levels 0..255, any dtype.
      mean: C numbers, of images scaled to [0, 1].
      std: C numbers, of images scaled to [0, 1].
      dtype: of the result; at least float32 is used in between.

    Returns:
      [..., C] of the dtype.

    Source: papers/dasc.md §2.
    """
    working = jnp.promote_types(dtype, jnp.float32)
    scaled = images.astype(working) / jnp.asarray(255, working)
    centred = scaled - jnp.asarray(mean, working)
    return (centred / jnp.asarray(std, working)).astype(dtype)


def _uniform(key: jax.Array, count: int, batch: int) -> jax.Array:
    """float32 [count, B] in [0, 1); float32 also where x64 is on."""
    return jax.random.uniform(key, (count, batch), jnp.float32)


def _integers(uniform: jax.Array, count: int) -> jax.Array:
    """int32 in 0 .. count - 1; for counts far below 2^23."""
    return jnp.floor(uniform * jnp.float32(count)).astype(jnp.int32)


# --- shift, crop, flip ------------------------------------------------------


class CropDraws(NamedTuple):
    """Where each crop starts, in pixels of the image, and whether it flips."""

    top: jax.Array  # int32 [B], negative: rows of zeros come first
    left: jax.Array  # int32 [B]
    flip: jax.Array  # bool [B]


def sample_shift(key: jax.Array, batch: int) -> CropDraws:
    """top, left uniform over {-1, 0, 1}; no flip."""
    shift = _integers(_uniform(key, 2, batch), 3) - 1
    return CropDraws(shift[0], shift[1], jnp.zeros(batch, bool))


def sample_crop_flip(
    key: jax.Array, batch: int, height: int, width: int
) -> CropDraws:
    """Crop of the image padded by an eighth (4 at 32 px); flip with p 1/2."""
    uniform = _uniform(key, 3, batch)
    pad_y, pad_x = height // 8, width // 8
    return CropDraws(
        _integers(uniform[0], 2 * pad_y + 1) - pad_y,
        _integers(uniform[1], 2 * pad_x + 1) - pad_x,
        uniform[2] < 0.5,
    )


def apply_crop(images: jax.Array, draws: CropDraws) -> jax.Array:
    """Cuts at (top, left), black outside of the image; then mirrors.

    Args:
      images: [B, H, W, C].
      draws: one entry per image.

    Returns:
      [B, H, W, C], same dtype.

    Source: papers/dasc.md §2.
    """
    height, width = images.shape[1:3]
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    x = jnp.where(draws.flip[:, None, None], width - 1 - x, x)
    return image_ops.take(
        images,
        y + draws.top[:, None, None],
        x + draws.left[:, None, None],
        fill=0,
    )


# --- AutoAugment ------------------------------------------------------------


class PolicyDraws(NamedTuple):
    """The sub-policy of each image; sign and coin of its two operations."""

    policy: jax.Array  # int32 [B], 0 .. 24
    positive: jax.Array  # bool [2, B]
    applied: jax.Array  # bool [2, B]


def sample_policy(key: jax.Array, batch: int) -> PolicyDraws:
    """policy uniform over 25, signs even, coins with the table's p."""
    uniform = _uniform(key, 5, batch)
    policy = _integers(uniform[0], len(policies.SUB_POLICIES))
    chances = jnp.asarray(policies.probabilities())[policy].T
    return PolicyDraws(policy, uniform[1:3] < 0.5, uniform[3:5] < chances)


def apply_policy(images: jax.Array, draws: PolicyDraws) -> jax.Array:
    """Applies the drawn sub-policy, first operation, then second.

    Args:
      images: uint8 [B, H, W, C], C 1 or 3.
      draws: one entry per image.

    Returns:
      uint8 [B, H, W, C].

    Source: papers/dasc.md §2.
    """
    height, width = images.shape[1:3]
    for slot in (0, 1):
        choices, index = policies.slot_choices(slot, height, width)
        sign = draws.positive[slot].astype(jnp.int32)
        which = jnp.asarray(index)[draws.policy, sign]
        which = jnp.where(draws.applied[slot], which, 0)
        images = image_ops.apply_choices(images, choices, which)
    return images


# --- digits -----------------------------------------------------------------


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
    uniform = _uniform(key_values, 9, batch).astype(float)
    coins = _uniform(key_coins, 7, batch) < APPLIED
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
        jnp.where(coins[6], _integers(uniform[7], height), outside),
        _integers(uniform[8], width),
    )


def affine_matrix(draws: DigitDraws) -> jax.Array:
    """float [B, 2, 2]: (row, column) offsets from the middle, out to in.

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

    Source: DESIGN.md §9.
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
        a = image_ops.take(images, i, left, 0).astype(float)
        b = image_ops.take(images, i, left + 1, 0).astype(float)
        return a + part_x * (b - a)

    upper = row(top)
    return upper + part_y * (row(top + 1) - upper)


# --- the table --------------------------------------------------------------


def none(key: jax.Array, images: jax.Array) -> jax.Array:
    """The images as they are; the key is not used."""
    del key
    return images


def shift(key: jax.Array, images: jax.Array) -> jax.Array:
    """Shift by up to one pixel per axis, zero fill (weak, digits)."""
    return apply_crop(images, sample_shift(key, images.shape[0]))


def digits_strong(key: jax.Array, images: jax.Array) -> jax.Array:
    """Affine, contrast, brightness, cutout; a float, never mirrored."""
    return apply_digits(images, sample_digits(key, *images.shape[:3]))


def crop_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Random crop of the zero-padded image, mirrored with p 1/2 (weak)."""
    return apply_crop(images, sample_crop_flip(key, *images.shape[:3]))


# --- of crops that the host has made -----------------------------------------


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrored with p 1/2 (weak, images that are streamed)."""
    chosen = _uniform(key, 1, images.shape[0])[0] < 0.5
    return jnp.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def rotate(images: jax.Array, angle: jax.Array) -> jax.Array:
    """Turns about the middle, nearest pixel, black outside.

    Args:
      images: [B, H, W, C].
      angle: float32 [B], degrees against the clock.

    Returns:
      [B, H, W, C], same dtype.

    Source: papers/h2e.md §9.
    """
    height, width = images.shape[1:3]
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None] + 0.5 - height / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :] + 0.5 - width / 2
    radians = jnp.deg2rad(angle)[:, None, None]
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    return image_ops.take(
        images,
        jnp.floor(sin * x + cos * y + height / 2).astype(jnp.int32),
        jnp.floor(cos * x - sin * y + width / 2).astype(jnp.int32),
        fill=0,
    )


def flip_rotate(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrored with p 1/2, then turned by up to 15 degrees (H2E)."""
    flip_key, angle_key = jax.random.split(key)
    uniform = _uniform(angle_key, 1, images.shape[0])[0]
    return rotate(flip(flip_key, images), (2 * uniform - 1) * ROTATION)


def _both(
    first: "Augmentation",
    second: "Augmentation",
    key: jax.Array,
    images: jax.Array,
) -> jax.Array:
    first_key, second_key = jax.random.split(key)
    return second(second_key, first(first_key, images))


def _then(first: "Augmentation", second: "Augmentation") -> "Augmentation":
    """One augmentation after another, each with a key of its own."""
    return functools.partial(_both, first, second)


def policy(key: jax.Array, images: jax.Array) -> jax.Array:
    """One of the 25 sub-policies an image (strong, after a weak one)."""
    return apply_policy(images, sample_policy(key, images.shape[0]))


# function(key, images uint8 [B, H, W, C]) -> uint8 or float32, 0..255
Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


# Mirroring moves pixels, the jitter changes each by itself and by the mean of
# all: between crop and mirror image or after both, it gives the same.
_crop_jitter_flip = _then(crop_flip, enhance.jitter)
_jitter_flip = _then(flip, enhance.jitter)

AUGMENTATIONS: dict[str, Augmentation] = {
    "none": none,
    "shift": shift,
    "digits_strong": digits_strong,
    "crop_flip": crop_flip,
    "autoaugment": _then(crop_flip, policy),
    "randaugment": _then(crop_flip, randaugment.standard),
    "randaugment_pypi": _then(crop_flip, randaugment.pypi),
    "crop_jitter_flip": _crop_jitter_flip,
    "crop_jitter_flip_autoaugment": _then(_crop_jitter_flip, policy),
    # Without a crop: the host has cut images that are streamed.
    "flip": flip,
    "flip_rotate": flip_rotate,
    "flip_autoaugment": _then(flip, policy),
    "flip_randaugment": _then(flip, randaugment.standard),
    "flip_randaugment_pypi": _then(flip, randaugment.pypi),
    "flip_rotate_randaugment_pypi": _then(flip_rotate, randaugment.pypi),
    "jitter_flip": _jitter_flip,
    "jitter_flip_autoaugment": _then(_jitter_flip, policy),
}


def crops(name: str) -> bool:
    """Whether an augmentation of the table begins with a padded crop."""
    function = AUGMENTATIONS[name]
    while isinstance(function, functools.partial):
        function = function.args[0]
    return function is crop_flip
