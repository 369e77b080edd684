"""Class centroids of features and what is measured against them, on the host.

NumPy, float64; all functions are pure.  N samples, C classes, D feature
dimensions.
"""

from collections.abc import Iterator

import numpy as np

Array = np.ndarray


def centred_unit(features: Array, centre: Array | None = None) -> Array:
    r"""The CL2N transform :math:`(f_i - \mu) / \lVert f_i - \mu \rVert`.

    Args:
      features: [N, D].
      centre: [D]; None takes the mean of all rows.

    Returns:
      float64[N, D] unit rows; a row on the centre itself stays zero.

    Source: SimpleShot (Wang et al. 2019), section 2; papers/sfa.md section 6.
    """
    features = np.asarray(features)
    if centre is None:
        centre = features.mean(0, dtype=np.float64)
    rows = np.empty(features.shape, np.float64)
    for part in blocks(len(rows)):
        rows[part] = normalise(features[part] - centre)
    return rows


def class_means(
    rows: Array, labels: Array, num_classes: int, mask: Array
) -> tuple[Array, Array]:
    """Mean of the masked rows of every class, not normalised again.

    Args:
      rows: [N, D].
      labels: [N] integer labels.
      num_classes: C.
      mask: bool[N] rows that count.

    Returns:
      float64[C, D] means, zeros for a class without rows, and int64[C] how
      many rows each class has.

    Source: papers/sfa.md section 6, step 3.
    """
    counted = np.flatnonzero(mask)
    members = class_rows(np.asarray(labels)[counted], num_classes)
    counts = np.array([len(own) for own in members])
    means = np.zeros((num_classes, rows.shape[1]))
    for c in np.flatnonzero(counts):
        means[c] = rows[counted[members[c]]].mean(0, dtype=np.float64)
    return means, counts


def nearest_scores(rows: Array, centroids: Array) -> Array:
    r"""Scores :math:`-\lVert x_i - c_k \rVert^2`, the largest the nearest.

    Args:
      rows: [N, D].
      centroids: [C, D].

    Returns:
      float64[N, C].

    Source: papers/sfa.md section 6, step 7.
    """
    scores, lengths = rows @ centroids.T, (centroids**2).sum(-1)
    for part in blocks(len(rows)):
        squares = (rows[part] ** 2).sum(-1)[:, None] + lengths
        scores[part] = 2 * scores[part] - squares
    return scores


def class_distances(
    scores: Array, labels: Array, num_classes: int
) -> tuple[Array, Array]:
    """Min-max distances to the own centroid, within every class by itself.

    Args:
      scores: [N, C] of `nearest_scores`.
      labels: [N] given labels.
      num_classes: C.

    Returns:
      float64[N] in [0, 1], 0 the nearest, and bool[C] classes of several
      samples that are all equally far, up to rounding: theirs are zeros.  The
      centroid of a pair may lie midway, where the release lets rounding
      decide; here the one that is farther from the other classes is nearer.

    Source: papers/sfa.md section 6, step 8, with the sign turned: the mixture's
    larger mean of scores is the smaller one of distances; section 6.3.
    """
    distances = np.zeros(len(labels))
    equal = np.zeros(num_classes, bool)
    for c, members in enumerate(class_rows(labels, num_classes)):
        if len(members) < 2:
            continue
        values = -scores[members, c]
        if len(members) == 2 and alike(values):
            values = np.delete(scores[members], c, axis=1).sum(1)
        equal[c] = alike(values)
        if not equal[c]:
            distances[members] = min_max(values)
    return distances, equal


def alike(values: Array) -> bool:
    """Whether values differ by no more than rounding does.

    Equal rows differ in the last bits where a product is computed in blocks,
    and min-max scaling would make much of that.

    Args:
      values: [n], n > 0.

    Returns:
      Whether the range is below 1e-12 of the largest, or of 1.
    """
    return bool(np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()))


# Rows of which a copy in float64 is made at a time: it then takes no memory to
# speak of, and stays in the processor's cache.
_ROWS = 1 << 12


# Rows that a sum over samples takes at a time; where there are more, the order
# of additions is that of the blocks.
SUMMED = 1 << 16


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


def growing_threshold(epoch: int, num_classes: int, growth: float) -> float:
    r"""Confidence threshold :math:`\phi^{epoch} / C`, epoch counted from 0."""
    return growth**epoch / num_classes


EPSILON = 1e-10


def kl(p: Array, q: Array) -> Array:
    r"""Divergence :math:`\sum_c p_c \log\frac{p_c + \epsilon}{q_c + \epsilon}`.

    Args:
      p: [n, C] probabilities.
      q: [n, C] probabilities.

    Returns:
      float64[n], in nats.

    Source: papers/dasc.md section 8, step 5.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    return (p * np.log((p + EPSILON) / (q + EPSILON))).sum(-1)


def jsd(p: Array, q: Array) -> Array:
    """Jensen-Shannon divergence, the mean `kl` to the midpoint.

    Args:
      p: [n, C] probabilities.
      q: [n, C] probabilities; rows of an identity matrix are labels.

    Returns:
      float64[n], in nats.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2
