"""Which given labels are flagged as wrong: two rules for two kinds of vote."""

import numpy as np

from jaxnlt.auditing import joint as joint_lib
from jaxnlt.auditing.probabilities import Probabilities

# Confident are also samples that are a tenth less sure than their class is: the
# threshold is a mean, which half of the class does not reach.
_SLACK = 0.9
# A class is known where its own samples have so many times the odds that all
# samples have of it; chance gives 1.
_KNOWN_ODDS = 1.25


def margins(probs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    r"""How far the given label is ahead of every other.

    .. math:: m_i = p_{i y_i} - \max_{j \ne y_i} p_{ij}

    Args:
      probs: float [..., N, C] probabilities (or logits, of which the margins
        have no bounds).
      labels: int [N] given labels.

    Returns:
      float64 [..., N] in [-1, 1].
    """
    rows = Probabilities(probs.reshape(-1, probs.shape[-1]))
    given = np.broadcast_to(labels, probs.shape[:-1]).ravel()
    found = rows.own(given) - rows.best_other(given)[0]
    return found.reshape(probs.shape[:-1])


def learnt(probs: np.ndarray | Probabilities, labels: np.ndarray) -> np.ndarray:
    """Flags by the vote of networks that were trained on these labels.

    Such networks lean to the given labels, so that every vote against one
    counts: a label is flagged where the mean vote is for another class.  But
    only in classes that the networks are confident to find wrong labels in at
    all, because rare samples that are right may look like those of a large
    class.

    Args:
      probs: float [N, C] mean probabilities over training.
      labels: int [N] given labels.

    Returns:
      bool [N]; none where the networks have learnt nothing.
    """
    probs = Probabilities.of(probs)
    thresholds = joint_lib.class_thresholds(probs, labels)
    sure = joint_lib.confident_classes(probs, _SLACK * thresholds)
    elsewhere = (sure >= 0) & (sure != labels)
    noisy = np.bincount(labels[elsewhere], minlength=probs.shape[1]) > 0
    known = known_classes(probs, thresholds)
    return outvoted(probs, labels) & noisy[labels] & known[probs.predicted]


def outvoted(probs: Probabilities, labels: np.ndarray) -> np.ndarray:
    """Bool [N]: labels to which another class is preferred."""
    return probs.own(labels) < probs.largest


def known_classes(probs: Probabilities, thresholds: np.ndarray) -> np.ndarray:
    """Classes that the networks tell from the others better than by chance.

    Args:
      probs: of N samples.
      thresholds: float [C], see ``joint.class_thresholds``.

    Returns:
      bool [C]; all False of networks that have learnt nothing.
    """
    own, usual = np.clip(thresholds, 0, 1), probs.usual
    return own * (1 - usual) > _KNOWN_ODDS * usual * (1 - own)


def held_out(
    probs: np.ndarray | Probabilities, labels: np.ndarray
) -> np.ndarray:
    """Flags by probabilities of models that have not seen these labels.

    Such a model errs on hard samples of its own: a label is flagged where the
    model predicts another class and the confident joint prunes it, too.

    Args:
      probs: float [N, C] out-of-sample probabilities.
      labels: int [N] given labels.

    Returns:
      bool [N].
    """
    probs = Probabilities.of(probs)
    joint = joint_lib.confident_joint(probs, labels)
    pruned = joint_lib.prune(probs, labels, joint)
    return pruned & outvoted(probs, labels)
