"""labels.csv: the verdict of a finished run on every training label."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt import selection
from jaxnlt.data import cells, records
from jaxnlt.data.records import Split
from jaxnlt.infer import Votes
from jaxnlt.results.files import atomic

#: The true label in labels.csv of an image whose given label is wrong and
#: whose class is not known.
WRONG = "wrong"


@dataclasses.dataclass(frozen=True)
class Audit:
    """The verdict of the networks on the N training labels.

    Attributes:
      clean_probability: float [N] in [0, 1], belief that the given label is
        right.
      predicted: int [N], the vote.
      suggested: int [N], the given label where it is believed.
    """

    clean_probability: np.ndarray
    predicted: np.ndarray
    suggested: np.ndarray


def audit(history: np.ndarray, votes: Votes, given: np.ndarray) -> Audit:
    """Judges the given labels of the training set.

    Args:
      history: float [h, N] clean probabilities of the last selections.
      votes: mean logits of the vote, and scores behind suggested labels.
      given: int [N] given labels.
    """
    clean = clean_probability(history, votes.scores, given)
    suggested = np.where(clean > 0.5, given, votes.suggested.argmax(-1))
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


def write(
    path: str | pathlib.Path,
    train: Split,
    class_names: Sequence[str],
    audit: Audit,
) -> None:
    """Writes labels.csv, the least trusted label first.

    Probabilities have 6 digits; equal ones keep their order.  A column of true
    labels is there where any is known: ``wrong`` stands for a label that is
    known to be wrong while the true class is not known, and nothing for an
    image that has not been verified.

    Args:
      path: the file, replaced at once or not at all.
      train: N training images.
      class_names: C names, written instead of ids.
      audit: of the training labels.
    """
    order = np.argsort(audit.clean_probability, kind="stable")
    names = np.asarray(class_names, dtype=object)
    ids = np.asarray(train.ids)
    columns: dict[str, list[Any]] = {
        "index" if ids.dtype.kind in "iu" else "path": ids[order].tolist(),
        "given_label": names[train.labels[order]].tolist(),
        "clean_probability": [
            f"{p:.6g}" for p in audit.clean_probability[order].tolist()
        ],
        "predicted_label": names[audit.predicted[order]].tolist(),
        "suggested_label": names[audit.suggested[order]].tolist(),
    }
    if (true := known_truth(train)) is not None:
        # Negative ones name the last class until they are replaced.
        words = names[np.maximum(true[order], -1)]
        words[true[order] == records.WRONG] = WRONG
        words[true[order] == records.UNKNOWN] = ""
        columns["true_label"] = words.tolist()
    with atomic(pathlib.Path(path)) as file:
        cells.write(file, [columns])
        cells.write(file, zip(*columns.values(), strict=True))
