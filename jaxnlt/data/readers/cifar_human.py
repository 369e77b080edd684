"""Human labels of CIFAR-10N and CIFAR-100N.

``CIFAR-10_human.pt`` and ``CIFAR-100_human.pt``, or npz files of the same
arrays, beside the images or in ``human_labels/``.

Source: ``papers/dasc.md`` section 1.2.
"""

import dataclasses
import os
import pathlib

import numpy as np

from jaxnlt.data import agreement, untrusted
from jaxnlt.data.readers import lists, pickles
from jaxnlt.data.records import (
    Benchmark,
    NoiseRequest,
    OwnNoise,
    Split,
    labels_array,
)
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError, logger

HOMEPAGE = "https://github.com/UCSC-REAL/cifar-10-100n"
CLEAN = ("clean", "clean_label")
#: Names of each kind in our npz and in the official files.
KEYS = {
    "human:aggre": ("aggre", "aggre_label"),
    "human:worse": ("worse", "worse_label"),
    "human:random1": ("random1", "random_label1"),
    "human:random2": ("random2", "random_label2"),
    "human:random3": ("random3", "random_label3"),
    "human:noisy": ("noisy", "noisy_label"),
}


def noises(*kinds: str) -> dict[str, OwnNoise]:
    """The entries of ``Benchmark.noises``.

    Args:
      *kinds: keys of ``KEYS``.

    Returns:
      A noise for each.
    """
    own = OwnNoise(apply, fields=frozenset({"labels_file"}))
    return dict.fromkeys(kinds, own)


def apply(request: NoiseRequest) -> Split:
    """Puts human labels in place of the official ones.

    Args:
      request: ``request.noise`` of it is a key of ``KEYS``, and
        ``request.labels_file`` the file; '' searches.

    Returns:
      The training images with their human labels.

    Raises:
      UserError: see ``find`` and ``read``.
    """
    asked, source = request.request, request.source
    places = lists.usual_places()
    if asked.path:
        given = lists.existing(asked.path)
        places = [] if given.is_file() else [given]
        places.append(given.absolute().parent)
    file = find(asked.benchmark, asked.labels_file, places)
    logger.info("%s: human labels from %s", asked.benchmark.name, file)
    official = source.train.labels
    labels = read(file, asked.noise, official, len(source.class_names))
    train = request.train
    return dataclasses.replace(train, labels=labels[train.ids])


def find(
    bench: Benchmark, labels_file: str, places: list[pathlib.Path]
) -> pathlib.Path:
    """Finds the file of human labels.

    Args:
      bench: entry of the table.
      labels_file: ``config.data.labels_file``; '' searches.
      places: folders to search.

    Returns:
      Its path.

    Raises:
      UserError: none is found.
    """
    if labels_file:
        path = paths.expanded(labels_file, "config.data.labels_file")
        if not path.exists():
            raise UserError(f"config.data.labels_file: {path}: no such file")
        return path
    for place in places:
        for folder in (place, place / "human_labels"):
            for name in bench.labels_files:
                if (folder / name).is_file():
                    return folder / name
    raise UserError(
        "config.data.labels_file: no human labels found, looked for "
        f"{' and '.join(bench.labels_files)} in "
        f"{', '.join(str(p) for p in places)}; they are described at {HOMEPAGE}"
    )


def read(
    path: str | os.PathLike,
    kind: str,
    official: np.ndarray,
    num_classes: int,
) -> np.ndarray:
    """Reads one kind of human labels, for the whole official training set.

    Args:
      path: an official ``.pt`` file, or an ``.npz`` with the same arrays.
      kind: key of ``KEYS``.
      official: int [N], clean labels of the images, which the file repeats.
      num_classes: C.

    Returns:
      int32 [N] in official order.

    Raises:
      UserError: unreadable or damaged, a kind is missing, wrong length, not
        integers, out of range, made for another data set or in another order.
    """
    arrays = _arrays(path)
    clean = _labels(path, arrays, CLEAN)
    other = f"{path}: a labels file of another data set"
    if len(clean) != len(official):
        raise UserError(
            f"{other}: holds {len(clean)} labels, the data {len(official)}"
        )
    wrong = int((clean != official).sum())
    if wrong:
        raise UserError(
            f"{other}, or in another order: its clean labels differ from the "
            f"data's at {wrong} of {len(official)} images"
        )
    labels = _labels(path, arrays, KEYS[kind])
    if len(labels) != len(official):
        raise UserError(
            f"{path}: {kind} holds {len(labels)} labels, the data "
            f"{len(official)}"
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise UserError(
            f"{path}: {kind} must be in 0..{num_classes - 1}, reaches from "
            f"{labels.min()} to {labels.max()}"
        )
    agreement.check_order(f"{path}: {kind}", labels, official, num_classes)
    return labels_array(labels)


def _arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    known = {name for names in (CLEAN, *KEYS.values()) for name in names}
    if str(path).endswith(".npz"):
        return untrusted.read_npz(path, known)[0]
    content = pickles.read_torch(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no dictionary of labels")
    arrays = {}
    for key, value in content.items():
        name = key.decode("latin1") if isinstance(key, bytes) else str(key)
        if name in known:
            arrays[name] = lists.integers(f"{path}: {name}", value)
    return arrays


def _labels(
    path: str | os.PathLike,
    arrays: dict[str, np.ndarray],
    names: tuple[str, ...],
) -> np.ndarray:
    for name in names:
        if name in arrays:
            labels = arrays[name]
            break
    else:
        raise UserError(
            f"{path}: a labels file of another data set: holds no "
            f"{' or '.join(names)}, only {', '.join(sorted(arrays))}"
        )
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UserError(
            f"{path}: {name} must be a list of integers, is {labels.dtype} "
            f"of shape {labels.shape}"
        )
    # Wide enough that unsigned labels cannot overflow.
    return labels.astype(np.int64)
