"""labels.csv: the verdict of a finished run on every training label."""

import dataclasses
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt import selection
from jaxnlt.data import cells, records, untrusted
from jaxnlt.data.readers import lists
from jaxnlt.data.records import Split
from jaxnlt.infer import Votes
from jaxnlt.runtime.errors import UserError
from jaxnlt.runtime.files import atomic

#: The predicted label of an image that cannot be read.
UNREADABLE = "unreadable"

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


@dataclasses.dataclass(frozen=True)
class Audit:
    """The verdict of the networks on the N training labels.

    Attributes:
      clean_probability: float [N] in [0, 1], belief that the given label is
        right; NaN for an image that cannot be read.
      predicted: int [N], the vote.
      suggested: int [N], the given label where it is believed.
    """

    clean_probability: np.ndarray
    predicted: np.ndarray
    suggested: np.ndarray

    def joined(self, other: "Audit") -> "Audit":
        """This audit and that of further labels."""
        return Audit(
            np.append(self.clean_probability, other.clean_probability),
            np.append(self.predicted, other.predicted),
            np.append(self.suggested, other.suggested),
        )

    def take(self, rows: np.ndarray) -> "Audit":
        """The verdict on the labels of the given rows, in their order."""
        return Audit(
            self.clean_probability[rows],
            self.predicted[rows],
            self.suggested[rows],
        )


def audit(history: np.ndarray, votes: Votes, given: np.ndarray) -> Audit:
    """Judges the given labels of the training set.

    Args:
      history: float [h, N] clean probabilities of the last selections.
      votes: mean logits of the vote, NaN for images that could not be read,
        and scores behind suggested labels.
      given: int [N] given labels.
    """
    clean = clean_probability(history, votes.scores, given)
    unreadable = np.isnan(votes.scores).any(-1)
    clean = np.where(unreadable, np.nan, clean)
    suggested = np.where(
        (clean > 0.5) | unreadable, given, votes.suggested.argmax(-1)
    )
    return Audit(clean, votes.scores.argmax(-1), suggested)


def clean_probability(
    history: np.ndarray, scores: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """Belief that each given label is right.

    The mean over the last selections of all networks, because the posterior of
    a single mixture flags too many labels; without selections, the voted
    probability of the given label.

    Args:
      history: float [h, N] clean probabilities of the last selections.
      scores: float [N, C] mean logits of the vote.
      given: int [N] given labels.

    Returns:
      float [N] in [0, 1].
    """
    if len(history):
        return history.mean(0, dtype=np.float64)
    probs = selection.softmax(scores)
    return probs[np.arange(len(given)), given]


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
    labels = unreadable.labels
    nothing = Audit(np.full(len(labels), np.nan), labels, labels)
    return _joined(train, unreadable), audit.joined(nothing)


def write(
    path: str | pathlib.Path,
    train: Split,
    class_names: Sequence[str],
    audit: Audit,
    held_out: tuple[Split, Audit] | None = None,
) -> None:
    """Writes labels.csv, the least trusted label first.

    Probabilities have 6 digits; equal ones keep their order.  A column of true
    labels is there where any is known: ``wrong`` stands for a label that is
    known to be wrong while the true class is not known, and nothing for an
    image that has not been verified.  A column ``split`` tells images that are
    held out from the others.  Images that cannot be read come last, predicted
    as ``unreadable``, without a probability.

    Args:
      path: the file, replaced at once or not at all.
      train: N training images.
      class_names: C names, written instead of ids.
      audit: of the training labels.
      held_out: images of the training set that no network was trained on, and
        the audit of their labels; None where there are none.
    """
    parts = np.array(["train"] * len(train), dtype=object)
    if held_out is not None:
        parts = np.append(parts, [records.HELD_OUT] * len(held_out[0]))
        train, audit = _joined(train, held_out[0]), audit.joined(held_out[1])
    order = np.argsort(audit.clean_probability, kind="stable")
    names = np.asarray(class_names, dtype=object)
    ids = np.asarray(train.ids)
    columns: dict[str, list[Any]] = {
        "index" if ids.dtype.kind in "iu" else "path": ids[order].tolist(),
        "given_label": names[train.labels[order]].tolist(),
        "clean_probability": [
            "" if math.isnan(p) else f"{p:.6g}"
            for p in audit.clean_probability[order].tolist()
        ],
        "predicted_label": np.where(
            np.isnan(audit.clean_probability[order]),
            UNREADABLE,
            names[audit.predicted[order]],
        ).tolist(),
        "suggested_label": names[audit.suggested[order]].tolist(),
    }
    if (true := known_truth(train)) is not None:
        # Negative ones name the last class until they are replaced.
        words = names[np.maximum(true[order], -1)]
        words[true[order] == records.WRONG] = records.WRONG_WORD
        words[true[order] == records.UNKNOWN] = ""
        columns["true_label"] = words.tolist()
    if held_out is not None:
        columns["split"] = parts[order].tolist()
    with atomic(pathlib.Path(path)) as file:
        cells.write(file, [columns])
        cells.write(file, zip(*columns.values(), strict=True))


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
