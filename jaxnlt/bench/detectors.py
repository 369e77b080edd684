"""Detectors of wrong labels by what they read, and how they judge.

A detector is an agreement function between outputs and given label, and an
aggregation over epochs, of outputs in-sample (of a network that was trained on
the image) or out-of-sample (of a classifier that was not).

Source of the order: arXiv 2510.16211.
"""

import importlib
import importlib.util
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from jaxnlt import auditing, selection
from jaxnlt.auditing import pilot
from jaxnlt.auditing.flags import margins
from jaxnlt.bench.detection import Verdict
from jaxnlt.runtime.errors import UserError


class Row(NamedTuple):
    """A line of the table without its figures.

    Attributes:
      detector: its name.
      agreement: between outputs and given label.
      aggregation: over epochs, or over folds.
      sample: ``in`` or ``out``.
    """

    detector: str
    agreement: str
    aggregation: str
    sample: str


# Agreement --------------------------------------------------------------------


def probability_margin(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """``margins`` of the probabilities; arguments as there."""
    return margins(selection.softmax(logits), labels)


def probability(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The given label's probability; arguments as of ``margins``."""
    return selection.softmax(logits)[..., np.arange(len(labels)), labels]


def negative_loss(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the cross-entropy; arguments as of ``margins``."""
    high = np.max(logits, -1, keepdims=True)
    total = np.log(np.exp(logits - high).sum(-1)) + high[..., 0]
    return logits[..., np.arange(len(labels)), labels] - total


def negative_entropy(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Minus the entropy of the outputs, whatever the label."""
    del labels
    probs = selection.softmax(logits)
    return (probs * np.log(np.maximum(probs, 1e-30))).sum(-1)


AGREEMENTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "logit margin": margins,
    "probability margin": probability_margin,
    "probability": probability,
    "loss": negative_loss,
    "entropy": negative_entropy,
}

#: Aggregation -> the epochs, of E, whose mean is taken.
AGGREGATIONS: dict[str, Callable[[int], slice]] = {
    "last epoch": lambda epochs: slice(epochs - 1, epochs),
    "second half": lambda epochs: slice(epochs // 2, epochs),
    "all epochs": lambda epochs: slice(0, epochs),
}

#: What some of them are called.
_KNOWN = {
    ("logit margin", "all epochs"): "AUM",
    ("loss", "last epoch"): "small loss",
    ("probability", "all epochs"): "mean probability",
}


def in_sample(
    method: str, logits: np.ndarray, labels: np.ndarray
) -> dict[Row, Verdict]:
    """Every agreement under every aggregation.

    Args:
      method: that trained the networks, for the rows' names.
      logits: float [E, N, C] of the vote after each epoch.
      labels: int [N] given labels.
    """
    found = {}
    for agreement, agree in AGREEMENTS.items():
        values = agree(logits, labels)
        for aggregation, epochs in AGGREGATIONS.items():
            name = _KNOWN.get((agreement, aggregation), "")
            row = Row(f"{method} {name}".strip(), agreement, aggregation, "in")
            found[row] = Verdict(values[epochs(len(logits))].mean(0))
    return found


# Out of sample ----------------------------------------------------------------


def logistic_regression(dimensions: int) -> Pipeline:
    """Logistic regression on all features."""
    del dimensions
    return make_pipeline(LogisticRegression(max_iter=1000))


CLASSIFIERS: dict[str, Callable[[int], Pipeline]] = {
    "kNN": pilot.knn,
    "logistic regression": logistic_regression,
}


def audit(
    source: str, probs: np.ndarray, labels: np.ndarray
) -> dict[Row, Verdict]:
    """Our ranking and flags on the same; arguments as of ``cleanlab``."""
    found = auditing.audit(labels, probs)
    row = Row(f"jaxnlt.audit {source}", "probability margin", "", "out")
    return {
        row: Verdict(
            found.label_quality, found.is_label_issue, found.clean_probability
        )
    }


def cleanlab(
    source: str, probs: np.ndarray, labels: np.ndarray
) -> dict[Row, Verdict]:
    """The rankings and flags of cleanlab on out-of-sample probabilities.

    Args:
      source: of the probabilities, for the row's name.
      probs: float [N, C].
      labels: int [N] given labels.

    Raises:
      UserError: cleanlab is not installed.
    """
    if importlib.util.find_spec("cleanlab") is None:
        raise UserError("cleanlab: is not installed; pip install jaxnlt[bench]")
    flags = importlib.import_module("cleanlab.filter")
    rank = importlib.import_module("cleanlab.rank")
    found = {}
    # Its default filter goes with its default ranking, and another pair.
    for ranking, flagging in (
        ("self_confidence", "prune_by_noise_rate"),
        ("normalized_margin", "confident_learning"),
    ):
        row = Row(f"cleanlab {source}", ranking, flagging, "out")
        found[row] = Verdict(
            rank.get_label_quality_scores(labels, probs, method=ranking),
            flags.find_label_issues(
                labels, probs, filter_by=flagging, n_jobs=1
            ),
        )
    return found
