"""Whom to trust: scores and mixtures on the host, in NumPy."""

from jaxnlt.selection.mixtures import (
    gmm_probability,
    one_thread,
    per_class_gmm,
)
from jaxnlt.selection.scores import (
    EPSILON,
    SUMMED,
    alike,
    blocks,
    centred_unit,
    class_distances,
    class_means,
    class_rows,
    cross_entropy,
    growing_threshold,
    jsd,
    kl,
    lengths,
    min_max,
    nearest_scores,
    normalise,
    softmax,
)

__all__ = [
    "SUMMED",
    "EPSILON",
    "alike",
    "blocks",
    "centred_unit",
    "class_distances",
    "class_means",
    "class_rows",
    "cross_entropy",
    "growing_threshold",
    "gmm_probability",
    "jsd",
    "kl",
    "lengths",
    "min_max",
    "nearest_scores",
    "normalise",
    "one_thread",
    "per_class_gmm",
    "softmax",
]
