"""Host-side sample selection: mixtures and centroids in NumPy, float64.

All functions are pure: arrays in, arrays out.  N samples, C classes, D feature
dimensions.
"""

import functools
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import threadpoolctl
from sklearn.mixture import GaussianMixture

Array = np.ndarray

# Rows of which a copy in float64 is made at a time: it then takes no memory to
# speak of, and stays in the processor's cache.
_ROWS = 1 << 12
# Rows that a sum over samples takes at a time; where there are more, the order
# of additions is that of the blocks.
_SUMMED = 1 << 16


def blocks(size: int, rows: int = _ROWS) -> Iterator[slice]:
    """Consecutive slices of at most so many rows that cover `size` rows."""
    return (slice(i, i + rows) for i in range(0, size, rows))


def class_rows(labels: Array, num_classes: int) -> list[Array]:
    """The rows of every class, in ascending order, found in one pass.

    Args:
      labels: int[N] in 0..C-1.
      num_classes: C.

    Returns:
      C arrays int64[n].
    """
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=num_classes)
    return np.split(order, np.cumsum(counts)[:-1])


def min_max(values: Array) -> Array:
    """Scales values to [0, 1] over the whole array; all equal gives zeros.

    Args:
      values: [N].

    Returns:
      float64[N].
    """
    values = np.asarray(values, np.float64)
    low, high = values.min(), values.max()
    if high == low:
        return np.zeros_like(values)
    return (values - low) / (high - low)


def softmax(logits: Array) -> Array:
    """Softmax along the last axis, in float64."""
    logits = np.asarray(logits)
    probs = np.empty(logits.shape, np.float64)
    flat = probs.reshape(-1, logits.shape[-1])
    rows = logits.reshape(flat.shape)
    for part in blocks(len(rows)):
        some = rows[part].astype(np.float64)
        some -= some.max(-1, keepdims=True)
        np.exp(some, out=some)
        np.divide(some, some.sum(-1, keepdims=True), out=flat[part])
    return probs


def normalise(rows: Array) -> Array:
    """Divides each row by its Euclidean norm; a zero row stays zero."""
    rows = np.asarray(rows)
    unit = np.empty(rows.shape, np.float64)
    for part in blocks(len(rows)):
        some = rows[part].astype(np.float64)
        norm = np.linalg.norm(some, axis=-1, keepdims=True)
        np.divide(some, np.maximum(norm, 1e-12), out=unit[part])
    return unit


def lengths(rows: Array) -> Array:
    """Euclidean norm of each row, float64[N, 1]."""
    norms = np.empty((len(rows), 1))
    for part in blocks(len(rows)):
        some = rows[part].astype(np.float64)
        norms[part] = np.linalg.norm(some, axis=-1, keepdims=True)
    return norms


@functools.cache
def _pools() -> threadpoolctl.ThreadpoolController:
    """The thread pools of the loaded libraries, looked for once."""
    return threadpoolctl.ThreadpoolController()


def one_thread():
    """A context in which NumPy and scikit-learn compute with one thread.

    For sums over samples with a small result, mixtures among them: threads
    that share such a sum wait for each other far longer than they compute, and
    in scikit-learn more than two of them add in an order of chance.
    """
    return _pools().limit(limits=1)


