"""What the readers share: folders, lists of files, checks of labels."""

import csv
import functools
import io
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from jaxnlt.data import listing, untrusted
from jaxnlt.data.files import file_split
from jaxnlt.data.records import (
    UNKNOWN,
    ListedImage,
    ReadRequest,
    Source,
    Split,
)
from jaxnlt.runtime import paths as user_paths
from jaxnlt.runtime.errors import UserError, logger

T = TypeVar("T")

# Names of a column, the first that is there counts: those of a run's labels.csv
# come after those that a person adds to it.
PATH_COLUMNS = ("path", "filename", "image")
LABEL_COLUMNS = ("label", "given_label", "suggested_label")


class RawSet(NamedTuple):
    """The images that a data set's raw files list.

    Attributes:
      class_names: C names in the order of the labels.
      images: for each class the training images under its label, in a fixed
        order, without those in ``web``.
      web: for each class the images of the web with its label; C empty lists
        where the data set does not separate them.
      test: the test images.
    """

    class_names: tuple[str, ...]
    images: list[list[ListedImage]]
    web: list[list[ListedImage]]
    test: list[ListedImage]


def described(
    read: Callable[[ReadRequest], Source],
) -> Callable[[ReadRequest], Source]:
    """Adds to a reader's errors where its files are described.

    Args:
      read: a reader.

    Returns:
      The same reader; its errors end with the benchmark's homepage.
    """

    @functools.wraps(read)
    def wrapped(request: ReadRequest) -> Source:
        try:
            return read(request)
        except UserError as error:
            raise UserError(
                f"{error}; its files are described at "
                f"{request.benchmark.homepage}"
            ) from None

    return wrapped


# Folders ---------------------------------------------------------------------


def usual_places() -> list[pathlib.Path]:
    """Folders that are searched where no path is given."""
    tfds = os.environ.get("TFDS_DATA_DIR")
    return [
        pathlib.Path("data"),
        pathlib.Path(os.path.expanduser("~/data")),
        pathlib.Path(os.path.expanduser("~/tensorflow_datasets")),
        *([pathlib.Path(tfds)] if tfds else []),
    ]


def existing(path: str) -> pathlib.Path:
    """The file or folder that the user names.

    Args:
      path: ``config.data.path``.

    Returns:
      The same, ``~`` expanded.

    Raises:
      UserError: it does not exist.
    """
    given = user_paths.expanded(path, "config.data.path")
    listing.check_name(given)
    if not given.exists():
        raise UserError(f"config.data.path: {given}: does not exist")
    return given


def folder(path: str) -> pathlib.Path:
    """The folder that the user names.

    Args:
      path: ``config.data.path``.

    Returns:
      The same, ``~`` expanded.

    Raises:
      UserError: none is named, or it does not exist.
    """
    if not path:
        raise UserError("config.data.path: is missing, it names the folder")
    root = user_paths.expanded(path, "config.data.path")
    listing.check_name(root)
    if not root.is_dir():
        raise UserError(f"config.data.path: {root}: no such folder")
    return root


def locate(
    root: pathlib.Path, places: Sequence[str], inside: str = ""
) -> pathlib.Path:
    """The first of several places that exists.

    Args:
      root: the folder of all files.
      places: folders relative to it, in the order in which they are tried.
      inside: a file or folder that the place must hold.

    Returns:
      The place.

    Raises:
      UserError: there is none.
    """
    for place in places:
        if os.path.exists(root / place / inside):
            return root / place
    more = ", ".join(str(pathlib.Path(p) / inside) for p in places[1:])
    raise UserError(
        f"{root / places[0] / inside}: no such file or folder"
        + (f", nor {more} below {root}" if more else "")
    )


