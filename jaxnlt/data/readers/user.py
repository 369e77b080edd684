"""The user's own images: one npz file, or a folder with a folder per class."""

import concurrent.futures
import csv
import dataclasses
import os
import pathlib

import numpy as np
from PIL import Image

from jaxnlt.data.files import FileSource, file_split
from jaxnlt.data.records import (
    ReadRequest,
    Source,
    Split,
    labels_array,
    read_npz,
)
from jaxnlt.runtime.errors import UserError, logger

SUFFIXES = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".png",
        ".bmp",
        ".gif",
        ".webp",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
    ]
)
_NPZ_KEYS = (
    "train_images",
    "train_labels",
    "train_true_labels",
    "test_images",
    "test_labels",
    "class_names",
)
# Decoding releases Python's lock, so threads help.
_THREADS = 8


def npz_source(request: ReadRequest) -> Source:
    """What ``npz`` returns, for an entry of the registry."""
    return npz(request.path)


def folder_source(request: ReadRequest) -> Source:
    """What ``folder`` returns, for an entry of the registry."""
    return folder(request.path, request.labels_file, request.image_size)


def npz(path: str) -> Source:
    """Reads the user's npz file.

    Args:
      path: a file with ``train_images uint8 [N, H, W, C]`` (C is 1 or 3),
        ``train_labels [N]``, optionally ``train_true_labels [N]``,
        ``test_images`` with ``test_labels``, and ``class_names``.

    Returns:
      The source; ids are row numbers, ``test`` is None where there is none.

    Raises:
      UserError: missing or damaged file, missing key, wrong type, shape or
        range, a class without a training or test image.
    """
    if not path:
        raise UserError("config.data.path: the npz benchmark needs a file")
    file = pathlib.Path(path).expanduser()
    arrays = read_npz(file)
    unknown = sorted(set(arrays) - set(_NPZ_KEYS))
    if unknown:
        logger.warning("%s: not used: %s", file, ", ".join(unknown))
    wanted = ["train_images", "train_labels"]
    if "test_images" in arrays or "test_labels" in arrays:
        wanted += ["test_images", "test_labels"]
    for key in wanted:
        if key not in arrays:
            raise UserError(f"{file}: holds no {key}")
    images = _npz_images(file, arrays, "train_images")
    labels = _npz_labels(file, arrays, "train_labels", len(images))
    true = None
    if "train_true_labels" in arrays:
        true = _npz_labels(file, arrays, "train_true_labels", len(images))
    if "class_names" in arrays:
        names = tuple(str(n) for n in arrays["class_names"].ravel())
    else:
        top = max(int(x.max()) for x in (labels, true) if x is not None)
        names = tuple(str(k) for k in range(top + 1))
    check_classes(f"{file}: train_labels", labels, names)
    if true is not None:
        _check_range(f"{file}: train_true_labels", true, names)
    test = None
    if "test_images" in arrays:
        test_images = _npz_images(file, arrays, "test_images")
        if test_images.shape[1:] != images.shape[1:]:
            raise UserError(
                f"{file}: test_images are {test_images.shape[1:]}, "
                f"train_images {images.shape[1:]}"
            )
        given = _npz_labels(file, arrays, "test_labels", len(test_images))
        check_classes(f"{file}: test_labels", given, names)
        test = Split(test_images, given, given, np.arange(len(given)))
    train = Split(images, labels, true, np.arange(len(labels)))
    return Source(train, test, names, str(file))


