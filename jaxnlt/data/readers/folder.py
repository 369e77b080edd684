"""The user's own images in a folder, with a folder for each class.

``train/CLASS/*.jpg`` and optionally ``test/CLASS/*.jpg``, or ``CLASS/*.jpg``
where there is neither ``train`` nor ``test``.  A CSV with the columns ``path``
(relative to the folder), ``label`` and optionally ``true_label`` and ``split``
may list the training images instead, the labels.csv of a run too; ``train/`` is
then not scanned.  A CSV of ``decisions`` corrects the labels of ``train/``.
"""

import concurrent.futures
import contextlib
import dataclasses
import os
import pathlib
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from jaxnlt.data import (
    agreement,
    cells,
    decisions,
    decode,
    listing,
    readable,
)
from jaxnlt.data.files import file_split
from jaxnlt.data.readers import lists
from jaxnlt.data.records import (
    HELD_OUT,
    UNKNOWN,
    WRONG,
    WRONG_WORD,
    ReadRequest,
    Source,
    Split,
)
from jaxnlt.runtime import paths as user_paths
from jaxnlt.runtime.errors import UserError, logger

# Decoding releases Python's lock, so threads help.
_THREADS = 8
_WANTED = "path,label[,true_label][,split]"
#: Folders with a folder for each class.
TRAIN, TEST = "train", "test"
# Other names that people give them, in lower case.
_LIKE_TRAIN = frozenset(("train", "training", "trainset", "train_set"))
_LIKE_TEST = frozenset(
    ("test", "testing", "val", "valid", "validation", "dev", "eval")
)


class _Folders:
    """What lies in folders, each of which is listed once.

    Asking for every single file takes ten times as long, over a network more.

    Args:
      root: the folder that paths are relative to.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = root
        self._seen: dict[str, tuple[str, dict[str, os.DirEntry[str]]]] = {}

    def _find(self, path: str) -> tuple[str, os.DirEntry[str] | None]:
        """Where the folder of a path leads with its name, and its entry."""
        cut = path.rfind("/") + 1
        folder, name = path[:cut], path[cut:]
        if folder not in self._seen:
            place = os.path.join(self.root, folder)
            self._seen[folder] = place, {}
            # A folder that is none is found out when its file is asked for.
            with (
                contextlib.suppress(OSError, ValueError),
                os.scandir(place) as found,
            ):
                entries = {entry.name: entry for entry in found}
                real = os.path.join(os.path.realpath(place), "")
                self._seen[folder] = real, entries
        real, entries = self._seen[folder]
        return real + name, entries.get(name)

    def is_file(self, path: str) -> bool:
        """Whether a path leads to a file."""
        place, entry = self._find(path)
        # Some file systems take other case or encoding for the same name.
        return entry.is_file() if entry else os.path.isfile(place)

    def real(self, path: str) -> str:
        """Where a path leads once all links are followed."""
        place, entry = self._find(path)
        plain = entry is not None and not entry.is_symlink()
        return place if plain else os.path.realpath(place)


class _Listed(NamedTuple):
    """The listed images: paths, given and true labels, who is held out.

    ``first_row`` is the number of the first image's row in its CSV; 0 where
    they have no rows.
    """

    paths: list[str]
    given: list[str]
    true: list[str] | None = None
    held_out: np.ndarray | None = None
    first_row: int = 0


def list_files(request: ReadRequest) -> list[pathlib.Path]:
    """The images of training and test that a request will read; opens none.

    Args:
      request: ``path`` and ``labels_file``.

    Returns:
      At least one path.

    Raises:
      UserError: see ``read_listed``.
    """
    root = lists.folder(request.path)
    paths = _listing(request, root).listed.paths
    if (root / TEST).is_dir():
        paths = paths + _scan(root, TEST).paths
    return [root / path for path in paths]


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
      UserError: nothing found, a class without images, classes whose names
        look alike, a CSV that lacks a column, names a missing file, a test
        image or one image twice, or whose labels are in another order.
    """
    root = lists.folder(request.path)
    listed, names, origin, scanned = _listing(request, root)
    if scanned is not None:
        scanned.warn()
        _warn_unread(root)
    row = "row {}: " if listed.first_row else ""
    _check_names(origin, names)
    codes = {name: k for k, name in enumerate(names)}
    known = None
    if listed.true is not None:
        truths = {"": UNKNOWN, WRONG_WORD: WRONG} | codes
        known = [truths[name] for name in listed.true]
    labels = [codes[name] for name in listed.given]
    train = file_split(root, listed.paths, labels, known)
    lists.check_classes(origin, train.labels, names, train.true_labels)
    agreement.check_order(
        origin,
        train.labels,
        train.true_labels,
        len(names),
        ", or leave out the column true_label",
    )
    test = _read_test(root, codes) if (root / TEST).is_dir() else None
    if test is not None:
        for k, path in _leaks(root, listed.paths, test.ids.tolist()):
            raise UserError(
                f"{origin}: {row.format(k + listed.first_row)}"
                f"{listed.paths[k]} is the test image {path}; remove it from "
                f"the training images or from {root / TEST}"
            )
    elif listed.held_out is not None:
        rest = train.take(np.flatnonzero(~listed.held_out))
        where = f"{origin}: without the images that are {HELD_OUT}"
        lists.check_classes(where, rest.labels, names, rest.true_labels)
    return Source(train, test, names, str(root), held_out=listed.held_out)


