"""The user's own images, or features of them, in one npz file.

``train_images`` uint8 [N, H, W, C] (C is 1 or 3) or ``train_features`` [N, D]
of any float, ``train_labels`` [N], optionally ``train_true_labels`` [N],
``test_images`` or ``test_features`` with ``test_labels``, and ``class_names``
[classes].
"""

import pathlib
from collections.abc import Callable

import numpy as np

from jaxnlt.data import agreement, untrusted
from jaxnlt.data.readers import lists
from jaxnlt.data.records import ReadRequest, Source, Split, labels_array
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError, logger

_LABELS = ("train_labels", "train_true_labels", "test_labels", "class_names")

#: (file, arrays, key) -> an array of images or features, checked.
_Check = Callable[[pathlib.Path, dict[str, np.ndarray], str], np.ndarray]


def holds_images(request: ReadRequest) -> bool:
    """Whether the user's npz file is one of images.

    Args:
      request: ``path``, the file.

    Returns:
      False where it holds features and no images.

    Raises:
      UserError: missing or damaged file.
    """
    _, names = untrusted.read_npz(_file(request), ())
    return "train_images" in names or "train_features" not in names


def read_images(request: ReadRequest) -> Source:
    """Reads images, see ``read``."""
    return read(request, "images", "features", _images)


def read_features(request: ReadRequest) -> Source:
    """Reads rows of features, see ``read``."""
    return read(request, "features", "images", features)


def read(request: ReadRequest, kind: str, other: str, check: _Check) -> Source:
    """Reads the user's npz file.

    Args:
      request: ``path``, the file.
      kind: ``images`` or ``features``, what is read.
      other: what may not be there as well.
      check: of the arrays of this kind.

    Returns:
      The source; ids are row numbers, ``test`` is None where the file holds
      no test images.

    Raises:
      UserError: missing or damaged file, missing key, images and features in
        one file, wrong type, shape or range, a class without a training image,
        labels in another order.
    """
    file = _file(request)
    train_key, test_key = f"train_{kind}", f"test_{kind}"
    arrays, unknown = untrusted.read_npz(file, (train_key, test_key, *_LABELS))
    _check_kind(file, [*arrays, *unknown], kind, other)
    if unknown:
        logger.warning("%s: not used: %s", file, ", ".join(sorted(unknown)))
    wanted = [train_key, "train_labels"]
    if test_key in arrays or "test_labels" in arrays:
        wanted += [test_key, "test_labels"]
    for key in wanted:
        if key not in arrays:
            raise UserError(f"{file}: holds no {key}")
    images = check(file, arrays, train_key)
    labels = _labels(file, arrays, "train_labels", len(images))
    true = None
    if "train_true_labels" in arrays:
        true = _labels(file, arrays, "train_true_labels", len(images))
    if "class_names" in arrays:
        names = tuple(str(n) for n in arrays["class_names"].ravel())
    else:
        known = [x for x in (labels, true) if x is not None]
        names = lists.numbered_classes(f"{file}: train_labels", *known)
    if true is not None:
        lists.check_range(f"{file}: train_true_labels", true, names)
    lists.check_classes(f"{file}: train_labels", labels, names, true)
    agreement.check_order(
        f"{file}: train_labels",
        labels,
        true,
        len(names),
        ", or leave out train_true_labels",
    )
    test = None
    if test_key in arrays:
        test_images = check(file, arrays, test_key)
        if test_images.shape[1:] != images.shape[1:]:
            raise UserError(
                f"{file}: {test_key} are {test_images.shape[1:]}, "
                f"{train_key} {images.shape[1:]}"
            )
        given = _labels(file, arrays, "test_labels", len(test_images))
        lists.check_range(f"{file}: test_labels", given, names)
        test = Split(test_images, given, given, np.arange(len(given)))
    train = Split(images, labels, true, np.arange(len(labels)))
    return Source(train, test, names, str(file))


def _file(request: ReadRequest) -> pathlib.Path:
    if not request.path:
        raise UserError(
            f"config.data.path: the {request.benchmark.name} benchmark needs a "
            "file"
        )
    return paths.expanded(request.path, "config.data.path")


def _check_kind(
    file: pathlib.Path, names: list[str], kind: str, other: str
) -> None:
    """Refuses a file of the other kind, or of both."""
    found = [n for n in (f"train_{other}", f"test_{other}") if n in names]
    if not found:
        return
    if f"train_{kind}" in names:
        raise UserError(
            f"{file}: holds train_{kind} and {found[0]}; a run takes one "
            "kind, leave the other out"
        )
    entry = {"images": "npz", "features": "features"}[other]
    raise UserError(
        f"{file}: holds {found[0]} and no train_{kind}; take the benchmark "
        f"{entry}, as --config=erm:{entry}"
    )


def features(
    file: pathlib.Path, arrays: dict[str, np.ndarray], key: str
) -> np.ndarray:
    """Features of a file.

    Args:
      file: for messages.
      arrays: of the file.
      key: of an array in ``arrays``.

    Returns:
      float32 [N, D].

    Raises:
      UserError: another type or shape, nothing in it, or a number that is not
        finite in float32.
    """
    rows = arrays[key]
    if rows.dtype.kind != "f" or rows.ndim != 2:
        raise UserError(
            f"{file}: {key} must be float16, float32 or float64 [N, D], is "
            f"{rows.dtype} of shape {rows.shape}; see numpy's astype and "
            "reshape"
        )
    if not rows.size:
        raise UserError(f"{file}: {key} is empty, has shape {rows.shape}")
    with np.errstate(over="ignore"):
        narrow = rows.astype(np.float32, copy=False)
    bad = np.argwhere(~np.isfinite(narrow))
    if len(bad):
        row, column = bad[0]
        raise UserError(
            f"{file}: {key}: row {row}, feature {column} is "
            f"{rows[row, column]}, no finite number of 32 bits; "
            f"{len(np.unique(bad[:, 0]))} rows have such, leave them out"
        )
    return narrow


def _images(
    file: pathlib.Path, arrays: dict[str, np.ndarray], key: str
) -> np.ndarray:
    images = arrays[key]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(
            f"{file}: {key} must be uint8 [N, H, W, C], is {images.dtype} of "
            f"shape {images.shape}"
        )
    if images.shape[-1] not in (1, 3) or not images.size:
        raise UserError(
            f"{file}: {key} must hold images of 1 or 3 channels, has shape "
            f"{images.shape}"
        )
    return images


def _labels(
    file: pathlib.Path, arrays: dict[str, np.ndarray], key: str, size: int
) -> np.ndarray:
    labels = arrays[key]
    if labels.dtype.kind not in "iu":
        raise UserError(f"{file}: {key} must be integers, is {labels.dtype}")
    if labels.shape != (size,):
        raise UserError(
            f"{file}: {key} must have shape ({size},) like its images, has "
            f"{labels.shape}"
        )
    if labels.max() >= 2**31 or labels.min() < 0:
        raise UserError(
            f"{file}: {key} must be class numbers from 0, reach from "
            f"{labels.min()} to {labels.max()}"
        )
    return labels_array(labels)
