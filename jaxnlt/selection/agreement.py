"""Whether a selector and the networks' vote find the same labels right."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from jaxnlt.selection import scores


def mean_prediction(
    logits: Sequence[Num[np.ndarray, "N C"]],
) -> Int[np.ndarray, "N"]:
    r"""The class :math:`\arg\max_c \sum_h \mathrm{softmax}(z_h)_{ic}`.

    Args:
      logits: of every head h that votes, of every network.

    Returns:
      int64[N].
    """
    predicted = np.empty(len(logits[0]), np.int64)
    for part in scores.row_blocks(logits[0].shape):
        probs = sum(scores.softmax(head[part]) for head in logits)
        predicted[part] = np.argmax(probs, axis=-1)
    return predicted


def combined(
    trusted: Bool[np.ndarray, "N"], agrees: Bool[np.ndarray, "N"], by: str
) -> Bool[np.ndarray, "N"]:
    """Labels that are trusted where two judge them.

    Args:
      trusted: [N] by the selector.
      agrees: [N] by the vote.
      by: ``selector`` alone, ``both``, or ``either``.

    Returns:
      bool[N].
    """
    if by == "selector":
        return trusted
    return trusted & agrees if by == "both" else trusted | agrees


def filled(
    trusted: Bool[np.ndarray, "N"],
    belief: Float[np.ndarray, "N"],
    labels: Int[np.ndarray, "N"],
    num_classes: int,
    least: float,
) -> Bool[np.ndarray, "N"]:
    r"""At least a share of every given class, the likeliest labels first.

    A class of n samples of which fewer than :math:`\lceil s n \rceil` are
    trusted gets those of the largest belief that are not, until it has so many.

    Args:
      trusted: [N].
      belief: [N] that the given label is right; of equals the first row.
      labels: [N] given labels.
      num_classes: C.
      least: s, the share.

    Returns:
      bool[N], a copy.
    """
    found = trusted.copy()
    for members in scores.class_rows(labels, num_classes):
        others = members[~trusted[members]]
        # A product such as .1 * 30 may lie just above the whole number.
        wanted = np.ceil(least * len(members) - 1e-9)
        lacking = int(wanted) - (len(members) - len(others))
        order = np.argsort(-belief[others], kind="stable")
        found[others[order[: max(0, lacking)]]] = True
    return found
