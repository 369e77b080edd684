"""UNICON's selection: disagreement with the label, evened out over classes.

NumPy, float64; all functions are pure.  N samples, C classes.
"""

from collections.abc import Sequence

import numpy as np

from jaxnlt import divergences, selection

Array = np.ndarray

#: config.unicon.jsd_log -> what a disagreement in nats is divided by.
UNITS = {"2": np.log(2), "e": 1.0}


def disagreement(logits: Sequence[Array], labels: Array, log: str) -> Array:
    """Jensen-Shannon divergence of label and mean prediction.

    Args:
      logits: of every network, [N, C].
      labels: [N] given labels.
      log: '2' for [0, 1], 'e' for [0, ln 2], as the release.

    Returns:
      float64[N].

    Source: UNICON eq. 2; papers/unicon.md section 3.
    """
    one_hot, scores = np.eye(np.shape(logits[0])[1]), np.empty(len(labels))
    for part in selection.blocks(len(labels)):
        probs = np.mean([selection.softmax(z[part]) for z in logits], axis=0)
        scores[part] = divergences.jsd(probs, one_hot[labels[part]])
    return scores / UNITS[log]


def cutoff(scores: Array, limit: float, tau: float) -> float:
    r"""Disagreement below which a sample counts for the share of clean ones.

    The mean; where that exceeds the limit, :math:`\bar d - (\bar d - \min
    d)/\tau`.

    Args:
      scores: [N] disagreements.
      limit: d_u.
      tau: how far the cutoff then moves to the smallest score, at least 1.

    Returns:
      The cutoff.

    Source: UNICON section 3.2; papers/unicon.md section 3.
    """
    mean = float(np.mean(scores))
    if mean > limit:
        mean -= (mean - float(np.min(scores))) / tau
    return mean


def select_uniform(
    scores: Array,
    labels: Array,
    num_classes: int,
    share: float,
    repeat_index_0: bool,
) -> Array:
    """The same number of least disagreeing samples of every given class.

    Args:
      scores: [N] disagreements.
      labels: [N] given labels.
      num_classes: C.
      share: of all samples that are to be selected; a class that is too small
        gives all it has.
      repeat_index_0: whether the places that stay free, of int(share N),
        repeat sample 0, and the only sample of a class its class's, as the
        release does.

    Returns:
      int64[n] selected rows, class by class.

    Source: UNICON section 3.2; papers/unicon.md section 4.
    """
    total = int(share * len(labels))
    per_class = int(share * len(labels) / num_classes)
    rows = []
    for members in selection.class_rows(labels, num_classes):
        chosen = members
        if len(members) >= per_class:
            order = np.argsort(scores[members], kind="stable")
            chosen = members[order[:per_class]]
        if repeat_index_0 and len(members) == 1:
            chosen = np.repeat(members, per_class)
        rows.append(chosen)
    selected = np.concatenate(rows)
    if repeat_index_0:
        free = np.zeros(total - len(selected), np.int64)
        selected = np.concatenate([selected, free])
    return selected


def refinement_weights(scores: Array) -> Array:
    """Weight of the given label: 1 below a disagreement of 1/2, else 1 - d.

    Source: papers/unicon.md section 4.
    """
    return np.where(scores < 0.5, 1.0, 1.0 - scores)


def unlabelled_batch(batch_size: int, share: float, rounded: bool) -> int:
    """Unlabelled rows a step, so that both sides pass at the same pace.

    Args:
      batch_size: B, labelled rows a step.
      share: of all samples that are selected.
      rounded: to a multiple of 8 in [B/2, 2 B], so that few programs are
        compiled; else int(B / (2 share)), at least 1.

    Returns:
      Rows a step.

    Source: papers/unicon.md section 1.
    """
    wanted = batch_size / (2 * share) if share else float("inf")
    if not rounded:
        return max(1, int(min(wanted, 2.0**20)))
    low, high = max(8, batch_size // 2), max(8, 2 * batch_size)
    return 8 * round(min(max(wanted, low), high) / 8)