def folder(path: str, labels_file: str = "", image_size: int = 0) -> Source:
    """Reads a folder of images into memory, as RGB.

    Args:
      path: holds ``train/CLASS/*`` and optionally ``test/CLASS/*``.
      labels_file: CSV with the columns ``path`` (relative to ``path``),
        ``label`` and optionally ``true_label``; when given it is the list of
        training images, and ``train/CLASS`` is not read.
      image_size: resizes every image of another size to this square;
        0 asks for images of one size.

    Returns:
      The source; ids are paths relative to ``path``.

    Raises:
      UserError: nothing found, an image is unreadable, empty or of another
        size than the first (it is named), a class without images, a CSV that
        misses a column or names a missing file.
    """
    if not path:
        raise UserError("config.data.path: the folder benchmark needs a folder")
    root = pathlib.Path(path).expanduser()
    if not root.is_dir():
        raise UserError(f"config.data.path: {root}: no such folder")
    listed = listing(root, labels_file)
    train, test = listed.train, listed.test
    images = _decode(root, train.ids, image_size, None)
    train = dataclasses.replace(train, images=images)
    if test is not None:
        decoded = _decode(root, test.ids, image_size, images.shape[1:3])
        test = dataclasses.replace(test, images=decoded)
    return Source(train, test, listed.class_names, str(root))


def listing(root: pathlib.Path, labels_file: str) -> FileSource:
    """Lists a folder of images; opens none.

    Args:
      root: the folder, see ``folder``.
      labels_file: the CSV, or ''.

    Returns:
      The source, ``test`` None where there is none; ids are paths relative to
      ``root``.

    Raises:
      UserError: nothing found, a class without images, a CSV that misses a
        column or names a missing file.
    """
    true: list[str] | None = None
    if labels_file:
        file = pathlib.Path(labels_file).expanduser()
        paths, given, true = _read_csv(file, root)
        names = _ordered(given + (true or []))
        origin = str(file)
    else:
        paths, given, names = _scan(root, "train")
        origin = str(root / "train")
    codes = {name: k for k, name in enumerate(names)}
    labels = [codes[name] for name in given]
    known = None if true is None else [codes[name] for name in true]
    train = file_split(root, paths, labels, known)
    check_classes(origin, train.labels, names)
    test = None
    if (root / "test").is_dir():
        paths, given, found = _scan(root, "test")
        strange = [name for name in found if name not in codes]
        if strange:
            raise UserError(
                f"{root / 'test' / strange[0]}: no training image is of this "
                "class"
            )
        labels = [codes[name] for name in given]
        test = file_split(root, paths, labels, labels)
        check_classes(str(root / "test"), test.labels, names)
    return FileSource(train, test, names, str(root))


def _check_range(
    where: str, labels: np.ndarray, names: tuple[str, ...]
) -> None:
    if labels.min() < 0 or labels.max() >= len(names):
        raise UserError(
            f"{where}: must lie in 0..{len(names) - 1}, reach from "
            f"{labels.min()} to {labels.max()}"
        )


def check_classes(
    where: str, labels: np.ndarray, names: tuple[str, ...]
) -> None:
    """Refuses labels that do not go with their classes.

    Args:
      where: what holds them, for the message.
      labels: int [N].
      names: C class names.

    Raises:
      UserError: a label lies outside 0..C-1, a class has no image, or there
        are fewer than two classes.
    """
    _check_range(where, labels, names)
    counts = np.bincount(labels, minlength=len(names))
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise UserError(f"{where}: class {names[empty[0]]} has no image")
    if len(names) < 2:
        raise UserError(f"{where}: holds one class, at least two are needed")


