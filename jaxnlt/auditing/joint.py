"""The joint distribution of given and true labels, by confident learning.

Source: Northcutt, Jiang, Chuang, "Confident Learning: Estimating Uncertainty in
Dataset Labels", JAIR 2021, arXiv 1911.00068.
"""

import dataclasses
import math

import numpy as np

from jaxnlt import selection
from jaxnlt.auditing.probabilities import Probabilities

# Smaller probabilities are rounding; they have a logarithm.
_TINY = 1e-9


def class_thresholds(
    probs: np.ndarray | Probabilities, labels: np.ndarray
) -> np.ndarray:
    r"""How sure the networks usually are of each class.

    .. math:: t_j = \mathrm{mean}_{i: y_i = j}\; p_{ij}

    Args:
      probs: float [N, C].
      labels: int [N] given labels.

    Returns:
      float64 [C]; infinite for a class without samples, which no sample
      passes then.

    Source: Northcutt et al. 2021, eq. 2.
    """
    classes = probs.shape[1]
    counts = np.bincount(labels, minlength=classes)
    own = Probabilities.of(probs).own(labels)
    sums = np.bincount(labels, own, minlength=classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def confident_classes(
    probs: np.ndarray | Probabilities, thresholds: np.ndarray
) -> np.ndarray:
    """The class that each sample is confidently of.

    Args:
      probs: float [N, C].
      thresholds: float [C].

    Returns:
      int [N]: of the classes whose threshold is met the most probable one; -1
      where none is met.

    Source: Northcutt et al. 2021, eq. 1.
    """
    probs = Probabilities.of(probs)
    # Rounding must not lift a mean above the equal values that it is of.
    least = thresholds - _TINY
    unmet = probs.largest < least[probs.predicted]
    found = np.where(unmet, -1, probs.predicted)
    # A less probable class may have a lower threshold.
    for part in selection.row_blocks(probs.shape):
        rows = part.start + np.flatnonzero(unmet[part])
        some = probs[rows]
        met = some >= least
        any_met = met.any(-1)
        best = np.where(met[any_met], some[any_met], -1.0).argmax(-1)
        found[rows[any_met]] = best
    return found


def confident_joint(
    probs: np.ndarray | Probabilities, labels: np.ndarray
) -> np.ndarray:
    """Samples by given and by confident class, scaled to the given counts.

    Args:
      probs: float [N, C].
      labels: int [N] given labels.

    Returns:
      float64 [C, C]: rows are given classes and add up to their counts; a class
      of which no sample is confident stands on the diagonal alone.

    Source: Northcutt et al. 2021, eq. 1 and 3.
    """
    classes = probs.shape[1]
    found = confident_classes(probs, class_thresholds(probs, labels))
    sure = found >= 0
    pairs = labels[sure] * classes + found[sure]
    joint = np.bincount(pairs, minlength=classes**2).astype(np.float64)
    joint = joint.reshape(classes, classes)
    empty = joint.sum(1) == 0
    joint[empty, empty] = 1.0
    counts = np.bincount(labels, minlength=classes)
    return joint / joint.sum(1, keepdims=True) * counts[:, None]


def prune(
    probs: np.ndarray | Probabilities, labels: np.ndarray, joint: np.ndarray
) -> np.ndarray:
    """Flags as many samples of every given class as the joint says are wrong.

    Of the samples given as y, those flagged for another class j are the
    ``joint[y, j]`` ones with the largest ``p_j - p_y``.

    Args:
      probs: float [N, C].
      labels: int [N] given labels.
      joint: float [C, C], see ``confident_joint``.

    Returns:
      bool [N].

    Source: Northcutt et al. 2021, section 3.2, method 4 (prune by noise rate).
    """
    flagged = np.zeros(len(labels), bool)
    for given, rows in enumerate(selection.class_rows(labels, len(joint))):
        own = probs[rows, given]
        for other, count in enumerate(np.rint(joint[given]).astype(int)):
            if other != given and count:
                margins = probs[rows, other] - own
                order = np.argsort(-margins, kind="stable")
                flagged[rows[order[:count]]] = True
    return flagged


@dataclasses.dataclass(frozen=True)
class NoiseEstimate:
    """How many of the given labels are wrong, by class.

    Attributes:
      rate: share of wrong labels.
      low: lower end of the 95 % interval of the rate.
      high: upper end of it.
      joint: float64 [C, C], share of all labels by given (row) and likely true
        class (column); adds up to 1.
    """

    rate: float
    low: float
    high: float
    joint: np.ndarray


def noise_estimate(
    labels: np.ndarray,
    alternatives: np.ndarray,
    clean_probability: np.ndarray,
    classes: int,
) -> NoiseEstimate:
    r"""The noise that calibrated probabilities add up to.

    .. math:: Q_{yj} = \frac{1}{N} \sum_{i: y_i = y} [y = j] c_i
       + [a_i = j] (1 - c_i)

    Args:
      labels: int [N] given labels, N > 0.
      alternatives: int [N], the most probable class but the given one.
      clean_probability: float [N].
      classes: C.

    Returns:
      The estimate; its interval is that of a share of N labels.
    """
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels, labels), clean_probability)
    np.add.at(joint, (labels, alternatives), 1 - clean_probability)
    rate = float(np.mean(1 - clean_probability))
    low, high = share_interval(rate, len(labels))
    return NoiseEstimate(rate, low, high, joint / len(labels))


def share_interval(share: float, size: int) -> tuple[float, float]:
    r"""The 95 % interval of a share.

    .. math:: \frac{s + z^2/2n \pm z \sqrt{s(1-s)/n + z^2/4n^2}}{1 + z^2/n},
       \quad z = 1.96

    Args:
      share: s, observed.
      size: n of at least 1.

    Returns:
      Its ends, in [0, 1].

    Source: Wilson, "Probable Inference", JASA 1927.
    """
    z = 1.96
    middle = share + z**2 / (2 * size)
    half = z * math.sqrt(share * (1 - share) / size + z**2 / (4 * size**2))
    whole = 1 + z**2 / size
    return max(0.0, (middle - half) / whole), min(1.0, (middle + half) / whole)
