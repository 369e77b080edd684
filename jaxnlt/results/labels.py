"""labels.csv: the verdict of a finished run on every training label."""

import importlib
import importlib.util
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt.auditing import verdict
from jaxnlt.auditing.verdict import UNREADABLE, Audit
from jaxnlt.data import cells, records, untrusted
from jaxnlt.data.readers import lists
from jaxnlt.data.records import Split
from jaxnlt.runtime.errors import UserError
from jaxnlt.runtime.files import atomic

#: A table, column by column; None is an empty cell.
Columns = dict[str, list[Any]]

# Columns that are no text, and what every labels.csv has besides an id.
_FLAGS = ("is_label_issue",)
_NUMBERS = ("predicted_probability", "margin")
_SHARES = ("label_quality", "clean_probability")
_IDS = (
    "index",
    "given_index",
    "predicted_index",
    "suggested_index",
    "true_index",
)
_NEEDED = (
    "given_label",
    *_FLAGS,
    *_SHARES,
    "predicted_label",
    "predicted_probability",
    "suggested_label",
    "issue_kind",
)


def known_truth(train: Split) -> np.ndarray | None:
    """True labels, int [N]; None where nothing is known of any image."""
    verified, _ = records.verdicts(train)
    return train.true_labels if verified.any() else None


def with_unreadable(
    train: Split, audit: Audit, unreadable: Split | None
) -> tuple[Split, Audit]:
    """Adds the images that were left out of training as unreadable.

    Args:
      train: N training images.
      audit: of their labels.
      unreadable: n images; None for none.

    Returns:
      N + n images, without pixels, and their audit.
    """
    if unreadable is None:
        return train, audit
    nothing = verdict.unreadable(unreadable.labels)
    return _joined(train, unreadable), audit.joined(nothing)


def columns(
    train: Split,
    class_names: Sequence[str],
    audit: Audit,
    held_out: tuple[Split, Audit] | None = None,
) -> Columns:
    """The columns of labels.csv, the worst label first.

    Names of classes stand in ``..._label``, their ids in ``..._index``.  True
    labels are there where any is known: ``wrong`` stands for a label that is
    known to be wrong while the true class is not known, and nothing for an
    image that has not been verified; neither has an id.  A column ``split``
    tells images that are held out from the others.  Images that cannot be read
    come last, predicted as ``unreadable``, without numbers.

    Args:
      train: N training images.
      class_names: C names.
      audit: of the training labels.
      held_out: images of the training set that no network was trained on, and
        the audit of their labels; None where there are none.

    Returns:
      The columns in their order, lists of str, bool, int, float and None.
    """
    parts = np.array(["train"] * len(train), dtype=object)
    if held_out is not None:
        parts = np.append(parts, [records.HELD_OUT] * len(held_out[0]))
        train, audit = _joined(train, held_out[0]), audit.joined(held_out[1])
    # NaN comes last.
    order = np.argsort(audit.label_quality, kind="stable")
    audit, given, ids = (
        audit.take(order),
        train.labels[order],
        np.asarray(train.ids)[order],
    )
    names = np.asarray(class_names, dtype=object)
    lost = ~audit.readable
    table: Columns = {
        "index" if ids.dtype.kind in "iu" else "path": ids.tolist(),
        "given_label": names[given].tolist(),
        "is_label_issue": audit.is_label_issue.tolist(),
        # So many digits tell the labels of any set apart.
        "label_quality": _numbers(audit.label_quality, 12),
        "clean_probability": _numbers(audit.clean_probability),
        "predicted_label": np.where(
            lost, UNREADABLE, names[audit.predicted]
        ).tolist(),
        "predicted_probability": _numbers(audit.predicted_probability),
        "suggested_label": names[audit.suggested].tolist(),
        "margin": _numbers(audit.margin),
        "issue_kind": audit.issue_kind.tolist(),
    }
    true = known_truth(train)
    if true is not None:
        true = true[order]
        # Negative ones name the last class until they are replaced.
        words = names[np.maximum(true, -1)]
        words[true == records.WRONG] = records.WRONG_WORD
        words[true == records.UNKNOWN] = ""
        table["true_label"] = words.tolist()
    if held_out is not None:
        table["split"] = parts[order].tolist()
    table["given_index"] = given.tolist()
    table["predicted_index"] = _ids(np.where(lost, -1, audit.predicted))
    table["suggested_index"] = audit.suggested.tolist()
    if true is not None:
        table["true_index"] = _ids(true)
    return table


