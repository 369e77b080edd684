"""Precision, recall and F1, every class counting the same; top-k accuracy."""

import numpy as np


def confusion(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """How often each class is taken for which.

    Args:
      predicted: int [N].
      labels: int [N] true labels.
      num_classes: C.

    Returns:
      int64 [C, C], a row a true class.
    """
    pairs = np.asarray(labels) * num_classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def macro_scores(matrix: np.ndarray) -> dict[str, float]:
    """Means over the classes of precision, recall and F1, as fractions.

    A class that is never predicted has precision 0; one that is neither
    predicted nor there is left out, as by scikit-learn.

    Args:
      matrix: what `confusion` returns.

    Returns:
      `macro_precision`, `macro_recall`, `macro_f1`.

    Source: papers/smr.md section 12.
    """
    right = np.diag(matrix).astype(np.float64)
    there, predicted = matrix.sum(1), matrix.sum(0)
    met = there + predicted > 0
    shares = {
        "macro_precision": right / np.maximum(predicted, 1),
        "macro_recall": right / np.maximum(there, 1),
        "macro_f1": 2 * right / np.maximum(there + predicted, 1),
    }
    return {name: float(share[met].mean()) for name, share in shares.items()}


def top_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of images whose label is among the ``k`` highest scores.

    Of equal scores the smaller class goes first, as in an argmax, so that
    classes told apart by nothing never make more than ``k`` hits; NaN goes
    last.

    Args:
      scores: float [N, C], the vote's result.
      labels: int [N] true labels.
      k: how many classes are looked at; all of them where C is smaller.

    Returns:
      A fraction in [0, 1].

    Source: papers/smr.md section 12, papers/sfa.md section 8.
    """
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    return float((order == np.asarray(labels)[:, None]).any(1).mean())
