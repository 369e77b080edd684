"""The audit of labels by anyone's probabilities."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt.auditing import verdict
from jaxnlt.runtime.errors import UserError

# How far the probabilities of a sample may miss the sum of 1.
_SLACK = 1e-3


def audit(
    labels: Any,
    pred_probs: Any,
    *,
    class_names: Sequence[Any] | None = None,
    held_out: bool = True,
) -> verdict.Audit:
    """Judges labels by the probabilities of any model.

    >>> import jaxnlt
    >>> probs = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.9, 0.1]]
    >>> found = jaxnlt.audit([0, 0, 1, 1, 1], probs)
    >>> found.is_label_issue.tolist()
    [False, False, False, False, True]
    >>> found.suggested.tolist()
    [0, 0, 1, 1, 0]

    Args:
      labels: [N] given labels: integers in 0..C-1, or values of
        ``class_names``.
      pred_probs: float [N, C] probabilities.
      class_names: C values in the order of the columns of ``pred_probs``; None
        where labels are integers.
      held_out: whether the model that gave a sample's probabilities had not
        seen its label, as in cross-validation.  Of a model that has been
        trained on the labels, probabilities averaged over its training tell
        much more than those at its end.

    Returns:
      The verdict: ranking, flags, calibrated probabilities; classes are
      integers.

    Raises:
      UserError: the arrays do not fit each other, or are no labels and
        probabilities.
    """
    probs = _probabilities(pred_probs)
    given = _indices(labels, probs, class_names)
    return verdict.of_training(given, probs, None, held_out)


def _probabilities(pred_probs: Any) -> np.ndarray:
    """float64 [N, C], checked."""
    try:
        probs = np.asarray(pred_probs, np.float64)
    except (TypeError, ValueError):
        probs = np.zeros(0)
    if probs.ndim != 2 or not len(probs) or probs.shape[1] < 2:
        raise UserError(
            "pred_probs: must be numbers of shape (samples, classes), at least "
            f"one and two, is of shape {np.shape(pred_probs)}"
        )
    for bad, what in (
        (~np.isfinite(probs).all(1), "holds a value that is not finite"),
        ((probs < 0).any(1), "holds a negative value; give probabilities"),
        (
            np.abs(probs.sum(1) - 1) > _SLACK,
            "does not add up to 1; give probabilities, not logits",
        ),
    ):
        if bad.any():
            raise UserError(f"pred_probs: row {bad.argmax()} {what}")
    return probs


def _indices(
    labels: Any, probs: np.ndarray, class_names: Sequence[Any] | None
) -> np.ndarray:
    """Int [N] columns of the given labels, checked."""
    given, classes = np.asarray(labels), probs.shape[1]
    if given.shape != probs.shape[:1]:
        raise UserError(
            f"labels: must be of shape ({len(probs)},), one for each row of "
            f"pred_probs, is of shape {given.shape}"
        )
    if class_names is not None:
        if len(class_names) != classes:
            raise UserError(
                f"class_names: names {len(class_names)} classes, pred_probs "
                f"has {classes} columns"
            )
        columns = {name: i for i, name in enumerate(class_names)}
        unknown = [name for name in given.tolist() if name not in columns]
        if unknown:
            raise UserError(f"labels: {unknown[0]!r} is not one of class_names")
        return np.array([columns[name] for name in given.tolist()])
    if given.dtype.kind not in "iu":
        raise UserError(
            "labels: must be integers, columns of pred_probs; for others give "
            "class_names"
        )
    if given.min() < 0 or given.max() >= classes:
        wrong = given.min() if given.min() < 0 else given.max()
        raise UserError(
            f"labels: {wrong} is no column of pred_probs, which has {classes}"
        )
    return given.astype(np.int64)
