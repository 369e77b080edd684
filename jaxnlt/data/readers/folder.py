"""The user's own images in a folder, with a folder for each class.

``train/CLASS/*.jpg`` and optionally ``test/CLASS/*.jpg``.  A CSV with the
columns ``path`` (relative to the folder), ``label`` and optionally
``true_label`` may list the training images instead; ``train/`` is then not
scanned.
"""

import concurrent.futures
import csv
import dataclasses
import os
import pathlib

import numpy as np

from jaxnlt.data import decode, listing, readable
from jaxnlt.data.files import file_split
from jaxnlt.data.readers import lists
from jaxnlt.data.records import ReadRequest, Source, Split
from jaxnlt.runtime.errors import UserError, logger

# Decoding releases Python's lock, so threads help.
_THREADS = 8


def read_decoded(request: ReadRequest) -> Source:
    """Reads a folder of images into memory, as RGB.

    Args:
      request: ``path``, ``labels_file`` (the CSV or ''), ``image_size`` and
        ``skip_bad``.

    Returns:
      The source, ``images`` uint8 [N, H, W, 3]; ids are paths relative to
      ``path``, ``test`` is None where there is no test folder.

    Raises:
      UserError: see ``read_listed``; an image is unreadable, unless such are
        skipped, or of another size than the first.
    """
    listed = read_listed(request)
    root, size = pathlib.Path(listed.path), request.image_size
    shape = (size, size) if size else None
    decoded: dict[str, Split] = {}
    bad: dict[str, dict[int, decode.BadImage]] = {}
    for name, split in listed.splits.items():
        images, bad[name] = _decode(root, split.ids, bool(size), shape)
        decoded[name] = dataclasses.replace(split, images=images)
        # Where none of training can be read, any shape will do.
        shape = images.shape[1:3]
    whole = dataclasses.replace(
        listed, train=decoded["train"], test=decoded.get("test")
    )
    return readable.settled(whole, bad, request.skip_bad)


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
        file = pathlib.Path(request.labels_file).expanduser()
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
    if all(name.isdecimal() for name in distinct):
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
    names, loose, others, dead = [], [], [], []
    for entry in listing.entries(base):
        listing.check_name(entry.path)
        if os.path.isdir(entry.path):
            names.append(entry.name)
        elif os.path.exists(entry.path):
            loose.append(entry.path)
        else:
            raise UserError(f"{entry.path}: link that leads nowhere")
    if not names:
        raise UserError(f"{base}: holds no class folder")
    if loose:
        logger.warning(
            "%s: %d files lie in no class folder and are left out, the first "
            "is %s",
            base,
            len(loose),
            loose[0],
        )
    paths: list[str] = []
    given: list[str] = []
    for name in _ordered(names):
        found = listing.find(base / name)
        if not found.images:
            raise UserError(f"{base / name}: class {name} has no image")
        paths += [f"{part}/{name}/{path}" for path in found.images]
        given += [name] * len(found.images)
        others += [f"{name}/{path}" for path in found.others]
        dead += [f"{name}/{path}" for path in found.dead]
    listing.warn(base, others, dead)
    return paths, given, _ordered(names)


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
    paths: np.ndarray,
    resize: bool,
    shape: tuple[int, ...] | None,
) -> tuple[np.ndarray, dict[int, decode.BadImage]]:
    """Decodes to uint8 [N, H, W, 3]; ``shape`` None is the first image's.

    Unreadable images are black; they are returned too.
    """
    bad: dict[int, decode.BadImage] = {}
    first = 0
    while shape is None and first < len(paths):
        try:
            shape = decode.open_rgb(root / paths[first]).size[::-1]
        except decode.BadImage:
            first += 1
    shape = shape or (1, 1)
    images = np.zeros((len(paths), *shape, 3), np.uint8)

    def fill(row: int) -> None:
        path = root / paths[row]
        try:
            pixels = decode.read_rgb(path, shape if resize else None)
        except decode.BadImage as error:
            bad[row] = error
            return
        if pixels.shape[:2] != shape:
            raise UserError(
                f"{path}: is {pixels.shape[1]}x{pixels.shape[0]} pixels, the "
                f"first image {shape[1]}x{shape[0]}; "
                "--config.data.image_size=N resizes all to NxN"
            )
        images[row] = pixels

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        # map gives errors in the order of the files, so the first is named.
        for _ in pool.map(fill, range(len(paths))):
            pass
    return images, dict(sorted(bad.items()))