def _numbers(values: np.ndarray, decimals: int = 6) -> list[float | None]:
    numbers: list[float | None] = np.round(values, decimals).tolist()
    for i in np.flatnonzero(np.isnan(values)).tolist():
        numbers[i] = None
    return numbers


def _ids(classes: np.ndarray) -> list[int | None]:
    ids: list[int | None] = classes.tolist()
    for i in np.flatnonzero(classes < 0).tolist():
        ids[i] = None
    return ids


def write(path: str | pathlib.Path, table: Columns) -> None:
    """Writes labels.csv, and labels.parquet beside it if pyarrow is there.

    Args:
      path: the file, replaced at once or not at all.
      table: what ``columns`` returned.
    """
    path = pathlib.Path(path)
    with atomic(path) as file:
        cells.write_table(file, table)
    other = path.with_suffix(".parquet")
    # That of an earlier run must not contradict the new file.
    other.unlink(missing_ok=True)
    if importlib.util.find_spec("pyarrow") is None:
        return
    arrow = importlib.import_module("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    with atomic(other, binary=True) as file:
        parquet.write_table(arrow.table(table), file)


def _joined(one: Split, other: Split) -> Split:
    """Two parts of one training set, without their images."""
    true = None
    if one.true_labels is not None and other.true_labels is not None:
        true = np.append(one.true_labels, other.true_labels)
    return Split(
        None,
        np.append(one.labels, other.labels),
        true,
        np.append(one.ids, other.ids),
    )


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a run's labels.csv.

    Args:
      path: the file; a spreadsheet may have written it again.

    Returns:
      Its columns: bool, float64 (NaN where a cell is empty), int64 of indices
      (``records.UNKNOWN`` where it is) and objects that are str.

    Raises:
      UserError: it is missing, damaged or of an older version; the row at
        fault is named.
    """
    file = pathlib.Path(path)
    names, rows = lists.csv_rows(file, "labels.csv")
    key = lists.csv_column(file, names, ("index", "path"), "index|path,...")
    lacking = [name for name in _NEEDED if name not in names]
    if lacking:
        raise UserError(
            f"{file}: has no column {lacking[0]}; it is no labels.csv of this "
            "version, finish the run anew in another --workdir"
        )
    for number, row in enumerate(rows, 2):
        if len(row) != len(names):
            raise UserError(
                f"{file}: row {number} has {len(row)} values, the first line "
                f"{len(names)}; restore the file that the run wrote"
            )
    table = {
        name: _column(file, name, texts)
        for name, texts in zip(names, zip(*rows, strict=True), strict=True)
    }
    seen: dict[object, int] = {}
    for number, value in enumerate(table[key].tolist(), 2):
        if seen.setdefault(value, number) != number:
            raise UserError(
                f"{file}: row {number} repeats {key} {value!r} of row "
                f"{seen[value]}; remove one of them"
            )
    return table


def _column(file: pathlib.Path, name: str, texts: Sequence[str]) -> np.ndarray:
    """The values of one column, see ``read``."""
    kinds: dict[str, tuple[Any, Any, str]] = {
        **dict.fromkeys(_FLAGS, (_flag, bool, "True or False")),
        **dict.fromkeys(_NUMBERS, (_number, np.float64, "a number")),
        **dict.fromkeys(_SHARES, (_share, np.float64, "a number in [0, 1]")),
        **dict.fromkeys(_IDS, (_index, np.int64, "a whole number from 0")),
    }
    if name not in kinds:
        return np.array([cells.plain(text) for text in texts], object)
    parse, dtype, wanted = kinds[name]
    values = []
    for number, text in enumerate(texts, 2):
        try:
            values.append(parse(cells.plain(text.strip())))
        except (ValueError, KeyError):
            raise UserError(
                f"{file}: row {number}: {name} is {untrusted.shown(text)}, "
                f"not {wanted}; restore the file that the run wrote"
            ) from None
    return np.array(values, dtype)


def _flag(text: str) -> bool:
    # Spreadsheets write them in capitals.
    return {"true": True, "false": False}[text.lower()]


def _number(text: str) -> float:
    value = float(text) if text else math.nan
    if text and not math.isfinite(value):
        raise ValueError
    return value


def _share(text: str) -> float:
    value = _number(text)
    if value < 0 or value > 1:
        raise ValueError
    return value


def _index(text: str) -> int:
    if not text:
        return records.UNKNOWN
    # More digits than any number of images has.
    if not text.isascii() or not text.isdecimal() or len(text) > 18:
        raise ValueError
    return int(text)
