"""Decodes images and cuts them as Pillow and torchvision do, on 8-bit pixels.

Every random choice is a function of numbers in [0, 1) that are handed in, so
that neither the order of threads nor their number changes a pixel.
"""

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
from PIL import Image

from jaxnlt.runtime.errors import UserError

#: Endings of the names of files that are taken for images.
SUFFIXES = frozenset(
    (
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
    )
)
#: Tries of a random-resized crop before it takes the middle.
TRIES = 10
#: Numbers in [0, 1) of a training crop: two for the place, then area and ratio
#: of every try.
UNIFORMS = 2 + 2 * TRIES


class BadImage(UserError):
    """An image that is missing or cannot be decoded.

    Attributes:
      path: the file.
      reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str):
        # Both are the exception's arguments, so that it can be pickled.
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Transform(NamedTuple):
    """How a paper cuts the images of a data set.

    Attributes:
      resize: pixels of the shorter side before the training crop; 0 leaves it.
      size: height and width of what the network sees.
      crop: of training images: ``random_crop``, ``random_resized_crop`` or
        ``none``, which leaves augmentation to the device.
      scale: share of the area that ``random_resized_crop`` keeps.
      ratio: width over height of that crop.
      eval_resize: pixels of the shorter side before the centre crop of
        ``size``; 0 leaves it.
      source: where the paper's notes state it.
    """

    resize: int
    size: int
    crop: str
    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    eval_resize: int = 0
    source: str = ""


_H2E = Transform(
    resize=0,
    size=224,
    crop="random_resized_crop",
    scale=(0.5, 1.0),
    eval_resize=256,
    source="``papers/h2e.md`` section 9",
)
#: By benchmark; ``webvision`` is that of DivideMix and SFA, ``webvision_smr``
#: SMR's.  What the device does to a crop is stated by ``config.augment``: it
#: pads and crops where ``crop`` is ``none``, mirrors, turns (H2E), jitters
#: (DaSC).  The 84 pixels are those of TABASCO's loader, which DaSC has but does
#: not use; ``--config.augment.weak=jitter_flip`` and
#: ``--config.augment.strong=jitter_flip_autoaugment`` go with them, since the
#: host has cropped.
TRANSFORMS: dict[str, Transform] = {
    "webvision": Transform(
        resize=320,
        size=299,
        crop="random_resized_crop",
        scale=(0.08, 1.0),
        eval_resize=320,
        source="``papers/sfa.md`` section 3.4",
    ),
    "webvision_smr": Transform(
        resize=320,
        size=299,
        crop="random_crop",
        eval_resize=320,
        source="``papers/smr.md`` section 3",
    ),
    "clothing1m": Transform(
        resize=256,
        size=224,
        crop="random_crop",
        eval_resize=256,
        source="``papers/smr.md`` section 3, ``papers/dividemix_rolt.md`` "
        "section 2.2",
    ),
    "animal10n": Transform(
        resize=64,
        size=64,
        crop="random_crop",
        eval_resize=64,
        source="``papers/smr.md`` section 3",
    ),
    "red_mini_imagenet": Transform(
        resize=32,
        size=32,
        crop="none",
        eval_resize=32,
        source="``papers/dasc.md`` sections 1.3 and 2",
    ),
    "red_mini_imagenet_84": Transform(
        resize=0,
        size=84,
        crop="random_resized_crop",
        scale=(0.08, 1.0),
        eval_resize=96,  # int(1.15 * 84) in the loader
        source="``papers/dasc.md`` section 1.3",
    ),
    "food101n": _H2E,
    "imagenet_nlt": _H2E,
    "animal10_nlt": _H2E,
    "food101_nlt": _H2E,
    "images": _H2E,
}


def scaled(transform: Transform, size: int) -> Transform:
    """The same cut at another size.

    Args:
      transform: of a paper.
      size: side of what the network sees, pixels; 0 keeps the paper's.

    Returns:
      A transform whose other sides are scaled in proportion.
    """
    if not size:
        return transform
    factor = size / transform.size
    return transform._replace(
        size=size,
        resize=round(transform.resize * factor),
        eval_resize=round(transform.eval_resize * factor),
    )


def transform_of(config: ml_collections.ConfigDict) -> Transform | None:
    """How a run cuts its images.

    Args:
      config: ``data.transform`` and ``data.image_size`` of it are read.

    Returns:
      The paper's transform, scaled to ``image_size`` where that is given; None
      where images are held in memory.
    """
    name = config.data.get("transform", "")
    if not name:
        return None
    return scaled(TRANSFORMS[name], config.data.image_size)


def crops(config: ml_collections.ConfigDict) -> bool:
    """Whether the host crops training images at random.

    Args:
      config: see ``transform_of``.

    Returns:
      False where images are held in memory.
    """
    transform = transform_of(config)
    return transform is not None and transform.crop != "none"


def open_rgb(path: pathlib.Path) -> Image.Image:
    """Decodes an image file.

    Args:
      path: the file.

    Returns:
      8-bit, red, green, blue.

    Raises:
      BadImage: it is missing, empty, damaged or cut short.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except FileNotFoundError:
        raise BadImage(str(path), "no such file") from None
    # Pillow's decoders raise SyntaxError, struct.error and others too.
    except Exception as error:
        if path.is_file() and not path.stat().st_size:
            raise BadImage(str(path), "empty file, not an image") from None
        raise BadImage(str(path), f"unreadable image ({error})") from None


def read_rgb(
    path: pathlib.Path, shape: tuple[int, ...] | None = None
) -> np.ndarray:
    """The pixels of an image file.

    Args:
      path: the file.
      shape: see ``fit``.

    Returns:
      uint8 [H, W, 3], red, green, blue.

    Raises:
      BadImage: see ``open_rgb``.
    """
    return fit(open_rgb(path), shape)


