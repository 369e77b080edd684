"""Decodes images and cuts them as Pillow and torchvision do, on 8-bit pixels.

Every random choice is a function of numbers in [0, 1) that are handed in, so
that neither the order of threads nor their number changes a pixel.
"""

import contextlib
import math
import os
import pathlib
import stat
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
from PIL import (
    ExifTags,
    Image,
    ImageFile,
    TiffImagePlugin,
    UnidentifiedImageError,
)

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
#: Formats that are decoded, whatever the name of the file ends in.
FORMATS = (
    "AVIF",
    "BMP",
    "DIB",
    "GIF",
    "JPEG",
    "JPEG2000",
    "MPO",
    "PNG",
    "PPM",
    "TIFF",
    "WEBP",
)
#: An image that declares more is refused before it takes memory: at 5 bytes a
#: pixel 430 MiB a thread.  From here on Pillow warns of decompression bombs.
MOST_PIXELS = 89_478_485
# Where Pillow keeps EXIF and XMP, which may hold an orientation too.
_EXIF = frozenset(("exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"))
# What EXIF's orientations ask for.
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
#: Orientations that exchange width and height.
SIDEWAYS = (5, 6, 7, 8)
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
      crop: of training images: ``random_crop``, ``random_resized_crop``,
        ``none``, which leaves augmentation to the device, or ``squeeze``, which
        does so too and shows all of an image, whatever its shape.
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

    @property
    def crops(self) -> bool:
        """Whether training images are cropped at random."""
        return self.crop not in ("none", "squeeze")

    @property
    def verb(self) -> str:
        """What is done to the images, in a note."""
        return "resized" if self.crop == "squeeze" else "cut"


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
    # Of small images, often cut out of larger ones, nothing is cut off.
    "images_small": Transform(resize=0, size=32, crop="squeeze"),
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
    return transform is not None and transform.crops


def open_rgb(path: pathlib.Path) -> Image.Image:
    """Decodes an image file.

    Args:
      path: the file.

    Returns:
      8-bit, red, green, blue, as a viewer shows it; see ``shown``.

    Raises:
      BadImage: it is missing, no file, empty, damaged, cut short or larger
        than ``MOST_PIXELS``; or its pixels have no 8-bit equivalent.
    """
    with opened(path) as image:
        return shown(image, "RGB")


def read_through(path: pathlib.Path) -> None:
    """Reads a whole image, of a JPEG an eighth of the size: that is cheaper.

    Args:
      path: the file.

    Raises:
      BadImage: see ``open_rgb``.
    """
    with opened(path) as image:
        image.draft("RGB", (1, 1))
        image.load()
        _eight_bit(image)


@contextlib.contextmanager
def opened(path: pathlib.Path) -> Iterator[Image.Image]:
    """An image file whose header is read, and its pixels when they are used.

    Args:
      path: the file; what is no plain file is not opened, for reading a FIFO
        or a device may never end.

    Yields:
      The image, of at most ``MOST_PIXELS``.

    Raises:
      BadImage: see ``open_rgb``; also for an error of Pillow in the body.
    """
    try:
        kind = os.stat(path)
        if not stat.S_ISREG(kind.st_mode):
            raise BadImage(str(path), f"{_kind(kind.st_mode)}, not an image")
        if not kind.st_size:
            raise BadImage(str(path), "empty file, not an image")
        with Image.open(path) as image:
            check_declared(image)
            yield image
    except BadImage:
        raise
    except FileNotFoundError:
        dead = os.path.islink(path)
        reason = "link that leads nowhere" if dead else "no such file"
        raise BadImage(str(path), reason) from None
    except UnidentifiedImageError:
        reason = "unreadable image (of no format that is known)"
        raise BadImage(str(path), reason) from None
    # Pillow's decoders raise SyntaxError, struct.error and others too.
    except Exception as error:
        reason = getattr(error, "strerror", None) or f"{error}"
        raise BadImage(str(path), f"unreadable image ({reason})") from None


