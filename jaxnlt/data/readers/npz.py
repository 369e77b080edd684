"""The user's own images in one npz file.

``train_images`` uint8 [N, H, W, C] (C is 1 or 3), ``train_labels`` [N],
optionally ``train_true_labels`` [N], ``test_images`` with ``test_labels``, and
``class_names`` [classes].
"""

import pathlib

import numpy as np

from jaxnlt.data import agreement, untrusted
from jaxnlt.data.readers import lists
from jaxnlt.data.records import ReadRequest, Source, Split, labels_array
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError, logger

_KEYS = (
    "train_images",
    "train_labels",
    "train_true_labels",
    "test_images",
    "test_labels",
    "class_names",
)


def read(request: ReadRequest) -> Source:
    """Reads the user's npz file.

    Args:
      request: ``path``, the file.

    Returns:
      The source; ids are row numbers, ``test`` is None where the file holds
      no test images.

    Raises:
      UserError: missing or damaged file, missing key, wrong type, shape or
        range, a class without a training image, labels in another order.
    """
    if not request.path:
        raise UserError("config.data.path: the npz benchmark needs a file")
    file = paths.expanded(request.path, "config.data.path")
    arrays, unknown = untrusted.read_npz(file, _KEYS)
    if unknown:
        logger.warning("%s: not used: %s", file, ", ".join(sorted(unknown)))
    wanted = ["train_images", "train_labels"]
    if "test_images" in arrays or "test_labels" in arrays:
        wanted += ["test_images", "test_labels"]
    for key in wanted:
        if key not in arrays:
            raise UserError(f"{file}: holds no {key}")
    images = _images(file, arrays, "train_images")
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
    if "test_images" in arrays:
        test_images = _images(file, arrays, "test_images")
        if test_images.shape[1:] != images.shape[1:]:
            raise UserError(
                f"{file}: test_images are {test_images.shape[1:]}, "
                f"train_images {images.shape[1:]}"
            )
        given = _labels(file, arrays, "test_labels", len(test_images))
        lists.check_range(f"{file}: test_labels", given, names)
        test = Split(test_images, given, given, np.arange(len(given)))
    train = Split(images, labels, true, np.arange(len(labels)))
    return Source(train, test, names, str(file))


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
