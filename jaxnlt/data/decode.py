"""Resizes and crops 8-bit images as Pillow and torchvision do.

What is random here is a function of numbers in [0, 1) that are handed in, so
that neither the order of threads nor their number changes a pixel.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxnlt.data.files import BadImage, ImageFiles, Transform

# A random-resized crop tries so many times before it settles for the middle.
TRIES = 10
#: Numbers in [0, 1) of a training crop: the place, then area and ratio of
#: every try.
UNIFORMS = 2 + 2 * TRIES
_GREY = 128


def resize(image: Image.Image, side: int) -> Image.Image:
    """Brings the shorter side to ``side``, bilinear with antialiasing.

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
    """The middle square, from ``round((S - size) / 2)``; black outside.

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
    """A square at a place uniform over all that lie inside.

    Args:
      image: 8-bit; across a side shorter than ``size`` it lies in the middle
        of black.
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
    r"""A rectangle of random area and shape, brought to a square.

    .. math:: w = \sqrt{A r},\ h = \sqrt{A / r},\quad
       A \sim U(s_0, s_1) W H,\ \log r \sim U(\log r_0, \log r_1)

    The first of ten tries that fits is taken, else the largest rectangle in
    the middle whose shape lies within the bounds.

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
    if length < size:
        return -((size - length) // 2)
    return round((length - size) / 2)


def views(
    pixels: np.ndarray,
    transform: Transform,
    uniforms: Sequence[np.ndarray | None],
) -> list[np.ndarray]:
    """Cuts one decoded image, once for every view.

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


def scaled(transform: Transform, size: int) -> Transform:
    """The same cut at another size.

    Args:
      transform: of a paper.
      size: side of what the network sees; 0 keeps the paper's.

    Returns:
      A transform whose shorter sides have shrunk or grown along.
    """
    if not size:
        return transform
    factor = size / transform.size
    return transform._replace(
        size=size,
        resize=round(transform.resize * factor),
        eval_resize=round(transform.eval_resize * factor),
    )


@dataclasses.dataclass(frozen=True, eq=False)
class CutImages:
    """Files with the way they are cut, in the place of an array of images.

    Attributes:
      files: N images on disk.
      transform: how a batch cuts them.
    """

    files: ImageFiles
    transform: Transform

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, size, size, 3), as an array of the cut images would have."""
        return (len(self.files), *(self.transform.size,) * 2, 3)

    def __getitem__(self, rows: Any) -> Any:
        """The evaluation's view of one row, or the images of several rows.

        For the eye: an image that cannot be read is grey.
        """
        if np.ndim(rows):
            return CutImages(self.files[rows], self.transform)
        try:
            pixels = self.files.open(int(rows))
        except BadImage:
            return np.full(self.shape[1:], _GREY, np.uint8)
        return views(pixels, self.transform, [None])[0]
