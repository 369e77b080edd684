"""Out-of-fold probabilities, in the form in which cleanlab takes them.

Each run that leaves out a fold writes left_out.npz; together they give
pred_probs.npy and labels.npy of the run that has asked for them.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxnlt.data import untrusted
from jaxnlt.data.records import Dataset
from jaxnlt.runtime.errors import UserError, logger
from jaxnlt.runtime.files import atomic

#: What a run that leaves out a fold writes.
LEFT_OUT_FILE = "left_out.npz"
#: What cleanlab takes.
PRED_PROBS_FILE, LABELS_FILE = "pred_probs.npy", "labels.npy"
_NAMES = ("rows", "labels", "pred_probs")


def write_left_out(
    directory: pathlib.Path,
    dataset: Dataset,
    fold: int,
    held_out: np.ndarray,
    train: np.ndarray,
) -> None:
    """Writes the probabilities of a fold, and of images that none leaves out.

    An image that cannot be read has equal probabilities.

    Args:
      directory: the workdir of the run that leaves out the fold.
      dataset: its data.
      fold: its number, from 1.
      held_out: float [n, C] mean probabilities of the vote on the images of
        the fold, NaN for those that cannot be read.
      train: the same on the images that it was trained on.
    """
    fold_of = dataset.fold_of
    assert fold_of is not None
    stays = np.flatnonzero(fold_of[fold_of != fold] == 0)
    probs = np.concatenate([held_out, train[stays]]).astype(np.float32)
    unseen = np.isnan(probs).any(1)
    if unseen.any():
        logger.warning(
            "%s: %d images that cannot be read have equal probabilities",
            directory / LEFT_OUT_FILE,
            unseen.sum(),
        )
    probs[unseen] = 1 / probs.shape[1]
    rows = np.append(
        np.flatnonzero(fold_of == fold), np.flatnonzero(fold_of == 0)
    )
    labels = np.append(dataset.test.labels, dataset.train.labels[stays])
    with atomic(directory / LEFT_OUT_FILE, binary=True) as file:
        np.savez(file, rows=rows, labels=labels, pred_probs=probs)


def join(directory: pathlib.Path, folds: Sequence[pathlib.Path]) -> None:
    """Writes pred_probs.npy and labels.npy from the files of all folds.

    Float32 [N, C] and int64 [N], in the order of the training set.  Where
    several folds know an image, because none leaves it out, the mean of their
    probabilities is taken.

    Args:
      directory: where to.
      folds: the workdirs of the runs that leave out a fold each.

    Raises:
      UserError: a file is missing, damaged or not of these folds.
    """
    parts = [_read(folder) for folder in folds]
    rows, labels, probs = map(np.concatenate, zip(*parts, strict=True))
    counts = np.bincount(rows)
    if not counts.all():
        raise UserError(
            f"{folds[0].parent}: its files {LEFT_OUT_FILE} are of other folds; "
            "remove the folder, and the same command trains them again"
        )
    sums = np.zeros((len(counts), probs.shape[1]), np.float64)
    np.add.at(sums, rows, probs)
    given = np.empty(len(counts), np.int64)
    given[rows] = labels
    for name, values in (
        (LABELS_FILE, given),
        (PRED_PROBS_FILE, (sums / counts[:, None]).astype(np.float32)),
    ):
        with atomic(directory / name, binary=True) as file:
            np.save(file, values)


def _read(folder: pathlib.Path) -> list[np.ndarray]:
    """Rows [n], labels [n] and probabilities [n, C] of one fold."""
    path = folder / LEFT_OUT_FILE
    found: dict[str, np.ndarray] = {}
    if path.exists():
        found, _ = untrusted.read_npz(path, _NAMES)
    parts = [found.get(name, np.zeros(0)) for name in _NAMES]
    rows, labels, probs = parts
    if not (
        rows.dtype.kind == labels.dtype.kind == "i"
        and rows.shape == labels.shape == probs.shape[:1]
        and probs.ndim == 2
        and (rows >= 0).all()
    ):
        raise UserError(
            f"{path}: is missing or damaged; remove the folder {folder}, and "
            "the same command trains it again"
        )
    return parts
