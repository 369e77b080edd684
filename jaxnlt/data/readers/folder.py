"""The user's own images in a folder, with a folder for each class.

``train/CLASS/*.jpg`` and optionally ``test/CLASS/*.jpg``.  A CSV with the
columns ``path`` (relative to the folder), ``label`` and optionally
``true_label`` may list the training images instead; ``train/`` is then not
scanned.
"""

import concurrent.futures
import csv
import dataclasses
import io
import os
import pathlib

import numpy as np

from jaxnlt.data import cells, decode, untrusted
from jaxnlt.data.files import file_split
from jaxnlt.data.readers import lists
from jaxnlt.data.records import ReadRequest, Source
from jaxnlt.runtime import paths as user_paths
from jaxnlt.runtime.errors import UserError, logger

# Decoding releases Python's lock, so threads help.
_THREADS = 8


def read_decoded(request: ReadRequest) -> Source:
    """Reads a folder of images into memory, as RGB.

    Args:
      request: ``path``, ``labels_file`` (the CSV or '') and ``image_size``.

    Returns:
      The source, ``images`` uint8 [N, H, W, 3]; ids are paths relative to
      ``path``, ``test`` is None where there is no test folder.

    Raises:
      UserError: see ``read_listed``; an image is unreadable, empty or of
        another size than the first.
    """
    listed = read_listed(request)
    root, size = pathlib.Path(listed.path), request.image_size
    train, test = listed.train, listed.test
    images = _decode(root, train.ids, size, None)
    train = dataclasses.replace(train, images=images)
    if test is not None:
        decoded = _decode(root, test.ids, size, images.shape[1:3])
        test = dataclasses.replace(test, images=decoded)
    return dataclasses.replace(listed, train=train, test=test)


def read_listed(request: ReadRequest) -> Source:
    """Lists a folder of images; opens none.

    Args:
      request: ``path`` and ``labels_file`` (the CSV or '').

    Returns:
      The source, ``images`` are ``ImageFiles``; ids are paths relative to
      ``path``, ``test`` is None where there is no test folder.

    Raises:
      UserError: nothing found, a class without images, a CSV that lacks a
        column or names a missing file.
    """
    root = lists.folder(request.path)
    true: list[str] | None = None
    if request.labels_file:
        file = user_paths.expanded(
            request.labels_file, "config.data.labels_file"
        )
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
    lists.check_classes(origin, train.labels, names)
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
        lists.check_classes(str(root / "test"), test.labels, names)
    return Source(train, test, names, str(root))


def _ordered(names: list[str]) -> tuple[str, ...]:
    """Distinct names, by number where all are numbers, else by text."""
    distinct = sorted(set(names))
    if all(name.isdecimal() and len(name) < 20 for name in distinct):
        distinct.sort(key=lambda name: (int(name), name))
    return tuple(distinct)


def _scan(
    root: pathlib.Path, part: str
) -> tuple[list[str], list[str], tuple[str, ...]]:
    """Paths and classes of the images below ``root/part``, and the classes."""
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
    paths: list[str] = []
    given: list[str] = []
    strange: list[pathlib.Path] = []
    for name in names:
        found = sorted(p for p in (base / name).rglob("*") if p.is_file())
        kept = [p for p in found if not p.name.startswith(".")]
        images = [p for p in kept if p.suffix.lower() in decode.SUFFIXES]
        strange += [p for p in kept if p.suffix.lower() not in decode.SUFFIXES]
        if not images:
            raise UserError(f"{base / name}: class {name} has no image")
        paths += [p.relative_to(root).as_posix() for p in images]
        given += [name] * len(images)
    if strange:
        logger.warning(
            "%s: %d files are no images by their names and are left out, the "
            "first is %s",
            base,
            len(strange),
            strange[0],
        )
    return paths, given, names


def _read_csv(
    file: pathlib.Path, root: pathlib.Path
) -> tuple[list[str], list[str], list[str] | None]:
    """The columns path, label and true_label (None where there is none)."""
    try:
        text = untrusted.read_text(file, "config.data.labels_file")
        with io.StringIO(text, newline="") as stream:
            reader = csv.DictReader(stream)
            columns = reader.fieldnames or []
            for column in ("path", "label"):
                if column not in columns:
                    raise UserError(
                        f"{file}: no column {column}; the first line must "
                        "name the columns path,label[,true_label]"
                    )
            rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV in UTF-8 ({error})") from None
    if not rows:
        raise UserError(f"{file}: lists no image")
    known = ["path", "label"] + ["true_label"] * ("true_label" in columns)
    seen: set[str] = set()
    for number, row in enumerate(rows, start=2):
        for column in known:
            if not row[column]:
                raise UserError(f"{file}: row {number} has no {column}")
            row[column] = cells.plain(row[column])
        if row["path"] in seen:
            raise UserError(f"{file}: row {number} repeats {row['path']}")
        seen.add(row["path"])
        if not os.path.isfile(root / row["path"]):
            raise UserError(
                f"{root / row['path']}: no such file, named in row {number} "
                f"of {file}"
            )
    true = [r["true_label"] for r in rows] if "true_label" in known else None
    return [r["path"] for r in rows], [r["label"] for r in rows], true


def _decode(
    root: pathlib.Path,
    paths: np.ndarray,
    image_size: int,
    shape: tuple[int, ...] | None,
) -> np.ndarray:
    """Decodes to uint8 [N, H, W, 3]; ``shape`` None is the first image's."""
    if image_size:
        shape = (image_size, image_size)
    if shape is None:
        shape = decode.read_rgb(root / paths[0]).shape[:2]
    images = np.empty((len(paths), *shape, 3), np.uint8)

    def fill(row: int) -> None:
        path = root / paths[row]
        decoded = decode.read_rgb(path, shape if image_size else None)
        if decoded.shape[:2] != shape:
            raise UserError(
                f"{path}: is {decoded.shape[1]}x{decoded.shape[0]} pixels, the "
                f"first image {shape[1]}x{shape[0]}; "
                "--config.data.image_size=N resizes all to NxN"
            )
        images[row] = decoded

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        # map gives errors in the order of the files, so the first is named.
        for _ in pool.map(fill, range(len(paths))):
            pass
    return images