def check_declared(image: Image.Image) -> None:
    """Refuses an image by its header, before it takes memory.

    Args:
      image: as Pillow opened it.

    Raises:
      ValueError: it has more than ``MOST_PIXELS`` or is of a format that is
        not in ``FORMATS``.
    """
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(
            f"{image.width}x{image.height} pixels are more than "
            f"{MOST_PIXELS:,}; save it smaller"
        )
    if image.format not in FORMATS:
        raise ValueError(f"{image.format} is not one of {', '.join(FORMATS)}")


def _kind(mode: int) -> str:
    """What lies in a file's place."""
    kinds = (
        (stat.S_ISDIR, "folder"),
        (stat.S_ISFIFO, "FIFO"),
        (stat.S_ISSOCK, "socket"),
    )
    return next((name for test, name in kinds if test(mode)), "device")


def shown(image: Image.Image, mode: str) -> Image.Image:
    """The pixels of an image, 8-bit and upright.

    Of 16 bits the upper 8 are taken, ``v >> 8``.  The orientation in EXIF is
    applied.

    Args:
      image: as Pillow opened it.
      mode: ``RGB`` or ``L``.

    Returns:
      The image in this mode.

    Raises:
      ValueError: 32-bit or float pixels: nothing says which value is white.
    """
    _take_upper_bits(image)
    image.load()
    turn = _TURNS.get(orientation(image))
    found = _eight_bit(image)
    if found.mode != mode:
        found = found.convert(mode)
    return found if turn is None else found.transpose(turn)


def _take_upper_bits(image: Image.Image) -> None:
    """Lets Pillow read a 16-bit colour PPM as it reads such a PNG or TIFF."""
    if image.format == "PPM" and image.mode == "RGB":
        assert isinstance(image, ImageFile.ImageFile)
        image.tile = [
            tile._replace(codec_name="raw", args="RGB;16B")
            if (tile.codec_name, tile.args) == ("ppm", ("RGB", 65535))
            else tile
            for tile in image.tile
        ]


def orientation(image: Image.Image) -> int:
    """The orientation in EXIF, 1 to 8.

    Args:
      image: as Pillow opened it; Pillow itself turns a TIFF on loading it.

    Returns:
      1, upright, where there is none or none that can be read.
    """
    if not _EXIF & image.info.keys() and image.format != "TIFF":
        return 1  # as Pillow would find, but at once
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    # Of damaged EXIF; the pixels may be whole.
    except Exception:
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """The same image; of 16 bits a pixel the upper 8."""
    # Pillow opens 16-bit PGM as 32-bit, and PNG has no more than 16.
    wide = image.mode == "I" and image.format in ("PNG", "PPM")
    if image.mode.startswith("I;16") or wide:
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
        upper = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
        if tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0:
            upper = 255 - upper  # white is 0
        return Image.fromarray(upper)
    if image.mode in ("I", "F"):
        kind = "float" if image.mode == "F" else "32-bit or signed"
        raise ValueError(
            f"{kind} pixels, of which nothing says what is white; save it with "
            "8 or 16 bits"
        )
    return image


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


def _squeezed(image: Image.Image, size: int) -> Image.Image:
    """The whole image as a square, bilinear with antialiasing."""
    return Image.fromarray(fit(image, (size, size)))


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
    picture: Image.Image | np.ndarray,
    transform: Transform,
    uniforms: Sequence[np.ndarray | None],
) -> list[np.ndarray]:
    """Cuts one decoded image once for every view.

    Args:
      picture: of mode ``RGB``, or its pixels, uint8 [H, W, 3].
      transform: how the paper cuts.
      uniforms: of every view, float [UNIFORMS] in [0, 1) for a training
        crop, None for the evaluation's centre crop.

    Returns:
      For every view uint8 [size, size, 3].

    Source: ``papers/smr.md`` section 3.
    """
    image = (
        Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    )
    resized: dict[int, Image.Image] = {}
    out = []
    for numbers in uniforms:
        side = transform.eval_resize if numbers is None else transform.resize
        if side not in resized:
            resized[side] = resize(image, side)
        if transform.crop == "squeeze":
            cut = _squeezed(resized[side], transform.size)
        elif numbers is None or not transform.crops:
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
