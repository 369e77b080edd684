"""Scores of samples: how far outputs and given labels disagree.

Pure functions of NumPy arrays on the host, which compute in float64 and block
by block, so that no float64 copy of a whole input is held.  N samples, C
classes, D feature dimensions.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Int, Num

# Numbers of which a float64 copy is made at a time; it fits into the cache.
_NUMBERS = 1 << 17
# Rows, and numbers in them, that a sum over samples takes at a time.
_SUMMED, _SUMMED_NUMBERS = 1 << 16, 1 << 21
# Added to both probabilities in the logarithm of ``kl``.
_EPSILON = 1e-10


# --- blocks and classes -----------------------------------------------------


def blocks(size: int, rows: int) -> Iterator[slice]:
    """Consecutive slices that cover ``size`` rows.

    Args:
      size: how many rows there are.
      rows: the most rows of a slice.

    Returns:
      Iterator of slices.
    """
    return (slice(i, i + rows) for i in range(0, size, rows))


def row_blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """Blocks of rows that are small enough for the processor's cache.

    A float64 copy of such a block costs little, whatever the number of classes.

    Args:
      shape: of the array, (N, ...).

    Returns:
      Iterator of slices.
    """
    return blocks(shape[0], max(1, _NUMBERS // math.prod(shape[1:])))


def sum_blocks(shape: tuple[int, int]) -> Iterator[slice]:
    """Blocks for sums over samples, which are added block by block.

    They are larger than those of ``row_blocks``, so that data sets of up to
    65,536 samples are summed at once, if they have no more than 256 classes.

    Args:
      shape: of the array, (N, C).

    Returns:
      Iterator of slices.
    """
    size, width = shape
    return blocks(size, min(_SUMMED, max(1, _SUMMED_NUMBERS // width)))


def class_rows(
    labels: Int[np.ndarray, "N"], num_classes: int
) -> list[Int[np.ndarray, "n"]]:
    """The rows of every class, in ascending order.

    Args:
      labels: [N] in 0..C-1.
      num_classes: C.

    Returns:
      C arrays int64[n].
    """
    labels = np.asarray(labels)
    order = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=num_classes)
    return np.split(order, np.cumsum(counts)[:-1])


def min_max(values: Num[np.ndarray, "N"]) -> Float[np.ndarray, "N"]:
    """Scales values to [0, 1] over the whole array.

    Args:
      values: [N], N > 0.

    Returns:
      float64[N]; zeros where all values are ``alike``.
    """
    values = np.asarray(values, np.float64)
    if alike(values):
        return np.zeros_like(values)
    low, high = values.min(), values.max()
    return (values - low) / (high - low)


def alike(values: Float[np.ndarray, "n"]) -> bool:
    """Whether values differ by no more than rounding errors.

    The scores of equal rows can differ in the last bits of float32, because a
    matrix product is computed in blocks; ``min_max`` would magnify the
    difference, and a mixture distrust one half or all of them.

    Args:
      values: [n], n > 0.

    Returns:
      Whether the range is below 1e-6 of the largest, or of 1.
    """
    return bool(np.ptp(values) <= 1e-6 * max(1.0, np.abs(values).max()))


# --- probabilities ----------------------------------------------------------


def softmax(logits: Num[np.ndarray, "*N C"]) -> Float[np.ndarray, "*N C"]:
    """Softmax along the last axis.

    Args:
      logits: [..., C].

    Returns:
      float64[..., C].
    """
    logits = np.asarray(logits)
    probs = np.empty(logits.shape, np.float64)
    flat = probs.reshape(-1, logits.shape[-1])
    rows = logits.reshape(flat.shape)
    for part in row_blocks(rows.shape):
        some = _exponentials(rows[part])
        np.divide(some, some.sum(-1, keepdims=True), out=flat[part])
    return probs


def softmax_of(
    logits: Num[np.ndarray, "N C"], classes: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "N"]:
    """The softmax of one class for each row.

    Args:
      logits: [N, C].
      classes: [N] in 0..C-1.

    Returns:
      float64[N]; no [N, C] is held.
    """
    probs = np.empty(len(classes))
    for part in row_blocks(logits.shape):
        some, own = _exponentials(logits[part]), classes[part]
        probs[part] = some[np.arange(len(own)), own] / some.sum(-1)
    return probs


def largest_softmax(
    logits: Num[np.ndarray, "N C"],
) -> Float[np.ndarray, "N"]:
    """The largest softmax of each row.

    Args:
      logits: [N, C].

    Returns:
      float64[N]; no [N, C] is held.
    """
    probs = np.empty(len(logits))
    for part in row_blocks(logits.shape):
        probs[part] = 1 / _exponentials(logits[part]).sum(-1)
    return probs


def _exponentials(logits: Num[np.ndarray, "n C"]) -> Float[np.ndarray, "n C"]:
    """Softmax before it is divided by the sum; the largest of a row is 1."""
    values = logits.astype(np.float64)
    values -= values.max(-1, keepdims=True)
    return np.exp(values, out=values)


def cross_entropy(
    logits: Num[np.ndarray, "N C"], labels: Int[np.ndarray, "N"]
) -> Float[np.ndarray, "N"]:
    r"""Cross-entropy :math:`-\log \mathrm{softmax}(z)_y`.

    Args:
      logits: [N, C].
      labels: [N].

    Returns:
      float64[N], in nats.
    """
    logits, labels = np.asarray(logits), np.asarray(labels)
    losses = np.empty(len(labels))
    for part in row_blocks(logits.shape):
        shifted = logits[part].astype(np.float64)
        shifted -= shifted.max(-1, keepdims=True)
        own = shifted[np.arange(len(shifted)), labels[part]]
        losses[part] = np.log(np.exp(shifted, out=shifted).sum(-1)) - own
    return losses


def growing_threshold(epoch: int, num_classes: int, growth: float) -> float:
    r"""Threshold of the largest probability, :math:`\phi^{epoch} / C`.

    Args:
      epoch: counted from 0 at the start of the run.
      num_classes: C.
      growth: phi, at least 1.

    Returns:
      The threshold; it starts at the probability of a uniform guess.

    Source: ``papers/sfa.md`` section 6; ``papers/dasc.md`` section 6.1.
    """
    return growth**epoch / num_classes


def kl(
    p: Float[np.ndarray, "n C"], q: Float[np.ndarray, "n C"]
) -> Float[np.ndarray, "n"]:
    r"""Divergence :math:`\sum_c p_c \log\frac{p_c + \epsilon}{q_c + \epsilon}`.

    Args:
      p: [n, C] probabilities.
      q: [n, C] probabilities.

    Returns:
      float64[n], in nats.

    Source: ``papers/dasc.md`` section 8, step 5; epsilon is 1e-10.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    return (p * np.log((p + _EPSILON) / (q + _EPSILON))).sum(-1)


