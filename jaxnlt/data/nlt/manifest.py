"""What the builder of the NLT benchmarks leaves: ``read_manifest`` reads it."""

import csv
import io
import os
import pathlib
import shutil
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from jaxnlt.data.nlt.protocol import SOURCES, WRONG, Row
from jaxnlt.data.records import labels_array
from jaxnlt.runtime.errors import UserError

COLUMNS = ("path", "label", "true_label", "source")
CLASSES = "classes.txt"


class Manifest(NamedTuple):
    """A list of images with their labels.

    Attributes:
      paths: N paths relative to the raw folder, with ``/``.
      labels: int32 [N], given labels.
      true_labels: int32 [N], ``nlt.WRONG`` (-1) where the given label is
        known to be wrong but the true class is not known; None unless it is
        known of every image whether its label is right.
      sources: N of ``nlt.SOURCES``.  The authors keep what is ``imagenet`` or
        ``swap`` as squares of 84 pixels, a reader of the raw files has to
        shrink these before anything else.
      class_names: C names in the order of the labels.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    true_labels: np.ndarray | None
    sources: tuple[str, ...]
    class_names: tuple[str, ...]


def read_manifest(path: str | os.PathLike) -> Manifest:
    """Reads ``manifest.csv`` or ``test.csv`` of the builder.

    Args:
      path: the file; ``classes.txt`` lies beside it.

    Returns:
      Its content, in the order of the file.

    Raises:
      UserError: a missing file, or one that the builder has not written; the
        line is named.
    """
    file = pathlib.Path(path).expanduser()
    names = tuple(read_text(file.with_name(CLASSES)).splitlines())
    try:
        lines = list(csv.reader(io.StringIO(read_text(file), newline="")))
    except csv.Error as error:
        raise UserError(f"{file}: not a CSV ({error})") from None
    if not lines or tuple(lines[0]) != COLUMNS:
        raise UserError(f"{file}: the first line must be {','.join(COLUMNS)}")
    known = {str(k): k for k in range(len(names))}
    truths = {**known, str(WRONG): WRONG, "": None}
    rows = []
    for number, fields in enumerate(lines[1:], start=2):
        if (
            len(fields) != len(COLUMNS)
            or not fields[0]
            or fields[1] not in known
            or fields[2] not in truths
            or fields[3] not in SOURCES
        ):
            raise UserError(
                f"{file}: line {number} is not a path, a label below "
                f"{len(names)}, a true label and a source"
            )
        label, true = known[fields[1]], truths[fields[2]]
        rows.append(Row(fields[0], label, true, fields[3]))
    if not rows:
        raise UserError(f"{file}: lists no image")
    true_labels = None
    if all(row.true_label is not None for row in rows):
        true_labels = labels_array([row.true_label for row in rows])
    return Manifest(
        tuple(row.path for row in rows),
        labels_array([row.label for row in rows]),
        true_labels,
        tuple(row.source for row in rows),
        names,
    )


def read_text(file: pathlib.Path) -> str:
    """The text of a UTF-8 file.

    Args:
      file: where it lies.

    Returns:
      Its content.

    Raises:
      UserError: it is missing or no such text.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: not a text in UTF-8 ({error})") from None


def write(
    out: pathlib.Path,
    train: Sequence[Row],
    test: Sequence[Row],
    class_names: Sequence[str],
) -> None:
    """Writes the folder of a benchmark; it appears at once or not at all.

    ``manifest.csv`` and ``test.csv`` for ``read_manifest``, ``labels.csv``
    for the benchmark ``folder``, with the true labels only where the class
    of every image is known, and ``classes.txt``.

    Args:
      out: the folder; it must not exist or be empty.
      train: N images.
      test: test images.
      class_names: C names.

    Raises:
      UserError: it cannot be written.
    """
    out = out.absolute()
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    known = all(row.true_label not in (None, WRONG) for row in train)
    columns = COLUMNS[: 3 if known else 2]
    contents = {
        "manifest.csv": _table(COLUMNS, train),
        "test.csv": _table(COLUMNS, test),
        "labels.csv": _table(columns, (row[: len(columns)] for row in train)),
        CLASSES: "".join(f"{name}\n" for name in class_names),
    }
    try:
        temporary.mkdir()
        for name, text in contents.items():
            (temporary / name).write_text(text, encoding="utf-8", newline="")
        os.replace(temporary, out)
    except OSError as error:
        raise UserError(
            f"--out: {out}: cannot be written ({error.strerror})"
        ) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _table(columns: Sequence[str], rows: Iterable[tuple]) -> str:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)  # None becomes an empty field
    return text.getvalue()
