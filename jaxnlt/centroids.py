"""Class centroids of features and what is measured against them, on the host.

NumPy, float64; all functions are pure.  N samples, C classes, D feature
dimensions.
"""

from typing import NamedTuple

import numpy as np

from jaxnlt import selection

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
    for part in selection.blocks(len(rows)):
        rows[part] = selection.normalise(features[part] - centre)
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
    members = selection.class_rows(np.asarray(labels)[counted], num_classes)
    counts = np.array([len(own) for own in members])
    means = np.zeros((num_classes, rows.shape[1]))
    for c in np.flatnonzero(counts):
        means[c] = rows[counted[members[c]]].mean(0, dtype=np.float64)
    return means, counts


class Moments(NamedTuple):
    """Running moments of the class centroids, one Gaussian a class.

    Attributes:
      first: float64[C, D] running mean of the centroids.
      second: float64[C, D] running mean of their squares.
      known: bool[C] classes that have had a centroid.
    """

    first: Array
    second: Array
    known: Array


def no_moments(num_classes: int, dimensions: int) -> Moments:
    """Moments before the first centroid."""
    zeros = np.zeros((num_classes, dimensions))
    return Moments(zeros, zeros, np.zeros(num_classes, bool))


def update_moments(
    moments: Moments, centroids: Array, found: Array, beta: float
) -> Moments:
    r"""Exponential running averages of centroids and squared centroids.

    .. math:: M \leftarrow \beta M + (1-\beta) c,\quad
       S \leftarrow \beta S + (1-\beta) c^2

    Args:
      moments: of the epochs before.
      centroids: [C, D] of this epoch.
      found: bool[C] classes with a centroid this epoch; others keep theirs.
      beta: weight of the past.  The first centroid of a class is taken whole.

    Returns:
      The new moments.

    Source: SFA section 3; papers/sfa.md section 6, step 4.
    """
    past = np.where(moments.known, beta, 0.0)[:, None]
    mix = np.where(found[:, None], 1 - past, 0.0)
    keep = 1 - mix
    return Moments(
        keep * moments.first + mix * centroids,
        keep * moments.second + mix * centroids**2,
        moments.known | found,
    )


def deviation(moments: Moments) -> Array:
    r"""Standard deviation :math:`\sqrt{\mathrm{clip}(S - M^2)}`, [C, D].

    Source: papers/sfa.md section 6, step 5.
    """
    variance = moments.second - moments.first**2
    return np.sqrt(np.clip(variance, 1e-30, 1e30))


def sample_centroids(moments: Moments, noise: Array, sampled: Array) -> Array:
    r"""Centroids :math:`M + \sigma \circ \varepsilon` of the sampled classes.

    Args:
      moments: means and standard deviations.
      noise: [C, D] standard normal draw.
      sampled: bool[C]; the other classes take their mean.

    Returns:
      float64[C, D].

    Source: papers/sfa.md section 6, step 6.
    """
    noise = np.where(sampled[:, None], noise, 0.0)
    return moments.first + deviation(moments) * noise


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
    for part in selection.blocks(len(rows)):
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
    for c, members in enumerate(selection.class_rows(labels, num_classes)):
        if len(members) < 2:
            continue
        values = -scores[members, c]
        if len(members) == 2 and alike(values):
            values = np.delete(scores[members], c, axis=1).sum(1)
        equal[c] = alike(values)
        if not equal[c]:
            distances[members] = selection.min_max(values)
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
