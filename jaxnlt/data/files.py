"""Images that stay on disk: their record, and how the papers cut them."""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnlt.data.records import Source, Split, labels_array
from jaxnlt.runtime.errors import UserError

#: A true label of which nothing is known; ``nlt.WRONG`` (-1) says that the
#: given label is wrong and the true class not known.
UNKNOWN = -2


class BadImage(UserError):
    """An image that is missing or cannot be decoded.

    Attributes:
      path: the file.
      reason: what is wrong with it.
    """

    def __init__(self, path: str, reason: str):
        # Both are the arguments, so that it travels between processes.
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """Images on disk in the place of an array of them.

    Attributes:
      root: the folder.
      paths: str [N], relative to ``root`` with ``/``.
      squares: int32 [N], the side of the square to which an image is brought
        before anything else, 0 where it is taken as it lies; None for all 0.
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
        """Decodes one image.

        Args:
          row: in 0..N-1.

        Returns:
          uint8 [H, W, 3], red, green, blue.

        Raises:
          BadImage: it is missing, empty, damaged or cut short.

        Source: ``papers/h2e.md`` section 14.3, step 1, for ``squares``.
        """
        from PIL import Image

        path = self.root / str(self.paths[row])
        try:
            with Image.open(path) as image:
                rgb = image.convert("RGB")
        except FileNotFoundError:
            raise BadImage(str(path), "no such file") from None
        # Pillow's decoders raise SyntaxError, struct.error and others too.
        except Exception as error:
            raise BadImage(str(path), f"unreadable image ({error})") from None
        side = 0 if self.squares is None else int(self.squares[row])
        if side and rgb.size != (side, side):
            # Bilinear between four pixels as OpenCV's, which the authors used;
            # Pillow's resize would average over all pixels it drops.
            rgb = rgb.transform(
                (side, side),
                Image.Transform.EXTENT,
                (0, 0, *rgb.size),
                Image.Resampling.BILINEAR,
            )
        return np.asarray(rgb)


@dataclasses.dataclass(frozen=True)
class FileSource(Source):
    """A data set of files, with what only some of them have.

    Attributes:
      more_tests: further test sets by name, over the same classes.
      web: the images from which web noise is drawn, under their given
        labels, all ``nlt.WRONG``; None where the noise is in ``train`` already.
    """

    more_tests: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    web: Split | None = None


def is_streamed(split: Split) -> bool:
    """Whether the images of a split lie on disk.

    Args:
      split: any.

    Returns:
      True where ``split.images`` are ``ImageFiles``, which have no shape.
    """
    return isinstance(split.images, ImageFiles)


def verdicts(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """What is known of the given labels.

    Args:
      split: N images; ``nlt.WRONG`` and ``UNKNOWN`` may be true labels.

    Returns:
      bool [N] where it is known whether the given label is right, and
      bool [N] where it is known to be wrong.
    """
    true = split.true_labels
    if true is None:
        nothing = np.zeros(len(split), bool)
        return nothing, nothing
    known = true != UNKNOWN
    return known, known & (true != split.labels)


def file_split(
    root: pathlib.Path,
    paths: Sequence[str],
    labels: Sequence[int] | np.ndarray,
    true_labels: Sequence[int] | np.ndarray | None = None,
    squares: Sequence[int] | None = None,
) -> Split:
    """A split of files; its ids are their paths.

    Args:
      root: the folder.
      paths: N, relative to it.
      labels: N given labels.
      true_labels: N true labels, ``nlt.WRONG`` or ``UNKNOWN`` among them; None,
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


class Transform(NamedTuple):
    """How a paper cuts the images of a set, on 8-bit pixels.

    Attributes:
      resize: pixels of the shorter side before the crop, 0 leaves it.
      size: height and width of what the network sees.
      crop: of training images: ``random_crop``, ``random_resized_crop`` or
        ``none``, which leaves augmentation to the device.
      scale: share of the area that ``random_resized_crop`` keeps.
      ratio: width over height of that crop.
      eval_resize: pixels of the shorter side before the centre crop of
        ``size``, 0 leaves it.
      source: the section that says so.
    """

    resize: int
    size: int
    crop: str
    scale: tuple[float, float] = (1.0, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    eval_resize: int = 0
    source: str = ""


_H2E = Transform(
    0,
    224,
    "random_resized_crop",
    (0.5, 1.0),
    eval_resize=256,
    source="``papers/h2e.md`` section 9",
)
#: By benchmark: ``webvision_smr`` is SMR's, ``webvision`` that of DivideMix
#: and SFA.  The device pads and crops where ``crop`` is ``none``; it mirrors,
#: turns (H2E) and jitters (DaSC) whatever it is given: ``config.augment``.
#: The 84 pixels are those of TABASCO's loader, which DaSC has and does not use;
#: ``--config.augment.weak=jitter_flip`` and ``strong=jitter_flip_autoaugment``
#: go with them, since the host has cropped.
TRANSFORMS: dict[str, Transform] = {
    "webvision": Transform(
        320,
        299,
        "random_resized_crop",
        (0.08, 1.0),
        eval_resize=320,
        source="``papers/sfa.md`` section 3.4",
    ),
    "webvision_smr": Transform(
        320,
        299,
        "random_crop",
        eval_resize=320,
        source="``papers/smr.md`` section 3",
    ),
    "clothing1m": Transform(
        256,
        224,
        "random_crop",
        eval_resize=256,
        source="``papers/smr.md`` section 3, ``papers/dividemix_rolt.md`` "
        "section 2.2",
    ),
    "animal10n": Transform(
        64,
        64,
        "random_crop",
        eval_resize=64,
        source="``papers/smr.md`` section 3",
    ),
    "red_mini_imagenet": Transform(
        32,
        32,
        "none",
        eval_resize=32,
        source="``papers/dasc.md`` section 1.3, section 2",
    ),
    "red_mini_imagenet_84": Transform(
        0,
        84,
        "random_resized_crop",
        (0.08, 1.0),
        eval_resize=96,  # int(1.15 * 84) in the loader
        source="``papers/dasc.md`` section 1.3",
    ),
    "food101n": _H2E,
    "imagenet_nlt": _H2E,
    "animal10_nlt": _H2E,
    "food101_nlt": _H2E,
    "images": _H2E,
}
