"""On-device augmentation of whole batches, inside the jitted step.

Every augmentation first draws, for each image, what will happen to it, and
then applies the draws; the two halves are separate functions, so that tests
can compare the second with Pillow.

Source: ``papers/dasc.md`` section 2 (CIFAR).
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxnlt.augment import autoaugment, digits, pillow, randaugment


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

    Source: ``papers/dasc.md`` section 2.
    """
    working = jnp.promote_types(dtype, jnp.float32)
    scaled = images.astype(working) / jnp.asarray(255, working)
    centred = scaled - jnp.asarray(mean, working)
    return (centred / jnp.asarray(std, working)).astype(dtype)


# --- shift, crop, flip ------------------------------------------------------


class CropDraws(NamedTuple):
    """Where each crop starts, in pixels of the image, and whether it flips."""

    top: jax.Array  # int32 [B], negative: rows of zeros come first
    left: jax.Array  # int32 [B]
    flip: jax.Array  # bool [B]


def sample_shift(key: jax.Array, batch: int) -> CropDraws:
    """top, left uniform over {-1, 0, 1}; no flip."""
    shift = pillow.integers(pillow.uniform(key, 2, batch), 3) - 1
    return CropDraws(shift[0], shift[1], jnp.zeros(batch, bool))


def sample_crop_flip(
    key: jax.Array, batch: int, height: int, width: int
) -> CropDraws:
    """Crop of the image padded by an eighth (4 at 32 px); flip with p 1/2."""
    uniform = pillow.uniform(key, 3, batch)
    pad_y, pad_x = height // 8, width // 8
    return CropDraws(
        pillow.integers(uniform[0], 2 * pad_y + 1) - pad_y,
        pillow.integers(uniform[1], 2 * pad_x + 1) - pad_x,
        uniform[2] < 0.5,
    )


def apply_crop(images: jax.Array, draws: CropDraws) -> jax.Array:
    """Cuts at (top, left), black outside of the image; then mirrors.

    Args:
      images: [B, H, W, C].
      draws: one entry per image.

    Returns:
      [B, H, W, C], same dtype.

    Source: ``papers/dasc.md`` section 2.
    """
    height, width = images.shape[1:3]
    y = jnp.arange(height, dtype=jnp.int32)[None, :, None]
    x = jnp.arange(width, dtype=jnp.int32)[None, None, :]
    x = jnp.where(draws.flip[:, None, None], width - 1 - x, x)
    return pillow.take(
        images,
        y + draws.top[:, None, None],
        x + draws.left[:, None, None],
        fill=0,
    )


# --- AutoAugment ------------------------------------------------------------


# --- digits -----------------------------------------------------------------


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
    return digits.apply_digits(
        images, digits.sample_digits(key, *images.shape[:3])
    )


def crop_flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Random crop of the zero-padded image, mirrored with p 1/2 (weak)."""
    return apply_crop(images, sample_crop_flip(key, *images.shape[:3]))


# --- of crops that the host has made -----------------------------------------


def flip(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrored with p 1/2 (weak, images that are streamed)."""
    chosen = pillow.uniform(key, 1, images.shape[0])[0] < 0.5
    return jnp.where(chosen[:, None, None, None], images[:, :, ::-1], images)


def rotate(images: jax.Array, angle: jax.Array) -> jax.Array:
    """Turns about the middle, nearest pixel, black outside.

    Args:
      images: [B, H, W, C].
      angle: float32 [B], degrees against the clock.

    Returns:
      [B, H, W, C], same dtype.

    Source: ``papers/h2e.md`` section 9.
    """
    height, width = images.shape[1:3]
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None] + 0.5 - height / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :] + 0.5 - width / 2
    radians = jnp.deg2rad(angle)[:, None, None]
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    return pillow.take(
        images,
        jnp.floor(sin * x + cos * y + height / 2).astype(jnp.int32),
        jnp.floor(cos * x - sin * y + width / 2).astype(jnp.int32),
        fill=0,
    )


def flip_rotate(key: jax.Array, images: jax.Array) -> jax.Array:
    """Mirrored with p 1/2, then turned by up to 15 degrees (H2E)."""
    flip_key, angle_key = jax.random.split(key)
    uniform = pillow.uniform(angle_key, 1, images.shape[0])[0]
    return rotate(flip(flip_key, images), (2 * uniform - 1) * digits.ROTATION)


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


# function(key, images uint8 [B, H, W, C]) -> uint8 or float32, 0..255
Augmentation = Callable[[jax.Array, jax.Array], jax.Array]


# Mirroring moves pixels, the jitter changes each by itself and by the mean of
# all: between crop and mirror image or after both, it gives the same.
_crop_jitter_flip = _then(crop_flip, pillow.jitter)
_jitter_flip = _then(flip, pillow.jitter)

AUGMENTATIONS: dict[str, Augmentation] = {
    "none": none,
    "shift": shift,
    "digits_strong": digits_strong,
    "crop_flip": crop_flip,
    "autoaugment": _then(crop_flip, autoaugment.policy),
    "randaugment": _then(crop_flip, randaugment.standard),
    "randaugment_pypi": _then(crop_flip, randaugment.pypi),
    "crop_jitter_flip": _crop_jitter_flip,
    "crop_jitter_flip_autoaugment": _then(
        _crop_jitter_flip, autoaugment.policy
    ),
    # Without a crop: the host has cut images that are streamed.
    "flip": flip,
    "flip_rotate": flip_rotate,
    "flip_autoaugment": _then(flip, autoaugment.policy),
    "flip_randaugment": _then(flip, randaugment.standard),
    "flip_randaugment_pypi": _then(flip, randaugment.pypi),
    "flip_rotate_randaugment_pypi": _then(flip_rotate, randaugment.pypi),
    "jitter_flip": _jitter_flip,
    "jitter_flip_autoaugment": _then(_jitter_flip, autoaugment.policy),
}


def crops(name: str) -> bool:
    """Whether an augmentation of the table begins with a padded crop."""
    function = AUGMENTATIONS[name]
    while isinstance(function, functools.partial):
        function = function.args[0]
    return function is crop_flip


class Moments(Protocol):
    """Mean and standard deviation of images, as ``records.Dataset`` has them.

    Attributes:
      mean: of each channel, in units of images scaled to [0, 1].
      std: of each channel, in the same units.
    """

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...


def prepare(
    images: jax.Array,
    key: jax.Array,
    view: str,
    moments: Moments,
    dtype: DTypeLike,
    names: Mapping[str, str],
) -> jax.Array:
    """One augmented, standardised view of a batch of uint8 images.

    Args:
      images: uint8 [B, H, W, C].
      key: JAX key.
      view: 'weak', 'strong' or 'none'.
      moments: of the training images.
      dtype: of the result.
      names: view -> name in ``AUGMENTATIONS``.

    Returns:
      [B, H, W, C].
    """
    if view != "none":
        images = AUGMENTATIONS[names[view]](key, images)
    return normalise(images, moments.mean, moments.std, dtype)
