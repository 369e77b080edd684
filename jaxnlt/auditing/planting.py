"""Labels that are made wrong on purpose, to see how many of such are found.

Uniform errors are easier to find than those that people make: errors are
planted along the confusion that the given labels show themselves.
"""

import dataclasses

import ml_collections
import numpy as np

from jaxnlt.auditing import flags, joint, pilot
from jaxnlt.auditing.joint import share_interval
from jaxnlt.data.records import Dataset, Split
from jaxnlt.runtime import processes
from jaxnlt.runtime.errors import UserError

# Images at which the pilot looks, and their largest side.
_LOOKED_AT, _SIDE = 10_000, 32
# Share of the planted errors that are uniform, whatever is confused.
_UNIFORM = 0.1
# Draws behind an interval.
_DRAWS = 2000


def planted(config: ml_collections.ConfigDict, dataset: Dataset) -> Dataset:
    """The data set with a share of its training labels made wrong.

    Of every class the same share, of labels that nearest neighbours agree
    with; each becomes another class as often as the class is confused with it.

    Args:
      config: ``audit.planted``, ``seed``.
      dataset: not changed.

    Returns:
      The same where nothing is planted.

    Raises:
      UserError: the share is less than one label.
    """
    share, train = config.audit.planted, dataset.train
    if not share:
        return dataset
    rng = np.random.default_rng((config.seed, 4))
    looked_at = np.arange(len(train))
    if len(train) > _LOOKED_AT:
        looked_at = np.sort(rng.choice(len(train), _LOOKED_AT, replace=False))
    given, classes = train.labels[looked_at], dataset.num_classes
    probs = pilot.out_of_sample(
        pilot.knn, _features(train, looked_at), given, classes, config.seed
    )
    agreed = looked_at[probs.argmax(-1) == given]
    rows = _chosen(train.labels, agreed, share, rng)
    if not len(rows):
        raise UserError(
            f"config.audit.planted: {share:g} of {len(train)} labels that "
            "nearest neighbours agree with is less than one; plant more"
        )
    confused = confusion(joint.confident_joint(probs, given))
    labels = train.labels.copy()
    for i in rows:
        labels[i] = rng.choice(classes, p=confused[labels[i]])
    # The last bits of the neighbours' distances may differ between processes.
    labels = processes.decided(lambda: labels)
    return dataclasses.replace(
        dataset,
        train=dataclasses.replace(train, labels=labels),
        given=train.labels,
    )


def _features(train: Split, rows: np.ndarray) -> np.ndarray:
    """Float [n, D]: features as they are, images made small."""
    if train.has_features:
        spread = train.images.std(0)
        mean, one = train.images.mean(0), np.where(spread, spread, 1)
        return (train.images[rows] - mean) / one
    height, width = train.images.shape[1:3]
    step = -(-max(height, width) // _SIDE)
    return np.stack(
        [train.images[i][::step, ::step].ravel() / 255 for i in rows]
    )


def _chosen(
    labels: np.ndarray,
    allowed: np.ndarray,
    share: float,
    rng: np.random.Generator,
) -> np.ndarray:
    """Of each class the share of its labels, at most half of the class."""
    rows = []
    for label in np.unique(labels):
        own = allowed[labels[allowed] == label]
        size = int((labels == label).sum())
        # Halves and less are rounded up as often as they are large.
        count = int(share * size + rng.random())
        count = min(count, size // 2, len(own))
        rows.append(rng.choice(own, count, replace=False))
    return np.sort(np.concatenate(rows)).astype(np.int64)


def confusion(joint_counts: np.ndarray) -> np.ndarray:
    """How a label of each class is made wrong.

    Args:
      joint_counts: float [C, C], given (row) and true class (column).

    Returns:
      float64 [C, C]: row c is the distribution of the wrong labels of samples
      that are truly of class c; its diagonal is 0.
    """
    classes = len(joint_counts)
    others = 1 - np.eye(classes)
    wrong = joint_counts.T * others
    uniform = others / others.sum(1, keepdims=True)
    total = wrong.sum(1, keepdims=True)
    known = np.divide(wrong, total, out=uniform.copy(), where=total > 0)
    return (1 - _UNIFORM) * known + _UNIFORM * uniform


@dataclasses.dataclass(frozen=True)
class Probes:
    """How the audit does on labels that are known to be wrong.

    Attributes:
      planted: how many there were.
      recall: share of them that is flagged, and the 95 % interval.
      precision: estimated share of wrong labels among the flagged ones that
        were not planted, and the 95 % interval; None where none is flagged, or
        where no planted one is ranked low.
    """

    planted: int
    recall: tuple[float, float, float]
    precision: tuple[float, float, float] | None


def probed(labels: np.ndarray, probs: np.ndarray, made: np.ndarray) -> Probes:
    r"""What planted errors tell of the audit.

    Let s be the median margin of the planted errors.  Labels ranked below s are
    taken to be wrong, and errors that were not planted to be as hard to find as
    those that were; of the n flagged labels then so many are wrong:

    .. math:: \frac{n_{m \le s}}{n} \cdot
       \frac{\mathrm{planted}_{flagged}}{\mathrm{planted}_{m \le s}}

    Args:
      labels: int [N] labels that were trained on.
      probs: float [N, C] mean probabilities, no NaN.
      made: bool [N], which labels were planted; at least one.

    Returns:
      The shares; the interval of the precision is that of Poisson counts.
    """
    margin, flagged = flags.margins(probs, labels), flags.learnt(probs, labels)
    low = margin <= np.median(margin[made])
    size, found = int(made.sum()), float(flagged[made].mean())
    recall = (found, *share_interval(found, size))
    counts = [
        int((where & part).sum())
        for where in (made, ~made)
        for part in (low & flagged, low & ~flagged, ~low & flagged)
    ]
    if not counts[0] or not counts[3] + counts[5]:
        return Probes(size, recall, None)
    draws = np.random.default_rng(0).poisson(counts, (_DRAWS, 6))
    ends = np.quantile(_precision(draws), (0.025, 0.975))
    middle = _precision(np.array([counts]))[0]
    return Probes(size, recall, (float(middle), float(ends[0]), float(ends[1])))


def _precision(counts: np.ndarray) -> np.ndarray:
    """Float [n] of int [n, 6], see ``probed``; at most 1."""
    both, low, high, own_both, own_low, own_high = np.maximum(counts, 0).T
    sure, among = own_both + own_low, own_both + own_high
    ratio = (both + high) / np.maximum(both + low, 1)
    return np.minimum(sure / np.maximum(among, 1) * ratio, 1.0)