def _read_test(root: pathlib.Path, codes: Mapping[str, int]) -> Split:
    """The images below ``test/``, which may lack a class."""
    scanned = _scan(root, TEST)
    scanned.warn()
    strange = [name for name in scanned.names if name not in codes]
    if strange:
        raise UserError(
            f"{root / TEST / strange[0]}: no training image is of this class; "
            "add some or remove the folder"
        )
    labels = [codes[name] for name in scanned.given]
    return file_split(root, scanned.paths, labels, labels)


class _Listing(NamedTuple):
    """The training images, the classes, and where both were found."""

    listed: _Listed
    names: tuple[str, ...]
    origin: str
    scanned: "_Scanned | None"


def _listing(request: ReadRequest, root: pathlib.Path) -> _Listing:
    """The training images by the file of labels or by their folders."""
    if not request.labels_file:
        scanned = _scan(root, _train(root))
        listed = _Listed(scanned.paths, scanned.given)
        return _Listing(listed, scanned.names, str(scanned.base), scanned)
    where = "config.data.labels_file"
    file = user_paths.expanded(request.labels_file, where)
    columns, rows = lists.csv_rows(file, where)
    if not decisions.marked(columns):
        listed = _read_csv(file, columns, rows, root)
        names = _ordered(listed.given + _class_names(listed))
        return _Listing(listed, names, str(file), None)
    # Images without a row keep the labels of their folders.
    scanned = _scan(root, _train(root))
    labels = decisions.applied(
        file, where, scanned.paths, scanned.given, scanned.names
    )
    kept = [
        (path, label)
        for path, label in zip(scanned.paths, labels, strict=True)
        if label is not None
    ]
    listed = _Listed([path for path, _ in kept], [label for _, label in kept])
    return _Listing(listed, scanned.names, str(file), scanned)


def _class_names(listed: _Listed) -> list[str]:
    """True labels that name a class, unless it is among the given ones."""
    return sorted(set(listed.true or []) - {"", WRONG_WORD})


def _check_names(origin: str, names: Sequence[str]) -> None:
    """Refuses names of several lines, and two that look alike."""
    seen: dict[str, str] = {}
    for name in names:
        listing.check_name(name, f"{origin}: class ")
        key = "".join(unicodedata.normalize("NFC", name).split())
        if key in seen:
            raise UserError(
                f"{origin}: classes {seen[key]!r} and {name!r} differ only by "
                "spaces or by how a letter is encoded; write one of them"
            )
        seen[key] = name


