"""Human labels of CIFAR-10N and CIFAR-100N."""

import os
import pathlib

import numpy as np

from jaxnlt.data.readers import pickles
from jaxnlt.data.records import labels_array, read_npz
from jaxnlt.data.registry import Benchmark
from jaxnlt.runtime.errors import UserError

HOMEPAGE = "https://github.com/UCSC-REAL/cifar-10-100n"
CLEAN = ("clean", "clean_label")
# Names of each kind in our npz and in the official files.
KEYS = {
    "human:aggre": ("aggre", "aggre_label"),
    "human:worse": ("worse", "worse_label"),
    "human:random1": ("random1", "random_label1"),
    "human:random2": ("random2", "random_label2"),
    "human:random3": ("random3", "random_label3"),
    "human:noisy": ("noisy", "noisy_label"),
}


def find(
    bench: Benchmark, labels_file: str, places: list[pathlib.Path]
) -> pathlib.Path:
    """The file of human labels.

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
        path = pathlib.Path(labels_file).expanduser()
        if not path.is_file():
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
      official: ``[N]`` clean labels of the images, which the file repeats.
      num_classes: ``C``.

    Returns:
      ``int32 [N]`` in official order.

    Raises:
      UserError: unreadable or damaged, a kind is missing, wrong length, not
        integers, out of range, or made for another data set.
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
            f"{path}: {kind} must lie in 0..{num_classes - 1}, reaches from "
            f"{labels.min()} to {labels.max()}"
        )
    return labels_array(labels)


def _arrays(path: str | os.PathLike) -> dict[str, np.ndarray]:
    if str(path).endswith(".npz"):
        return read_npz(path)
    content = pickles.read_torch(path)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no dictionary of labels")
    return {
        key.decode() if isinstance(key, bytes) else str(key): np.asarray(value)
        for key, value in content.items()
    }


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
    # Wide enough that an unsigned label cannot wrap round.
    return labels.astype(np.int64)
