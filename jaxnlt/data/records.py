"""The records that every reader of a data set fills in."""

import dataclasses
import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxnlt.runtime.errors import UserError

#: The name of a further test set that chooses the checkpoint called best.
VALIDATION = "val"


@dataclasses.dataclass(frozen=True)
class Split:
    """Images with their labels.

    Attributes:
      images: ``uint8 [N, H, W, C]``; of images that stay on disk
        ``files.ImageFiles`` as read, ``decode.CutImages`` once loaded.
      labels: ``int32 [N]``, the given labels, wrong ones included.
      true_labels: ``int32 [N]`` where known, else None.  Only diagnostics and
        noise drawing read them; training never does.
      ids: ``[N]``, the official index (int64) or the relative path (str).
    """

    images: Any
    labels: np.ndarray
    true_labels: np.ndarray | None
    ids: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: np.ndarray) -> "Split":
        """The split of the given rows, in their order."""
        true = self.true_labels
        return Split(
            self.images[rows],
            self.labels[rows],
            None if true is None else true[rows],
            self.ids[rows],
        )


@dataclasses.dataclass(frozen=True)
class ReadRequest:
    """What every reader is asked for; each takes what its layout has.

    Attributes:
      benchmark: the entry of registry.py.
      path: ``config.data.path``.
      labels_file: ``config.data.labels_file``.
      image_size: ``config.data.image_size``.
      name: ``config.data.name``.
      noise: ``config.data.noise``.
    """

    benchmark: Any
    path: str
    labels_file: str
    image_size: int
    name: str
    noise: str


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set as it lies on disk, before long tail and noise.

    Attributes:
      train: the whole training set with the labels of the files.
      test: the test set, or None where the files hold none.
      class_names: one name per class, ``C`` in all.
      path: where it was read from.
    """

    train: Split
    test: Split | None
    class_names: tuple[str, ...]
    path: str


@dataclasses.dataclass(frozen=True)
class Dataset:
    """What a run trains on and what it is measured with.

    Attributes:
      train: training set after long tail and noise.
      test: test set, or what stands in for it.
      class_names: one name per class, ``C`` in all.
      mean: per channel, in units of images scaled to [0, 1].
      std: per channel, same units.
      test_kind: 'test', 'dev' (clean unused training images) or 'held_out'
        (a part of the training set with its given labels).
      facts: JSON-able record of counts, realised noise and origin.
      more_tests: further test sets by name, over the same classes.
      top5: whether top-5 accuracies are told, as the data set's papers do.
    """

    train: Split
    test: Split
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    test_kind: str
    facts: dict[str, Any]
    more_tests: Mapping[str, Split] = dataclasses.field(default_factory=dict)
    top5: bool = False

    @property
    def num_classes(self) -> int:
        """The number of classes ``C``."""
        return len(self.class_names)

    @property
    def tests(self) -> dict[str, Split]:
        """Every test set by name, 'test' the first."""
        return {"test": self.test, **self.more_tests}

    @property
    def choosing(self) -> str:
        """The set by which a checkpoint is the best: validation if any."""
        return VALIDATION if VALIDATION in self.more_tests else "test"

    @property
    def given_counts(self) -> np.ndarray:
        """Training images per given label, ``int64 [C]``."""
        return np.bincount(self.train.labels, minlength=self.num_classes)

    @property
    def true_counts(self) -> np.ndarray | None:
        """Training images per true label, ``int64 [C]``; None if unknown."""
        true = self.train.true_labels
        # Negative: known to be wrong, or not known at all.
        if true is None or (true < 0).any():
            return None
        return np.bincount(true, minlength=self.num_classes)


def labels_array(values: Any) -> np.ndarray:
    """A copy of labels as ``int32 [N]``."""
    return np.array(values, dtype=np.int32)


def read_npz(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads all arrays of an npz file, never a pickled one.

    Args:
      path: the file.

    Returns:
      Arrays by name.

    Raises:
      UserError: missing, truncated, damaged, or it holds pickled objects.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (
        EOFError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:  # TypeError: a lone .npy, which is no archive.
        raise UserError(
            f"{path}: truncated, damaged or not an npz file ({error})"
        ) from None
