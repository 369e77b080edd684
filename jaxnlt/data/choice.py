"""How the user's own images are held, and which network suits them."""

import math
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from jaxnlt.data import decode, readable
from jaxnlt.data.readers import folder
from jaxnlt.data.records import Choice, ReadRequest
from jaxnlt.runtime.errors import one_of

#: Side in pixels of the largest images that are held in memory as they are.
IN_MEMORY = 96
#: Most bytes of images that are held in memory.
MOST_BYTES = 4 * 2**30
#: Sides to which streamed images are cut: the largest that the shorter side of
#: the median image fills, so that few are enlarged.
SIDES = (32, 48, 64, 96, 128, 224)
#: Up to this side nothing is cut off, and the network starts at full
#: resolution.
SMALL = 64
# Images at whose headers is looked.
_LOOKED_AT = 10_000


class _Scale(NamedTuple):
    """How large a network is and how many images it sees at once."""

    most_images: float
    width: int
    blocks: tuple[int, ...]
    batch_size: int


# The first is that of ``digits``, with which a laptop is done in minutes; the
# last has the published network.
_SCALES = (
    _Scale(1_000, 16, (1, 1, 1, 1), 32),
    _Scale(10_000, 32, (1, 1, 1, 1), 64),
    _Scale(math.inf, 0, (), 64),
)


def choose(request: ReadRequest) -> Choice:
    """Chooses by the number of images and by the sizes in their headers.

    Small images of one size are held in memory, and so are all that the user
    has resized, as long as they fit.  Others are streamed.

    Args:
      request: ``path``, ``labels_file``, ``image_size`` and ``transform``.

    Returns:
      What suits them.

    Raises:
      UserError: see ``folder.list_files``; no such transform.
    """
    files = folder.list_files(request)
    sizes = _sizes(files)
    asked, transform = request.image_size, request.transform
    least, most = sizes.min(0), sizes.max(0)
    of_sizes = _shown(most)
    if (least != most).any():
        of_sizes = f"{_shown(least)} to {of_sizes}"
    if asked:
        most = np.array([asked, asked])
    small = max(most) <= IN_MEMORY and (least == most).all()
    fits = len(files) * most.prod() * 3 <= MOST_BYTES
    if not transform and (asked or small) and fits:
        benchmark, side, cropped = "folder", int(max(most)), False
        how = f"held in memory at {_shown(most)}"
    else:
        benchmark, side = "images", asked or _side(sizes)
        if not transform:
            transform = "images_small" if side <= SMALL else "images"
        one_of("config.data.transform", transform, decode.TRANSFORMS)
        cut = decode.TRANSFORMS[transform]
        if request.transform and not asked:
            side = cut.size
        cropped = cut.crops
        how = f"streamed and {cut.verb} to {side}x{side}"
    scale = next(s for s in _SCALES if len(files) <= s.most_images)
    return Choice(
        benchmark=benchmark,
        images=f"{len(files):,} images of {of_sizes} pixels are {how}",
        transform=transform,
        image_size=side if benchmark == "images" else 0,
        model="preact_resnet18" if side <= SMALL else "resnet18",
        width=scale.width,
        blocks=scale.blocks,
        batch_size=scale.batch_size,
        # What the host has cropped the device only mirrors.
        weak="flip" if cropped else "crop_flip",
        strong="flip_autoaugment" if cropped else "autoaugment",
    )


def _shown(size: np.ndarray) -> str:
    return f"{size[0]}x{size[1]}"


def _side(sizes: np.ndarray) -> int:
    """Of ``SIDES`` the largest that half of the images fill, else the least."""
    median = np.median(sizes.min(1))
    return max([side for side in SIDES if side <= median], default=SIDES[0])


def _sizes(files: Sequence[pathlib.Path]) -> np.ndarray:
    """Width and height of images as they are shown, int [n, 2], n at least 1.

    Readers name the images that cannot be read.
    """
    chosen = np.linspace(0, len(files) - 1, min(len(files), _LOOKED_AT))
    looked_at = [files[int(k)] for k in chosen]
    found = [size for size in readable.in_threads(_size, looked_at) if size]
    return np.array(found or [(SIDES[0], SIDES[0])])


def _size(file: pathlib.Path) -> tuple[int, int] | None:
    try:
        with decode.opened(file) as image:
            width, height = image.size
            turned = decode.orientation(image) in decode.SIDEWAYS
    except decode.BadImage:
        return None
    return (height, width) if turned else (width, height)