def _leaks(
    root: pathlib.Path, paths: Sequence[str], tests: Sequence[str]
) -> Iterator[tuple[int, str]]:
    """Number and test image of each training image that is a test image."""
    files = _identities(_Folders(root), [*tests, *paths])
    held = dict(zip(files, tests, strict=False))
    for k, file in enumerate(files[len(tests) :]):
        if file in held:
            yield k, held[file]


def _identities(folders: _Folders, paths: Sequence[str]) -> list[str]:
    """For each path a text that all spellings of a file share, links too."""
    seen: dict[str, list[str]] = {}
    found = []
    for real in map(folders.real, paths):
        # Some file systems take upper and lower case, or two encodings of a
        # letter, for one.
        alike = seen.setdefault(
            unicodedata.normalize("NFC", real).casefold(), []
        )
        for other in alike:
            if real == other or os.path.samefile(real, other):
                real = other
                break
        else:
            alike.append(real)
        found.append(real)
    return found


def _ordered(names: list[str]) -> tuple[str, ...]:
    """Distinct names, by number where all are numbers, else by text."""
    distinct = sorted(set(names))
    if all(name.isdecimal() and len(name) < 20 for name in distinct):
        distinct.sort(key=lambda name: (int(name), name))
    return tuple(distinct)


class _Scanned(NamedTuple):
    """The images in the class folders of one folder, and what else is there.

    Attributes:
      base: the folder.
      paths: images, relative to the folder of the data set.
      given: class of each.
      names: the classes, in their order.
      loose: files beside the class folders.
      others: see ``listing.Found``.
      dead: see ``listing.Found``.
    """

    base: pathlib.Path
    paths: list[str]
    given: list[str]
    names: tuple[str, ...]
    loose: list[str]
    others: list[str]
    dead: list[str]

    def warn(self) -> None:
        """Says what was left out, in one line each."""
        if self.loose:
            logger.warning(
                "%s: %d files lie in no class folder and are left out, the "
                "first is %s",
                self.base,
                len(self.loose),
                self.loose[0],
            )
        listing.warn(self.base, self.others, self.dead)


def _train(root: pathlib.Path) -> str:
    """Where the class folders of training lie: ``train``, else the root."""
    parts = [part for part in (TRAIN, TEST) if (root / part).is_dir()]
    return TRAIN if parts else ""


def _warn_unread(root: pathlib.Path) -> None:
    """Says that a folder which looks like a test set is not read as one."""
    if (root / TRAIN).is_dir() and not (root / TEST).is_dir():
        for entry in listing.entries(root):
            if entry.name.lower() in _LIKE_TEST and entry.is_dir():
                logger.warning(
                    "%s: is not read; to measure on it, name it %s",
                    entry.path,
                    TEST,
                )


def _check_layout(base: pathlib.Path, part: str, names: Sequence[str]) -> None:
    """Refuses folders of classes that are taken for classes, and one class."""
    for name in names if not part else ():
        wanted = TRAIN if name.lower() in _LIKE_TRAIN else TEST
        if name.lower() in _LIKE_TRAIN | _LIKE_TEST and any(
            entry.is_dir() for entry in listing.entries(base / name)
        ):
            raise UserError(
                f"{base / name}: looks like a folder of classes, not like a "
                f"class; name it {wanted}, beside it {TRAIN} and {TEST} are "
                "read"
            )
    if len(names) == 1 and part != TEST:
        raise UserError(
            f"{base}: holds one class, {names[0]}, at least two are needed; "
            f"expected are {part or TRAIN}/CLASS/*.jpg"
        )


