"""Lists of given labels in the forms in which they are passed around.

JSON, ``.npy``, ``.npz`` and ``.csv``, chosen by the ending of the name; JSON is
what any other name holds.
"""

import os
import pathlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnlt.data import cells, decisions, untrusted
from jaxnlt.data.readers import lists
from jaxnlt.data.records import labels_array
from jaxnlt.runtime.errors import UserError

_FIELD = "config.data.noise_file"
_WANTED = "index (or path) and label"
_PARTS = ("ids", "labels")


class LabelList(NamedTuple):
    """A list of given labels.

    Attributes:
      labels: int32 [N].
      ids: N, number or path of the image of each; None where the labels stand
        in official order.
      source_sha256: of the set that the list is made for, see
        ``fingerprint.of_source``; None where the list does not tell.
    """

    labels: np.ndarray
    ids: list[Any] | None = None
    source_sha256: str | None = None


def read(path: str | os.PathLike, class_names: Sequence[str]) -> LabelList:
    """Reads a list of given labels.

    Args:
      path: JSON or npz, either one list of labels, or an object (arrays) with
        ``ids`` and ``labels`` and optionally ``class_names`` and
        ``source_sha256``; npy, one list; or CSV, with the columns of a run's
        labels.csv of which ``index`` or ``path`` and a label suffice.
      class_names: C names, those of the data.

    Returns:
      The list.

    Raises:
      UserError: unreadable or of another form, labels that are no integers, out
        of range or of other classes, ids that are not as many as labels or not
        distinct.
    """
    file = pathlib.Path(path)
    ending = file.suffix.lower()
    if ending in (".pt", ".pth"):
        raise UserError(
            f"{_FIELD}: {file}: is a PyTorch file; human labels are read by "
            "--config.data.noise=human:worse --config.data.labels_file="
            f"{file}"
        )
    if ending == ".csv":
        return _read_csv(file, class_names)
    others = {".npy": _read_npy, ".npz": _read_npz}
    content = others.get(ending, _read_json)(file)
    if not isinstance(content, dict):
        return LabelList(_checked(file, content, class_names))
    names = content.get("class_names", list(class_names))
    _check_names(file, names, class_names)
    return LabelList(
        _checked(file, content["labels"], class_names),
        content["ids"],
        content.get("source_sha256"),
    )


def _read_json(file: pathlib.Path) -> Any:
    """A list, or an object that holds the lists ``ids`` and ``labels``."""
    content = untrusted.read_json(file, _FIELD)
    if isinstance(content, list) or (
        isinstance(content, dict)
        and all(isinstance(content.get(key), list) for key in _PARTS)
    ):
        return content
    raise UserError(
        f"{file}: neither a list of labels nor an object with the lists "
        "ids and labels"
    )


def _read_npy(file: pathlib.Path) -> Any:
    try:
        return untrusted.parse_npy(untrusted.read_bytes(file, field=_FIELD))
    except untrusted.Refused as error:
        raise UserError(f"{file}: {error}") from None


def _read_npz(file: pathlib.Path) -> Any:
    """The only array, or lists by name."""
    arrays, _ = untrusted.read_npz(file)
    if all(key in arrays for key in _PARTS):
        labels = arrays.pop("labels")
        return {k: v.tolist() for k, v in arrays.items()} | {"labels": labels}
    if len(arrays) == 1:
        return next(iter(arrays.values()))
    raise UserError(
        f"{file}: holds the arrays {', '.join(arrays)}, needed is one, or ids "
        "and labels; human labels of CIFAR-N are read by "
        f"--config.data.noise=human:worse --config.data.labels_file={file}"
    )


def _read_csv(file: pathlib.Path, class_names: Sequence[str]) -> LabelList:
    """The columns of images and labels; labels are names, or else numbers."""
    columns, rows = lists.csv_rows(file, _FIELD)
    if decisions.marked(columns):
        raise UserError(
            f"{_FIELD}: {file}: holds decisions on some labels; python -m "
            f"jaxnlt.clean --workdir=RUN --review={file} --out=DIR makes a "
            "whole list of them"
        )
    places = ("index", *lists.PATH_COLUMNS)
    place = lists.csv_column(file, columns, places, _WANTED)
    label = lists.csv_column(file, columns, lists.LABEL_COLUMNS, _WANTED)

    def values(column: str) -> list[str]:
        at = columns.index(column)
        for number, row in enumerate(rows, start=2):
            if len(row) <= at or not row[at].strip():
                raise UserError(f"{file}: row {number} has no {column}")
        return [cells.plain(row[at].strip()) for row in rows]

    def whole(column: str, texts: list[str], what: str) -> list[int]:
        for number, text in enumerate(texts, start=2):
            # More digits than any number of images or classes has.
            if not text.isdecimal() or len(text) > 18:
                raise UserError(
                    f"{file}: row {number}: {column} is {text!r}, {what}"
                )
        return [int(text) for text in texts]

    found, names = (
        values(label),
        {name: k for k, name in enumerate(class_names)},
    )
    if names.keys() >= set(found):
        labels = [names[text] for text in found]
    else:
        labels = whole(label, found, "no class of the data and no number")
    ids: list[Any] = [
        pathlib.PurePath(text).as_posix() for text in values(place)
    ]
    if place == "index":
        ids = whole(place, values(place), "no number of an image")
    return LabelList(_checked(file, labels, class_names), ids)


def _check_names(file: pathlib.Path, names: Any, wanted: Sequence[str]) -> None:
    """Refuses a list whose label codes stand for other classes."""
    if not isinstance(names, list) or len(names) != len(wanted):
        count = len(names) if isinstance(names, list) else "no list of"
        raise UserError(
            f"{file}: class_names: holds {count} names, the data have "
            f"{len(wanted)} classes"
        )
    for code, (name, other) in enumerate(zip(names, wanted, strict=True)):
        if name != other:
            raise UserError(
                f"{file}: class_names: label {code} is {name!r} there and "
                f"{other!r} in the data; a list of other classes, or in "
                "another order of them"
            )


def _checked(
    file: pathlib.Path,
    values: Sequence[Any] | np.ndarray,
    class_names: Sequence[str],
) -> np.ndarray:
    """The labels, int32 [N]."""
    if isinstance(values, np.ndarray):
        if values.dtype.kind not in "iu" or values.ndim != 1:
            raise UserError(
                f"{file}: labels must be one list of integers, are "
                f"{values.dtype} of shape {values.shape}"
            )
        values = values.tolist()
    for row, value in enumerate(values):
        # True and False are ints in Python.
        if not isinstance(value, int) or isinstance(value, bool):
            raise UserError(
                f"{file}: labels must be integers, number {row} is "
                f"{untrusted.shown(value)}"
            )
        if not 0 <= value < len(class_names):
            raise UserError(
                f"{file}: labels must be in 0..{len(class_names) - 1}, number "
                f"{row} is {untrusted.shown(value)}"
            )
    return labels_array(values)