def jsd(
    p: Float[np.ndarray, "n C"], q: Float[np.ndarray, "n C"]
) -> Float[np.ndarray, "n"]:
    r"""Jensen-Shannon divergence, the mean ``kl`` to the midpoint.

    .. math:: \tfrac12 KL(p, m) + \tfrac12 KL(q, m), \quad m = (p + q) / 2

    Args:
      p: [n, C] probabilities.
      q: [n, C] probabilities; rows of an identity matrix are labels.

    Returns:
      float64[n], in nats.

    Source: ``papers/dasc.md`` section 8, step 5; ``papers/unicon.md``
      section 3.
    """
    p, q = np.asarray(p, np.float64), np.asarray(q, np.float64)
    middle = (p + q) / 2
    return (kl(p, middle) + kl(q, middle)) / 2


# --- features and centroids -------------------------------------------------


def lengths(rows: Num[np.ndarray, "N D"]) -> Float[np.ndarray, "N 1"]:
    """Euclidean norm of each row.

    Args:
      rows: [N, D].

    Returns:
      float64[N, 1].
    """
    norms = np.empty((len(rows), 1))
    for part in row_blocks(rows.shape):
        some = rows[part].astype(np.float64)
        norms[part] = np.linalg.norm(some, axis=-1, keepdims=True)
    return norms