def _scan(root: pathlib.Path, part: str) -> _Scanned:
    """The images below the class folders in ``root/part``."""
    base = root / part
    prefix = f"{part}/" if part else ""
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
            raise UserError(f"{entry.path}: link that leads nowhere; remove it")
    if not names:
        raise UserError(
            f"{base}: holds no class folder; expected are "
            f"{part or TRAIN}/CLASS/*.jpg, or a CSV of labels "
            "(--config.data.labels_file)"
        )
    _check_layout(base, part, names)
    paths: list[str] = []
    given: list[str] = []
    for name in _ordered(names):
        found = listing.find(base / name)
        if not found.images:
            raise UserError(
                f"{base / name}: class {name} has no image; put images there "
                "or remove the folder"
            )
        paths += [f"{prefix}{name}/{path}" for path in found.images]
        given += [name] * len(found.images)
        others += [f"{name}/{path}" for path in found.others]
        dead += [f"{name}/{path}" for path in found.dead]
    return _Scanned(base, paths, given, _ordered(names), loose, others, dead)


def _read_csv(
    file: pathlib.Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    root: pathlib.Path,
) -> _Listed:
    """The rows of a CSV, values without the spaces around them."""
    folders, first_row = _Folders(root), 2
    if _is_row(folders, columns):
        columns, rows, first_row = ["path", "label"], [columns, *rows], 1
    columns = [name.lower() for name in columns]
    place = lists.csv_column(file, columns, lists.PATH_COLUMNS, _WANTED)
    label = lists.csv_column(file, columns, lists.LABEL_COLUMNS, _WANTED)
    known = [place, label] + ["true_label"] * ("true_label" in columns)
    paths, held_out = [], []
    for number, row in enumerate(rows, start=first_row):
        if len(row) > len(columns) and any(row[len(columns) :]):
            raise UserError(
                f"{file}: row {number} has more values than columns"
            )
        found = dict(zip(columns, row, strict=False))
        for column in known:
            # That nothing is known of an image is an empty true label.
            if column not in found or not (
                found[column].strip() or column == "true_label"
            ):
                raise UserError(f"{file}: row {number} has no {column}")
        split = found.get("split", "").strip() or "train"
        if split not in ("train", HELD_OUT):
            raise UserError(
                f"{file}: row {number}: split is {split!r}, neither train nor "
                f"{HELD_OUT}; leave out rows that are not for training"
            )
        held_out.append(split == HELD_OUT)
        paths.append(_path(folders, found[place]))
        listing.check_name(paths[-1])
        if not folders.is_file(paths[-1]):
            raise UserError(
                f"{root / paths[-1]}: no such file, named in row {number} of "
                f"{file}"
            )
    first: dict[str, str] = {}
    identities = _identities(folders, paths)
    for number, (path, real) in enumerate(
        zip(paths, identities, strict=True), start=first_row
    ):
        if real in first:
            raise UserError(f"{file}: row {number} repeats {first[real]}")
        first[real] = path

    def values(column: str) -> list[str]:
        number = columns.index(column)
        return [cells.plain(row[number].strip()) for row in rows]

    return _Listed(
        paths,
        values(label),
        values("true_label") if "true_label" in columns else None,
        np.array(held_out) if any(held_out) else None,
        first_row,
    )


def _is_row(folders: _Folders, columns: Sequence[str]) -> bool:
    """Whether the first line names no columns but an image and its label."""
    named = {*lists.PATH_COLUMNS, *lists.LABEL_COLUMNS} & {*columns}
    return (
        len(columns) == 2
        and not named
        and folders.is_file(_path(folders, columns[0]))
    )


def _path(folders: _Folders, text: str) -> str:
    """A listed path relative to the root, in the spelling of ids."""
    root, exact = folders.root, cells.plain(text)
    text = cells.plain(text.strip())
    if text != exact and folders.is_file(exact):
        text = exact
    if "\\" in text and not folders.is_file(text):
        text = text.replace("\\", "/")  # written on Windows
    if os.path.isabs(text):
        for base in (os.path.abspath(root), os.path.realpath(root)):
            if text.startswith(os.path.join(base, "")):
                text = os.path.relpath(text, base)
    return pathlib.PurePath(text).as_posix()


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