def gmm_probability(values: Array, seed: int = 0, **settings) -> Array:
    """Posterior of the smaller-mean half of a two-component Gaussian mixture.

    Args:
      values: [n] losses.
      seed: random_state of the k-means start.
      **settings: passed to scikit-learn's GaussianMixture.

    Returns:
      float64[n] in [0, 1].  Ones where there is nothing to divide: fewer than
      two samples, or all values equal.
    """
    values = np.asarray(values, np.float64).reshape(-1, 1)
    if len(values) < 2 or np.ptp(values) == 0:
        return np.ones(len(values))
    mixture = GaussianMixture(2, random_state=seed, **settings)
    with one_thread():
        mixture.fit(values)
        return mixture.predict_proba(values)[:, mixture.means_.argmin()]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross-entropy with integer labels, float64[N], in nats."""
    logits, labels = np.asarray(logits), np.asarray(labels)
    losses = np.empty(len(labels))
    for part in blocks(len(labels)):
        shifted = logits[part].astype(np.float64)
        shifted -= shifted.max(-1, keepdims=True)
        own = shifted[np.arange(len(shifted)), labels[part]]
        losses[part] = np.log(np.exp(shifted, out=shifted).sum(-1)) - own
    return losses


def per_class_gmm(values: Array, labels: Array, num_classes: int, seed=0):
    """`gmm_probability` fitted within every given class by itself.

    Args:
      values: [N] losses.
      labels: [N] given labels.
      num_classes: C.
      seed: random_state of every mixture.

    Returns:
      float64[N] clean probability.

    Source: DaSC section 3.2; sfa.md section 6.
    """
    probability = np.ones(len(values))
    for members in class_rows(labels, num_classes):
        probability[members] = gmm_probability(values[members], seed)
    return probability


class DaccScores(NamedTuple):
    """What DaCC computes before its mixtures.

    Attributes:
      mask: bool[N] samples that make the centroids.
      weights: [N, C] share of a sample in each centroid.
      centroids: [C, D] unit rows.
      assignment: [N, C] softmax of the cosines to the centroids.
      losses: [N] minus the assignment to the given label, min-max normalised
        over all samples.
    """

    mask: Array
    weights: Array
    centroids: Array
    assignment: Array
    losses: Array


def dacc_threshold(epoch: int, num_classes: int, growth: float) -> float:
    r"""Confidence threshold :math:`\phi^{epoch} / C`, epoch counted from 0."""
    return growth**epoch / num_classes


def dacc_scores(
    features: Array,
    logits: Array,
    balanced: Array,
    labels: Array,
    threshold: float,
    temperature: float,
) -> DaccScores:
    r"""Distribution-aware class centroids and the distance of each sample.

    .. math:: c_k = \mathrm{norm}\Big(\sum_{i \in M}
       \mathrm{softmax}(z_i/T)_k\, f_i\Big)

    where M holds the samples of which both heads are more confident than the
    threshold.  Given labels play no part in the centroids.

    Args:
      features: [N, D]; normalised here.
      logits: [N, C] of the conventional head, which also makes the weights.
      balanced: [N, C] of the balanced head.
      labels: [N] given labels.
      threshold: strict lower bound of both heads' largest probability.
      temperature: T, divides the logits.

    Returns:
      DaccScores.  When no sample is confident, all make the centroids.

    Source: DaSC section 3.2; papers/dasc.md 6.1, steps 2-5.
    """
    size = len(labels)
    mask, weights = np.empty(size, bool), np.empty(logits.shape)
    for part in blocks(size):
        sure = softmax(logits[part]).max(-1), softmax(balanced[part]).max(-1)
        mask[part] = np.minimum(*sure) > threshold
        scaled = np.asarray(logits[part], np.float64) / temperature
        weights[part] = softmax(scaled)
    used = mask if mask.any() else np.ones_like(mask)
    sums = np.zeros((logits.shape[1], features.shape[1]))
    with one_thread():
        for part in blocks(size, _SUMMED):
            these = used[part]
            sums += weights[part][these].T @ normalise(features[part][these])
    centroids, assignment = normalise(sums), np.empty_like(weights)
    for part in blocks(size, _SUMMED):
        assignment[part] = softmax(normalise(features[part]) @ centroids.T)
    own = assignment[np.arange(size), labels]
    return DaccScores(mask, weights, centroids, assignment, min_max(-own))


def labelled_weights(clean: Array, labelled: Array, aligned: bool) -> Array:
    """Weight of each sample's given label in refinement.

    Args:
      clean: [N] clean probability.
      labelled: int[n] selected rows.
      aligned: whether a selected sample gets its own probability.  DaSC's
        release hands the j-th selected sample the probability of sample j.

    Returns:
      [N] weights; those of unselected rows are not used.

    Source: papers/dasc.md B1.
    """
    if aligned:
        return clean
    weights = clean.copy()
    weights[labelled] = clean[: len(labelled)]
    return weights