def normalise(rows: Num[np.ndarray, "N D"]) -> Float[np.ndarray, "N D"]:
    """Divides each row by its Euclidean norm.

    Args:
      rows: [N, D].

    Returns:
      float64[N, D] unit rows; a zero row stays zero.
    """
    rows = np.asarray(rows)
    unit = np.empty(rows.shape, np.float64)
    for part in row_blocks(rows.shape):
        some = rows[part].astype(np.float64)
        norm = np.linalg.norm(some, axis=-1, keepdims=True)
        np.divide(some, np.maximum(norm, 1e-12), out=unit[part])
    return unit


def centred_unit(
    features: Num[np.ndarray, "N D"],
    centre: Float[np.ndarray, "D"] | None = None,
) -> Float[np.ndarray, "N D"]:
    r"""The CL2N transform :math:`(f_i - \mu) / \lVert f_i - \mu \rVert`.

    Args:
      features: [N, D].
      centre: [D]; None takes the mean of all rows.

    Returns:
      float64[N, D] unit rows; a row on the centre itself stays zero.

    Source: SimpleShot (Wang et al. 2019), section 2; ``papers/sfa.md``
      section 6.
    """
    features = np.asarray(features)
    if centre is None:
        centre = features.mean(0, dtype=np.float64)
    rows = np.empty(features.shape, np.float64)
    for part in row_blocks(rows.shape):
        rows[part] = normalise(features[part] - centre)
    return rows


def class_means(
    rows: Float[np.ndarray, "N D"],
    labels: Int[np.ndarray, "N"],
    num_classes: int,
    mask: Bool[np.ndarray, "N"],
) -> tuple[Float[np.ndarray, "C D"], Int[np.ndarray, "C"]]:
    """Mean of the masked rows of every class, not normalised again.

    Args:
      rows: [N, D].
      labels: [N] integer labels.
      num_classes: C.
      mask: [N] rows that count.

    Returns:
      float64[C, D] means, zeros for a class without rows, and int64[C] how
      many rows each class has.

    Source: ``papers/sfa.md`` section 6, step 3.
    """
    counted = np.flatnonzero(mask)
    members = class_rows(np.asarray(labels)[counted], num_classes)
    counts = np.array([len(own) for own in members])
    means = np.zeros((num_classes, rows.shape[1]))
    for c in np.flatnonzero(counts):
        means[c] = rows[counted[members[c]]].mean(0, dtype=np.float64)
    return means, counts


def nearest_scores(
    rows: Float[np.ndarray, "N D"], centroids: Float[np.ndarray, "C D"]
) -> Float[np.ndarray, "N C"]:
    r"""Scores :math:`-\lVert x_i - c_k \rVert^2`, the largest the nearest.

    Args:
      rows: [N, D].
      centroids: [C, D].

    Returns:
      float64[N, C].

    Source: ``papers/sfa.md`` section 6, step 7.
    """
    scores, squares = rows @ centroids.T, (centroids**2).sum(-1)
    for part in row_blocks(scores.shape):
        both = (rows[part] ** 2).sum(-1)[:, None] + squares
        scores[part] = 2 * scores[part] - both
    return scores


def class_distances(
    scores: Float[np.ndarray, "N C"],
    labels: Int[np.ndarray, "N"],
    num_classes: int,
) -> tuple[Float[np.ndarray, "N"], Bool[np.ndarray, "C"]]:
    """Min-max distances to the own centroid, within every class by itself.

    Args:
      scores: [N, C] of ``nearest_scores``.
      labels: [N] given labels.
      num_classes: C.

    Returns:
      float64[N] in [0, 1], 0 the nearest, and bool[C] classes of several
      samples whose distances are all equal up to rounding; these are zeros.
      Where the centroid of a pair lies midway, the released code lets rounding
      decide; here the sample farther from the other classes is the nearer.

    Source: ``papers/sfa.md`` section 6, step 8, with the sign reversed (the
      mixture's larger mean of scores is the smaller mean of distances);
      section 6.3.
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