def _npz_images(
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


def _npz_labels(
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


def _ordered(names: list[str]) -> tuple[str, ...]:
    """Distinct names; by number where all are numbers, else by text."""
    distinct = sorted(set(names))
    if all(name.isdecimal() for name in distinct):
        distinct.sort(key=lambda name: (int(name), name))
    return tuple(distinct)


def _scan(
    root: pathlib.Path, part: str
) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Paths and class of the images below ``root/part``, sorted."""
    base = root / part
    if not base.is_dir():
        raise UserError(
            f"{base}: no such folder; expected are {part}/CLASS/*.jpg, or a "
            "CSV of labels (--config.data.labels_file)"
        )
    names = _ordered(
        [
            entry.name
            for entry in os.scandir(base)
            if entry.is_dir() and not entry.name.startswith(".")
        ]
    )
    if not names:
        raise UserError(f"{base}: holds no class folder")
    files, given, strange = [], [], []
    for name in names:
        found = sorted(p for p in (base / name).rglob("*") if p.is_file())
        kept = [p for p in found if not p.name.startswith(".")]
        images = [p for p in kept if p.suffix.lower() in SUFFIXES]
        strange += [p for p in kept if p.suffix.lower() not in SUFFIXES]
        if not images:
            raise UserError(f"{base / name}: class {name} has no image")
        files += [p.relative_to(root).as_posix() for p in images]
        given += [name] * len(images)
    if strange:
        logger.warning(
            "%s: %d files are no images by their names and are left out, the "
            "first is %s",
            base,
            len(strange),
            strange[0],
        )
    return files, given, names


def _read_csv(
    file: pathlib.Path, root: pathlib.Path
) -> tuple[list[str], list[str], list[str] | None]:
    """The columns path, label and true_label (None where there is none)."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            for column in ("path", "label"):
                if column not in columns:
                    raise UserError(
                        f"{file}: no column {column}; the first line must "
                        "name the columns path,label[,true_label]"
                    )
            rows = list(reader)
    except OSError as error:
        raise UserError(
            f"config.data.labels_file: {file}: {error.strerror}"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{file}: not a CSV in UTF-8 ({error})") from None
    if not rows:
        raise UserError(f"{file}: lists no image")
    known = ["path", "label"] + ["true_label"] * ("true_label" in columns)
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        for column in known:
            if not row[column]:
                raise UserError(f"{file}: row {number} has no {column}")
        if row["path"] in seen:
            raise UserError(f"{file}: row {number} repeats {row['path']}")
        seen.add(row["path"])
        if not (root / row["path"]).is_file():
            raise UserError(
                f"{root / row['path']}: no such file, named in row {number} "
                f"of {file}"
            )
    true = [r["true_label"] for r in rows] if "true_label" in known else None
    return [r["path"] for r in rows], [r["label"] for r in rows], true


def _decode(
    root: pathlib.Path,
    files: np.ndarray,
    image_size: int,
    shape: tuple[int, ...] | None,
) -> np.ndarray:
    """Decodes to ``uint8 [N, H, W, 3]``; ``shape`` None is the first's."""
    if image_size:
        shape = (image_size, image_size)
    if shape is None:
        shape = decode(root / files[0], None).shape[:2]
    images = np.empty((len(files), *shape, 3), np.uint8)

    def fill(row: int) -> None:
        path = root / files[row]
        decoded = decode(path, shape if image_size else None)
        if decoded.shape[:2] != shape:
            raise UserError(
                f"{path}: is {decoded.shape[1]}x{decoded.shape[0]} pixels, the "
                f"first image {shape[1]}x{shape[0]}; "
                "--config.data.image_size=N resizes all to NxN"
            )
        images[row] = decoded

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        # map gives errors in the order of the files: the first is named.
        for _ in pool.map(fill, range(len(files))):
            pass
    return images


def decode(path: pathlib.Path, shape: tuple[int, ...] | None) -> np.ndarray:
    """The pixels of an image file.

    Args:
      path: the file.
      shape: height and width to resize to; None leaves the size.

    Returns:
      uint8 [H, W, 3].

    Raises:
      UserError: the file is empty or no readable image.
    """
    if path.stat().st_size == 0:
        raise UserError(f"{path}: empty file, not an image")
    try:
        with Image.open(path) as image:
            return fit(image, "RGB", shape)
    # Pillow's decoders raise SyntaxError, struct.error and others too.
    except Exception as error:
        raise UserError(f"{path}: unreadable image ({error})") from None


def fit(
    image: Image.Image, mode: str, shape: tuple[int, ...] | None
) -> np.ndarray:
    """The pixels of an image, resized if it has another size.

    Args:
      image: as opened.
      mode: Pillow's, ``RGB`` or ``L``.
      shape: height and width wanted, bilinear with antialiasing; None leaves
        the size.

    Returns:
      uint8 [H, W, 3], of mode ``L`` [H, W].

    Raises:
      Exception: whatever Pillow's decoders raise at damaged content.
    """
    converted = image.convert(mode)
    if shape is not None and converted.size != (shape[1], shape[0]):
        converted = converted.resize(
            (shape[1], shape[0]), Image.Resampling.BILINEAR
        )
    return np.asarray(converted)