def jpegs(folder: pathlib.Path) -> list[pathlib.Path]:
    """JPEG files in a folder and in all folders below it, sorted.

    Args:
      folder: followed through links, see ``listing.find``.

    Returns:
      At least one path.

    Raises:
      UserError: there is no such folder or no such file in it; a name is not
        UTF-8.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    found = listing.find(folder, (".jpg", ".jpeg")).images
    if not found:
        raise UserError(f"{folder}: holds no JPEG image")
    return [folder / path for path in found]


def check_folders(
    root: pathlib.Path, paths: Sequence[str], file: pathlib.Path
) -> None:
    """Refuses a list whose folders do not exist; looks at no image.

    Args:
      root: the folder of the images.
      paths: listed images, relative to it.
      file: the list, for the message.

    Raises:
      UserError: the first folder that is missing.
    """
    for name in sorted({path.rpartition("/")[0] for path in paths}):
        # Unlike pathlib's, it does not raise at names that cannot be.
        if not os.path.isdir(root / name):
            raise UserError(
                f"{root / name}: no such folder, {file} lists images in it"
            )


# Lists -----------------------------------------------------------------------


def read_text(file: pathlib.Path) -> str:
    """Reads a text file.

    Args:
      file: in UTF-8.

    Returns:
      Its content, lines end in a newline.

    Raises:
      UserError: it is missing, no regular file, or not a text in UTF-8.
    """
    text = untrusted.read_text(file)
    return text.replace("\r\n", "\n").replace("\r", "\n")


def read_lines(
    file: pathlib.Path,
    parse: Callable[[str], T | None],
    expected: str,
    header: bool = False,
) -> list[T]:
    """Reads a list, a line for each entry.

    Args:
      file: the list.
      parse: makes an entry of a line; None if the line is wrong.
      expected: what a line holds, for the message.
      header: whether the first line is left out.

    Returns:
      The entries; empty lines give none.

    Raises:
      UserError: the list is missing, no text or empty, or a line is wrong.
    """
    # splitlines would also split at characters that names may hold.
    lines = read_text(file).split("\n")
    values = []
    for number, line in enumerate(lines[header:], start=1 + header):
        if not line.strip():
            continue
        value = parse(line.strip())
        if value is None:
            raise UserError(
                f"{file}: line {number}: {untrusted.shown(line.strip())} is "
                f"not {expected}"
            )
        values.append(value)
    if not values:
        raise UserError(f"{file}: lists nothing")
    return values


def read_labels(file: pathlib.Path, classes: int) -> dict[str, int]:
    """Reads a list with lines ``path label``.

    Args:
      file: the list.
      classes: a label must be smaller than this.

    Returns:
      Labels by path, see ``first_labels``.

    Raises:
      UserError: the list is missing, no text or empty, or a line is wrong.
    """

    def parse(line: str) -> tuple[str, int] | None:
        name, _, label = line.rpartition(" ")
        if not name or not label.isdecimal() or len(label) > 9:
            return None
        return (name.strip(), int(label)) if int(label) < classes else None

    expected = f"a path and a label in 0..{classes - 1}"
    return first_labels(file, read_lines(file, parse, expected))


def first_labels(
    file: pathlib.Path, listed: Sequence[tuple[str, int]]
) -> dict[str, int]:
    """Labels by image; of an image that is listed twice the first.

    Args:
      file: the list, for the warning.
      listed: its images with their labels.

    Returns:
      Labels by image.
    """
    labels: dict[str, int] = {}
    for name, label in listed:
        labels.setdefault(name, label)
    if len(labels) < len(listed):
        logger.warning(
            "%s: lists %d images more than once; the first label is used",
            file,
            len(listed) - len(labels),
        )
    return labels


def csv_rows(
    file: pathlib.Path, field: str
) -> tuple[list[str], list[list[str]]]:
    """Reads a CSV whose first line names its columns.

    Args:
      file: in UTF-8, values separated by commas; or by semicolons or tabs, as
        spreadsheets write it in some languages, where the first line has no
        comma.
      field: the field that names the file, for messages.

    Returns:
      The names of the columns, and at least one row, for ``cells.plain``; empty
      rows are left out.

    Raises:
      UserError: unreadable, no regular file, no CSV, without rows, or with two
        columns of one name.
    """
    text = untrusted.read_text(file, field)
    try:
        with io.StringIO(text, newline="") as stream:
            reader = csv.reader(stream, delimiter=_delimiter(text))
            columns = [name.strip() for name in next(reader, [])]
            rows = [row for row in reader if row]
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV in UTF-8 ({error})") from None
    for name in columns:
        if name and columns.count(name) > 1:
            raise UserError(f"{file}: two columns are called {name}")
    if columns and not rows:
        raise UserError(f"{file}: lists no image")
    return columns, rows


def _delimiter(text: str) -> str:
    first = text[: text.find("\n")]
    return next((sign for sign in ",;\t" if sign in first), ",")


def csv_column(
    file: pathlib.Path,
    columns: Sequence[str],
    names: Sequence[str],
    wanted: str,
) -> str:
    """The first of several names that a column has.

    Args:
      file: the CSV, for messages.
      columns: names of its columns.
      names: in the order in which they are looked for.
      wanted: the first line as it should be, for the message.

    Returns:
      The name; unless it is the first, labels are said to be of that column.

    Raises:
      UserError: no column has one of the names.
    """
    for name in names:
        if name in columns:
            if name in LABEL_COLUMNS[1:]:
                logger.info("%s: labels are those of the column %s", file, name)
            return name
    raise UserError(
        f"{file}: no column {names[0]} (nor {', '.join(names[1:])}); the first "
        f"line must name the columns {wanted}"
    )


# Splits ----------------------------------------------------------------------


def integers(where: str, values: object) -> np.ndarray:
    """The integers of an array or of a list in a file.

    Args:
      where: what holds them, for the message.
      values: a numpy array, or a list or tuple of integers.

    Returns:
      The array; int64 [N] of a list.

    Raises:
      UserError: a list holds something else, or an integer beyond 64 bits.
    """
    if isinstance(values, np.ndarray):
        return values
    if not isinstance(values, list | tuple):
        raise UserError(f"{where}: must be a list of integers")
    for row, value in enumerate(values):
        # A list of lists could be endless; True is an int in Python.
        if (
            not isinstance(value, int | np.integer)
            or isinstance(value, bool)
            or not -(2**63) <= value < 2**63
        ):
            raise UserError(
                f"{where}: must be integers, number {row} is "
                f"{untrusted.shown(value)}"
            )
    return np.array(values, np.int64)


def numbered_classes(where: str, *labels: np.ndarray) -> tuple[str, ...]:
    """Names of classes that are known by their numbers alone.

    Args:
      where: what holds the labels, for the message.
      *labels: int [N] of at least 0, of the same images.

    Returns:
      '0', '1' and so on to the largest label.

    Raises:
      UserError: there are more classes than labels, so that some have no
        image; no list of names is made then.
    """
    top = max(int(part.max()) for part in labels)
    if top >= sum(map(len, labels)):
        given = np.unique(np.concatenate(labels))
        gaps = np.flatnonzero(given != np.arange(len(given)))
        first = int(gaps[0]) if len(gaps) else len(given)
        raise UserError(
            f"{where}: class {first} has no image, the largest label is {top}; "
            "labels are the numbers of the classes, from 0 without gaps"
        )
    return tuple(map(str, range(top + 1)))


def check_range(where: str, labels: np.ndarray, names: Sequence[str]) -> None:
    """Refuses no labels, and labels outside 0..C-1.

    Args:
      where: what holds them, for the message.
      labels: int [N].
      names: C class names.

    Raises:
      UserError: naming the smallest and the largest label.
    """
    if not len(labels):
        raise UserError(f"{where}: holds no image of these classes")
    if labels.min() < 0 or labels.max() >= len(names):
        raise UserError(
            f"{where}: must be in 0..{len(names) - 1}, reach from "
            f"{labels.min()} to {labels.max()}"
        )


def check_classes(
    where: str,
    labels: np.ndarray,
    names: Sequence[str],
    true_labels: np.ndarray | None = None,
) -> None:
    """Refuses labels that do not go with their classes.

    Args:
      where: what holds them, for the message.
      labels: int [N].
      names: C class names.
      true_labels: int [N]; a class that only these name, as its given labels
        are all wrong, is one of the data.

    Raises:
      UserError: a label is outside 0..C-1, a class has no image, or there are
        fewer than two classes.
    """
    check_range(where, labels, names)
    counts = np.bincount(labels, minlength=len(names))
    if true_labels is not None:
        known = true_labels[true_labels >= 0]
        counts += np.bincount(known, minlength=len(names))
    empty = np.flatnonzero(counts == 0)
    if len(empty):
        raise UserError(f"{where}: class {names[empty[0]]} has no image")
    if len(names) < 2:
        raise UserError(f"{where}: holds one class, at least two are needed")


def check_some(where: str, labels: np.ndarray) -> None:
    """Refuses a set without images.

    Args:
      where: the set, for the message.
      labels: int [N].

    Raises:
      UserError: N is 0.
    """
    if not len(labels):
        raise UserError(f"{where}: has no image")


def labelled_split(
    root: pathlib.Path,
    labels: Mapping[str, int],
    names: tuple[str, ...],
    file: pathlib.Path,
    right: bool = False,
) -> Split:
    """A split of listed files, sorted by path.

    Args:
      root: the folder of the images.
      labels: given labels by path.
      names: C class names.
      file: the list, for messages.
      right: whether the labels are the true ones, as those of test sets,
        which may lack a class.

    Returns:
      The split.

    Raises:
      UserError: a folder is missing, or a class has no training image.
    """
    paths = sorted(labels)
    check_folders(root, paths, file)
    given = [labels[path] for path in paths]
    split = file_split(root, paths, given, given if right else None)
    check = check_range if right else check_classes
    check(str(file), split.labels, names)
    return split


def raw_source(root: pathlib.Path, raw: RawSet) -> Source:
    """The source of a raw set, its images sorted by path.

    Args:
      root: the folder that the paths are relative to.
      raw: the listed images; those in ``web`` are left out.

    Returns:
      The source.

    Raises:
      UserError: a class has no training image, or there is no test image.
    """

    def split(images: Sequence[ListedImage]) -> Split:
        images = sorted(images, key=lambda image: image.path)
        true = [image.true_label for image in images]
        return file_split(
            root,
            [image.path for image in images],
            [image.label for image in images],
            [UNKNOWN if label is None else label for label in true],
        )

    train = split([image for images in raw.images for image in images])
    test = split(raw.test)
    check_classes(str(root), train.labels, raw.class_names)
    check_range(f"{root}: test images", test.labels, raw.class_names)
    return Source(train, test, raw.class_names, str(root))