def fit(image: Image.Image, shape: tuple[int, ...] | None) -> np.ndarray:
    """The pixels of an image, resized if it has another size.

    Args:
      image: 8-bit, of mode ``RGB`` or ``L``.
      shape: height and width wanted, bilinear with antialiasing; None leaves
        the size.

    Returns:
      uint8 [H, W, 3], of mode ``L`` [H, W].
    """
    if shape is not None and image.size != (shape[1], shape[0]):
        size = (shape[1], shape[0])
        image = image.resize(size, Image.Resampling.BILINEAR)
    return np.asarray(image)


def resize(image: Image.Image, side: int) -> Image.Image:
    """Resizes the shorter side to ``side``, bilinear with antialiasing.

    The longer side becomes ``int(side * long / short)``.

    Args:
      image: 8-bit.
      side: pixels; 0 leaves the image.

    Returns:
      The image; the same one where nothing changes.

    Source: ``papers/smr.md`` section 3.
    """
    short, long = sorted(image.size)
    if not side or short == side:
        return image
    longer = int(side * long / short)
    size = (side, longer) if image.width <= image.height else (longer, side)
    return image.resize(size, Image.Resampling.BILINEAR)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Cuts the middle square, from ``round((S - size) / 2)``; black outside.

    Args:
      image: 8-bit.
      size: side of the square, pixels.

    Returns:
      An image of ``size`` by ``size``.

    Source: ``papers/smr.md`` section 3.
    """
    left, top = (_middle(length, size) for length in image.size)
    return image.crop((left, top, left + size, top + size))


def random_crop(
    image: Image.Image, size: int, uniforms: np.ndarray
) -> Image.Image:
    """Cuts a square at a place that is uniform over all inside the image.

    Args:
      image: 8-bit; where a side is shorter than ``size``, black is added on
        both ends of it.
      size: side of the square, pixels.
      uniforms: float [UNIFORMS] in [0, 1), of which two are used.

    Returns:
      An image of ``size`` by ``size``.

    Source: ``papers/smr.md`` section 3.
    """
    top, left = (
        int(u * (length - size + 1))
        if length >= size
        else _middle(length, size)
        for u, length in zip(
            uniforms[:2], (image.height, image.width), strict=True
        )
    )
    return image.crop((left, top, left + size, top + size))


def random_resized_crop(
    image: Image.Image,
    size: int,
    scale: tuple[float, float],
    ratio: tuple[float, float],
    uniforms: np.ndarray,
) -> Image.Image:
    r"""Cuts a rectangle of random area and shape and resizes it to a square.

    .. math:: w = \sqrt{A r},\ h = \sqrt{A / r},\quad
       A \sim U(s_0, s_1) W H,\ \log r \sim U(\log r_0, \log r_1)

    The first of ten tries that fits is taken, else the largest rectangle in
    the middle whose shape is within the bounds.

    Args:
      image: 8-bit.
      size: side of the square, pixels.
      scale: bounds of the share of the area.
      ratio: bounds of width over height.
      uniforms: float [UNIFORMS] in [0, 1).

    Returns:
      An image of ``size`` by ``size``, bilinear with antialiasing.

    Source: ``papers/sfa.md`` section 3.4, ``papers/h2e.md`` section 9.
    """
    width, height = image.size
    low, high = (math.log(bound) for bound in ratio)
    for u_area, u_ratio in uniforms[2:].reshape(TRIES, 2):
        area = width * height * (scale[0] + u_area * (scale[1] - scale[0]))
        shape = math.exp(low + u_ratio * (high - low))
        w, h = round(math.sqrt(area * shape)), round(math.sqrt(area / shape))
        if 0 < w <= width and 0 < h <= height:
            top = int(uniforms[0] * (height - h + 1))
            left = int(uniforms[1] * (width - w + 1))
            break
    else:
        w, h = width, height
        if width / height < ratio[0]:
            h = round(width / ratio[0])
        elif width / height > ratio[1]:
            w = round(height * ratio[1])
        top, left = (height - h) // 2, (width - w) // 2
    part = image.crop((left, top, left + w, top + h))
    return part.resize((size, size), Image.Resampling.BILINEAR)


def _middle(length: int, size: int) -> int:
    """Where the middle ``size`` pixels start; negative if there are fewer."""
    if length < size:
        return -((size - length) // 2)
    return round((length - size) / 2)


def views(
    pixels: np.ndarray,
    transform: Transform,
    uniforms: Sequence[np.ndarray | None],
) -> list[np.ndarray]:
    """Cuts one decoded image once for every view.

    Args:
      pixels: uint8 [H, W, 3].
      transform: how the paper cuts.
      uniforms: of every view, float [UNIFORMS] in [0, 1) for a training
        crop, None for the evaluation's centre crop.

    Returns:
      For every view uint8 [size, size, 3].

    Source: ``papers/smr.md`` section 3.
    """
    image = Image.fromarray(pixels)
    resized: dict[int, Image.Image] = {}
    out = []
    for numbers in uniforms:
        side = transform.eval_resize if numbers is None else transform.resize
        if side not in resized:
            resized[side] = resize(image, side)
        if numbers is None or transform.crop == "none":
            cut = centre_crop(resized[side], transform.size)
        elif transform.crop == "random_crop":
            cut = random_crop(resized[side], transform.size, numbers)
        else:
            cut = random_resized_crop(
                resized[side],
                transform.size,
                transform.scale,
                transform.ratio,
                numbers,
            )
        out.append(np.asarray(cut))
    return out
