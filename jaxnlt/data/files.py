"""Images on disk, in the place of an array of images."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from jaxnlt.data import decode
from jaxnlt.data.records import UNKNOWN, Split, labels_array

_GREY = 128


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files, not yet cut; they have no common shape.

    Attributes:
      root: the folder.
      paths: str [N], relative to ``root`` with ``/``.
      squares: int32 [N], the side of the square to which an image is resized
        before anything else, 0 where it keeps its size; None for all 0.
    """

    root: pathlib.Path
    paths: np.ndarray
    squares: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, rows: np.ndarray) -> "ImageFiles":
        """The images of the given rows, in their order; opens none."""
        squares = None if self.squares is None else self.squares[rows]
        return ImageFiles(self.root, self.paths[rows], squares)

    def open(self, row: int) -> np.ndarray:
        """The pixels of one image, uint8 [H, W, 3]; see ``picture``."""
        return np.asarray(self.picture(row))

    def picture(self, row: int) -> Image.Image:
        """Decodes one image.

        Args:
          row: in 0..N-1.

        Returns:
          8-bit, red, green, blue.

        Raises:
          decode.BadImage: it is missing, empty, damaged or cut short.

        Source: ``papers/h2e.md`` section 14.3, step 1, for ``squares``.
        """
        rgb = decode.open_rgb(self.root / str(self.paths[row]))
        side = 0 if self.squares is None else int(self.squares[row])
        if side and rgb.size != (side, side):
            # Bilinear between four pixels, as in OpenCV, which the authors
            # used; Pillow's resize would average over all pixels it drops.
            rgb = rgb.transform(
                (side, side),
                Image.Transform.EXTENT,
                (0, 0, *rgb.size),
                Image.Resampling.BILINEAR,
            )
        return rgb


@dataclasses.dataclass(frozen=True, eq=False)
class CutImages:
    """Image files with the way they are cut.

    Attributes:
      files: N images on disk.
      transform: how a batch cuts them.
    """

    files: ImageFiles
    transform: decode.Transform

    def __len__(self) -> int:
        return len(self.files)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, size, size, 3), as an array of the cut images would have."""
        size = self.transform.size
        return (len(self.files), size, size, 3)

    def __getitem__(self, rows: Any) -> Any:
        """The evaluation's view of one row, or the images of several rows.

        A view is for display: an image that cannot be read is grey.
        """
        if np.ndim(rows):
            return CutImages(self.files[rows], self.transform)
        try:
            picture = self.files.picture(int(rows))
        except decode.BadImage:
            return np.full(self.shape[1:], _GREY, np.uint8)
        return decode.views(picture, self.transform, [None])[0]


def file_split(
    root: pathlib.Path,
    paths: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    true_labels: Sequence[int] | np.ndarray | None = None,
    squares: Sequence[int] | None = None,
) -> Split:
    """A split of image files; its ids are their paths.

    Args:
      root: the folder.
      paths: N, relative to it.
      labels: N given labels.
      true_labels: N true labels, ``WRONG`` and ``UNKNOWN`` among them; None,
        or all ``UNKNOWN``, where none is known.
      squares: N, see ``ImageFiles``.

    Returns:
      The split, in the given order.
    """
    ids = np.array(paths, dtype=np.str_)
    sides = None if squares is None else np.array(squares, np.int32)
    true = None if true_labels is None else labels_array(true_labels)
    if true is not None and (true == UNKNOWN).all():
        true = None
    return Split(ImageFiles(root, ids, sides), labels_array(labels), true, ids)
