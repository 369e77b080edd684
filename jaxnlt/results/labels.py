"""TODO."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt import selection
from jaxnlt.data import files
from jaxnlt.data.nlt import protocol
from jaxnlt.results import files as result_files

#: The true label in labels.csv of an image whose given label is wrong and
#: whose class is not known.
WRONG = "wrong"


def clean_probability(
    history: np.ndarray, scores: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """Belief that each given label is right.

    The mean over the last selections of all networks, for one mixture's
    posterior flags too much; without selections, the voted probability of the
    given label.

    Args:
      history: [h, N] clean probabilities of the last selections.
      scores: [N, C] mean logits of the vote.
      given: int[N] given labels.

    Returns:
      float[N] in [0, 1].
    """
    if len(history):
        return history.mean(0, dtype=np.float64)
    probs = selection.softmax(scores)
    return probs[np.arange(len(given)), given]


def write_labels_csv(
    path: str | pathlib.Path,
    ids: np.ndarray,
    given: np.ndarray,
    class_names: Sequence[str],
    clean_probability: np.ndarray,
    predicted: np.ndarray,
    suggested: np.ndarray,
    true: np.ndarray | None = None,
) -> None:
    """Writes the audit of the labels, the least trusted first.

    Args:
      path: the file, replaced at once or not at all.
      ids: [N] official indices (int) or relative paths (str).
      given: int [N] given labels.
      class_names: C names, written instead of ids.
      clean_probability: float [N] in [0, 1], written with 6 digits; equal
        ones keep their order.
      predicted: int [N] the networks' vote.
      suggested: int [N] suggested labels.
      true: int [N] where known, else no such column; ``nlt.WRONG`` is written
        as ``wrong``, ``files.UNKNOWN`` as nothing.
    """
    ids = np.asarray(ids)
    order = np.argsort(clean_probability, kind="stable")
    names = np.asarray(class_names, dtype=object)
    columns: dict[str, list[Any]] = {
        "index" if ids.dtype.kind in "iu" else "path": ids[order].tolist(),
        "given_label": names[given[order]].tolist(),
        "clean_probability": [
            f"{p:.6g}" for p in clean_probability[order].tolist()
        ],
        "predicted_label": names[predicted[order]].tolist(),
        "suggested_label": names[suggested[order]].tolist(),
    }
    if true is not None:
        # Negative ones name the last class until they are replaced.
        words = names[np.maximum(true[order], -1)]
        words[true[order] == protocol.WRONG] = WRONG
        words[true[order] == files.UNKNOWN] = ""
        columns["true_label"] = words.tolist()
    with result_files.atomic(pathlib.Path(path)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))
