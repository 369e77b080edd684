"""Host-side sample selection: mixtures and centroids in NumPy, float64.

All functions are pure: arrays in, arrays out.  N samples, C classes, D feature
dimensions.
"""

from typing import NamedTuple

import numpy as np
from sklearn.mixture import GaussianMixture

Array = np.ndarray


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
    logits = np.asarray(logits, np.float64)
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    return exp / exp.sum(-1, keepdims=True)


def normalise(rows: Array) -> Array:
    """Divides each row by its Euclidean norm; a zero row stays zero."""
    rows = np.asarray(rows, np.float64)
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return rows / np.maximum(norm, 1e-12)


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
    mixture = GaussianMixture(2, random_state=seed, **settings).fit(values)
    return mixture.predict_proba(values)[:, mixture.means_.argmin()]


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Cross-entropy with integer labels, float64[N], in nats."""
    logits = np.asarray(logits, np.float64)
    shifted = logits - logits.max(-1, keepdims=True)
    log_sum = np.log(np.exp(shifted).sum(-1))
    return log_sum - shifted[np.arange(len(labels)), labels]


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
    for c in range(num_classes):
        members = np.flatnonzero(labels == c)
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
    features = normalise(features)
    confidence = np.minimum(softmax(logits).max(-1), softmax(balanced).max(-1))
    mask = confidence > threshold
    weights = softmax(np.asarray(logits, np.float64) / temperature)
    used = mask if mask.any() else np.ones_like(mask)
    centroids = normalise(weights[used].T @ features[used])
    assignment = softmax(features @ centroids.T)
    own = assignment[np.arange(len(labels)), labels]
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
