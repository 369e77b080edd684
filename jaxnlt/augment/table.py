"""Augmentations by name, and the views that a network sees.

An augmentation first draws for each image what happens to it and then applies
the draws.  The two halves are separate functions, so that tests can compare
the second one with Pillow.  This file has the crops, flips and rotations; the
other files of the folder have policies, the colour jitter and the digits.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Int, Key, Num, UInt8

from jaxnlt.augment import (
    autoaugment,
    digits,
    features,
    pillow,
    randaugment,
)
from jaxnlt.augment.indexing import slide, take
from jaxnlt.runtime import tables
from jaxnlt.runtime.errors import UserError

#: Levels 0..255 before and after an augmentation.
Images = UInt8[Array, "B H W C"] | Float[Array, "B H W C"]
Augmentation = Callable[[Key[Array, ""], Images], Images]

# Greatest angle of ``flip_rotate``, in degrees.
ROTATION = 15.0


# --- crops and shifts -------------------------------------------------------


class CropDraws(NamedTuple):
    """The first row and column of each crop, and whether it is mirrored.

    Attributes:
      top: in pixels of the image; negative where zeros come first.
      left: likewise.
      flip: whether the crop is mirrored.
    """

    top: Int[Array, "B"]
    left: Int[Array, "B"]
    flip: Bool[Array, "B"]


def sample_shift(key: Key[Array, ""], batch: int) -> CropDraws:
    """Draws shifts of -1, 0 or 1 pixels along both axes, without a flip."""
    shift = pillow.integers(pillow.uniform(key, 2, batch), 3) - 1
    return CropDraws(shift[0], shift[1], jnp.zeros(batch, bool))


def sample_crop_flip(
    key: Key[Array, ""], batch: int, height: int, width: int
) -> CropDraws:
    """Draws crops of an image padded by an eighth (4 at 32 pixels), and flips.

    Args:
      key: JAX key.
      batch: how many images.
      height: of the images, pixels.
      width: of the images, pixels.

    Returns:
      Draws; half of the crops are mirrored.

    Source: ``papers/dasc.md`` section 2.
    """
    uniform = pillow.uniform(key, 3, batch)
    pad_y, pad_x = height // 8, width // 8
    return CropDraws(
        pillow.integers(uniform[0], 2 * pad_y + 1) - pad_y,
        pillow.integers(uniform[1], 2 * pad_x + 1) - pad_x,
        uniform[2] < 0.5,
    )


def apply_crop(
    images: Num[Array, "B H W C"],
    draws: CropDraws,
    most: tuple[int, int] | None = None,
) -> Num[Array, "B H W C"]:
    """Cuts at (top, left), black outside of the image; then mirrors.

    Args:
      images: [B, H, W, C].
      draws: one entry an image.
      most: how far top and left are from 0, at most; (H, W) if not given.

    Returns:
      [B, H, W, C], dtype of ``images``.

    Source: ``papers/dasc.md`` section 2.
    """
    most_y, most_x = most or images.shape[1:3]
    reach = range(-most_y, most_y + 1), range(-most_x, most_x + 1)
    top, left = jnp.asarray(draws.top), jnp.asarray(draws.left)
    # To mirror first costs less; what was left of a cut is then on its right.
    mirrored = mirror(images, draws.flip)
    left = jnp.where(draws.flip, -left, left)
    (cut,) = slide(mirrored, top[:, None], left, reach, fill=0)
    return cut


def mirror(
    images: Num[Array, "B H W C"], chosen: Bool[Array, "B"]
) -> Num[Array, "B H W C"]:
    """Exchanges left and right where chosen."""
    turned = jnp.asarray(images)[:, :, ::-1]
    return jnp.where(chosen[:, None, None, None], turned, images)


def shift(key: Key[Array, ""], images: Images) -> Images:
    """Shift by up to one pixel along both axes, zero fill (weak, digits)."""
    return apply_crop(images, sample_shift(key, images.shape[0]), (1, 1))


def crop_flip(key: Key[Array, ""], images: Images) -> Images:
    """Random crop of the zero-padded image, mirrored with p 1/2 (weak)."""
    batch, height, width = images.shape[:3]
    draws = sample_crop_flip(key, batch, height, width)
    return apply_crop(images, draws, (height // 8, width // 8))


# --- flips and rotations of streamed crops ----------------------------------


def flip(key: Key[Array, ""], images: Images) -> Images:
    """Mirrored with p 1/2 (weak, images that the host has cropped)."""
    chosen = pillow.uniform(key, 1, images.shape[0])[0] < 0.5
    return mirror(images, chosen)


def rotate(
    images: Num[Array, "B H W C"], angle: Float[Array, "B"]
) -> Num[Array, "B H W C"]:
    """Rotates about the middle, nearest pixel, black outside.

    Args:
      images: [B, H, W, C].
      angle: float32 [B], degrees counter-clockwise.

    Returns:
      [B, H, W, C], dtype of ``images``.

    Source: ``papers/h2e.md`` section 9.
    """
    height, width = images.shape[1:3]
    y = jnp.arange(height, dtype=jnp.float32)[None, :, None] + 0.5 - height / 2
    x = jnp.arange(width, dtype=jnp.float32)[None, None, :] + 0.5 - width / 2
    radians = jnp.deg2rad(angle)[:, None, None]
    cos, sin = jnp.cos(radians), jnp.sin(radians)
    return take(
        images,
        jnp.floor(sin * x + cos * y + height / 2).astype(jnp.int32),
        jnp.floor(cos * x - sin * y + width / 2).astype(jnp.int32),
        fill=0,
    )


def flip_rotate(key: Key[Array, ""], images: Images) -> Images:
    """Mirrored with p 1/2, then rotated by up to 15 degrees (weak, H2E)."""
    flip_key, angle_key = jax.random.split(key)
    uniform = pillow.uniform(angle_key, 1, images.shape[0])[0]
    return rotate(flip(flip_key, images), (2 * uniform - 1) * ROTATION)


# --- the table --------------------------------------------------------------

#: Name -> augmentations that follow one another.  The jitter changes each
#: pixel by itself and by the mean of all, so that its place before or after
#: the mirror image makes no difference.
AUGMENTATIONS: dict[str, tuple[Augmentation, ...]] = {
    "none": (),
    "shift": (shift,),
    "digits_strong": (digits.strong,),
    "crop_flip": (crop_flip,),
    "autoaugment": (crop_flip, autoaugment.policy),
    "randaugment": (crop_flip, randaugment.standard),
    "randaugment_pypi": (crop_flip, randaugment.pypi),
    "crop_jitter_flip": (crop_flip, pillow.jitter),
    "crop_jitter_flip_autoaugment": (
        crop_flip,
        pillow.jitter,
        autoaugment.policy,
    ),
    # Without a crop, for images that the host has cropped.
    "flip": (flip,),
    "flip_rotate": (flip_rotate,),
    "flip_autoaugment": (flip, autoaugment.policy),
    "flip_autoaugment_imagenet": (flip, autoaugment.imagenet_policy),
    "flip_randaugment": (flip, randaugment.standard),
    "flip_randaugment_pypi": (flip, randaugment.pypi),
    "flip_rotate_randaugment_pypi": (flip_rotate, randaugment.pypi),
    "jitter_flip": (flip, pillow.jitter),
    "jitter_flip_autoaugment": (flip, pillow.jitter, autoaugment.policy),
    # Of rows of features, which are standardised first.
    "feature_jitter": (features.jitter,),
    "feature_jitter_dropout": (features.jitter, features.dropout),
}
#: Names in this file that take rows of features, and those that take images.
FOR_ROWS = frozenset({"none", "feature_jitter", "feature_jitter_dropout"})
FOR_IMAGES = frozenset(AUGMENTATIONS) - FOR_ROWS | {"none"}


def register(name: str, *parts: Augmentation) -> None:
    """Adds an augmentation; called where the module of a method is imported.

    Args:
      name: for ``config.augment.weak`` or ``config.augment.strong``.
      *parts: functions (key, images) -> images that follow one another, of
        uint8 [B, H, W, C] levels or of standardised rows [B, D], whose shape
        stays.

    Raises:
      UserError: another augmentation has the name, or it is no name.
    """
    tables.add(AUGMENTATIONS, "augmentation", name, parts)


def augment(
    key: Key[Array, ""], images: Images, parts: Sequence[Augmentation]
) -> Images:
    """Applies augmentations one after another, each with a key of its own.

    Args:
      key: JAX key.
      images: uint8 [B, H, W, C].
      parts: an entry of ``AUGMENTATIONS``.

    Returns:
      [B, H, W, C], uint8 or a float, levels 0..255.
    """
    if not parts:
        return images
    *earlier, last = parts
    if earlier:
        earlier_key, key = jax.random.split(key)
        images = augment(earlier_key, images, earlier)
    return last(key, images)


def check(field: str, name: str, shape: Sequence[int]) -> None:
    """Refuses an augmentation of images for rows of features, and vice versa.

    Args:
      field: that holds the name, for the message.
      name: in ``AUGMENTATIONS``; one that a user has registered may be of
        either kind.
      shape: of one image, (H, W, C), or of one row, (D,).

    Raises:
      UserError: it is of the other kind.
    """
    rows = len(shape) == 1
    right, wrong = (FOR_ROWS, FOR_IMAGES)[:: 1 if rows else -1]
    if name in wrong - right:
        raise UserError(
            f"{field}: {name} does not take "
            f"{'rows of features' if rows else 'images'}; choose one of "
            f"{', '.join(sorted(right))}"
        )


def crops(name: str) -> bool:
    """Whether an augmentation of the table begins with a padded crop."""
    return AUGMENTATIONS[name][:1] == (crop_flip,)


# --- views ------------------------------------------------------------------


class ImageStatistics(Protocol):
    """Mean and standard deviation of a data set's images.

    Attributes:
      mean: of each channel, of images scaled to [0, 1]; of each feature.
      std: as ``mean``.
    """

    @property
    def mean(self) -> tuple[float, ...]: ...

    @property
    def std(self) -> tuple[float, ...]: ...


class StatisticsArrays(NamedTuple):
    """``ImageStatistics`` as arguments of compiled programs.

    Sets of equal shapes then share a program, whatever their statistics.

    Attributes:
      mean: [C] or [D].
      std: as ``mean``.
    """

    mean: Any
    std: Any


def as_arrays(
    statistics: ImageStatistics, dtype: DTypeLike
) -> StatisticsArrays:
    """Host arrays of statistics.

    Args:
      statistics: of the training images.
      dtype: of the images' standardisation; at least float32 is used.
    """
    working = jnp.promote_types(dtype, jnp.float32)
    return StatisticsArrays(
        np.asarray(statistics.mean, working),
        np.asarray(statistics.std, working),
    )


def normalise(
    images: Num[Array, "*B H W C"] | Num[Array, "B D"],
    mean: Sequence[float] | Array,
    std: Sequence[float] | Array,
    dtype: DTypeLike = jnp.float32,
) -> Float[Array, "*B H W C"] | Float[Array, "B D"]:
    r"""Standardises levels, :math:`(x / 255 - \mu) / \sigma`.

    Rows of features have no levels: :math:`(x - \mu) / \sigma`.

    Args:
      images: [..., H, W, C], levels 0..255, any dtype; or rows [B, D].
      mean: C numbers, of images scaled to [0, 1]; or D of features.
      std: as ``mean``.
      dtype: of the result; at least float32 is used in between.

    Returns:
      The same shape, of the dtype.

    Source: ``papers/dasc.md`` section 2.
    """
    working = jnp.promote_types(dtype, jnp.float32)
    scaled = images.astype(working)
    if images.ndim > 2:
        scaled = scaled / jnp.asarray(255, working)
    centred = scaled - jnp.asarray(mean, working)
    return (centred / jnp.asarray(std, working)).astype(dtype)


def prepare(
    images: UInt8[Array, "B H W C"] | Float[Array, "B D"],
    key: Key[Array, ""],
    view: str,
    statistics: ImageStatistics | StatisticsArrays,
    dtype: DTypeLike,
    names: Mapping[str, str],
) -> Float[Array, "B H W C"] | Float[Array, "B D"]:
    """One augmented, standardised view of a batch.

    Levels are augmented before they are standardised, features after.

    Args:
      images: uint8 [B, H, W, C], or rows of features [B, D].
      key: JAX key.
      view: 'weak', 'strong' or 'none'.
      statistics: of the training images.
      dtype: of the result.
      names: view -> name in ``AUGMENTATIONS``.

    Returns:
      [B, H, W, C] or [B, D].
    """
    parts = AUGMENTATIONS[names[view]] if view != "none" else ()
    if images.ndim == 2:
        rows = normalise(images, statistics.mean, statistics.std, dtype)
        return augment(key, rows, parts)
    images = augment(key, images, parts)
    return normalise(images, statistics.mean, statistics.std, dtype)
