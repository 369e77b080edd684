"""The user's own images in a folder, with a folder for each class.

``train/CLASS/*.jpg`` and optionally ``test/CLASS/*.jpg``.  A CSV with the
columns ``path`` (relative to the folder), ``label`` and optionally
``true_label`` and ``split`` may list the training images instead, the
labels.csv of a run too; ``train/`` is then not scanned.  A CSV of ``decisions``
corrects the labels of ``train/``.
"""

import concurrent.futures
import contextlib
import dataclasses
import itertools
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

#: Side in pixels of the largest images that are held in memory as they are.
IN_MEMORY = 96
# Images at whose size is looked, in all and in each folder.
_LOOKED_AT, _LOOKED_AT_EACH = 1000, 20
# Decoding releases Python's lock, so threads help.
_THREADS = 8
_WANTED = "path,label[,true_label][,split]"


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
    """The listed images: paths, given and true labels, who is held out."""

    paths: list[str]
    given: list[str]
    true: list[str] | None = None
    held_out: np.ndarray | None = None


def fits_in_memory(request: ReadRequest) -> bool:
    """Whether the images are small and of one size, or will be resized to one.

    Looks at the headers of some images in every folder.

    Args:
      request: ``path`` and ``image_size``.

    Returns:
      False where they are to be streamed; True where there is nothing to see.

    Raises:
      UserError: there is no such folder.
    """
    root = lists.folder(request.path)
    if request.image_size:
        return True
    sizes: set[tuple[int, int]] = set()
    for path in itertools.islice(_some_images(root), _LOOKED_AT):
        # Readers name unreadable images.
        with contextlib.suppress(decode.BadImage), decode.opened(path) as image:
            sizes.add(image.size)
    return len(sizes) <= 1 and all(max(size) <= IN_MEMORY for size in sizes)


def _some_images(root: pathlib.Path) -> Iterator[pathlib.Path]:
    """A few image files of every folder, links to folders not followed."""
    for place, _, names in os.walk(root):
        images = (
            name
            for name in sorted(names)
            if os.path.splitext(name)[1].lower() in decode.SUFFIXES
        )
        for name in itertools.islice(images, _LOOKED_AT_EACH):
            yield pathlib.Path(place, name)


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
    row = ""
    if request.labels_file:
        file = user_paths.expanded(
            request.labels_file, "config.data.labels_file"
        )
        columns, rows = lists.csv_rows(file, "config.data.labels_file")
        if decisions.marked(columns):
            listed, names = _corrected(file, root)
            origin = str(file)
        else:
            listed = _read_csv(file, columns, rows, root)
            names = _ordered(listed.given + _class_names(listed))
            origin, row = str(file), "row {}: "
    else:
        paths, given, names = _scan(root, "train")
        listed, origin = _Listed(paths, given), str(root / "train")
    _check_spaces(origin, names)
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
    test = _read_test(root, codes) if (root / "test").is_dir() else None
    if test is not None:
        for k, path in _leaks(root, listed.paths, test.ids.tolist()):
            raise UserError(
                f"{origin}: {row.format(k + 2)}{listed.paths[k]} is the test "
                f"image {path}; remove it from the training images or from "
                f"{root / 'test'}"
            )
    elif listed.held_out is not None:
        rest = train.take(np.flatnonzero(~listed.held_out))
        where = f"{origin}: without the images that are {HELD_OUT}"
        lists.check_classes(where, rest.labels, names, rest.true_labels)
    return Source(train, test, names, str(root), held_out=listed.held_out)


def _read_test(root: pathlib.Path, codes: Mapping[str, int]) -> Split:
    """The images below ``test/``, which may lack a class."""
    paths, given, found = _scan(root, "test")
    strange = [name for name in found if name not in codes]
    if strange:
        raise UserError(
            f"{root / 'test' / strange[0]}: no training image is of this class"
        )
    labels = [codes[name] for name in given]
    return file_split(root, paths, labels, labels)


def _class_names(listed: _Listed) -> list[str]:
    """True labels that name a class, unless it is among the given ones."""
    return sorted(set(listed.true or []) - {"", WRONG_WORD})


def _check_spaces(origin: str, names: Sequence[str]) -> None:
    """Refuses two classes whose names look alike."""
    seen: dict[str, str] = {}
    for name in names:
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


def _corrected(
    file: pathlib.Path, root: pathlib.Path
) -> tuple[_Listed, tuple[str, ...]]:
    """The images below ``train/`` after a file of decisions, and the classes.

    Images without a row keep the labels of their folders.
    """
    paths, given, names = _scan(root, "train")
    labels = decisions.applied(
        file, "config.data.labels_file", paths, given, names
    )
    kept = [
        (path, label)
        for path, label in zip(paths, labels, strict=True)
        if label is not None
    ]
    return _Listed([p for p, _ in kept], [label for _, label in kept]), names


def _read_csv(
    file: pathlib.Path,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    root: pathlib.Path,
) -> _Listed:
    """The rows of a CSV, values without the spaces around them."""
    place = lists.csv_column(file, columns, lists.PATH_COLUMNS, _WANTED)
    label = lists.csv_column(file, columns, lists.LABEL_COLUMNS, _WANTED)
    known = [place, label] + ["true_label"] * ("true_label" in columns)
    folders = _Folders(root)
    paths, held_out = [], []
    for number, row in enumerate(rows, start=2):
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
        if not folders.is_file(paths[-1]):
            raise UserError(
                f"{root / paths[-1]}: no such file, named in row {number} of "
                f"{file}"
            )
    first: dict[str, str] = {}
    identities = _identities(folders, paths)
    for number, (path, real) in enumerate(
        zip(paths, identities, strict=True), start=2
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
    )


def _path(folders: _Folders, text: str) -> str:
    """A listed path relative to the root, in the spelling of ids."""
    root, exact = folders.root, cells.plain(text)
    text = cells.plain(text.strip())
    if text != exact and folders.is_file(exact):
        text = exact
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
