"""Which samples a network trusts: scores, mixtures and selectors by name."""

from jaxnlt.selection.mixtures import (
    gmm_probability,
    one_thread,
    per_class_gmm,
)
from jaxnlt.selection.scores import (
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
    softmax_of,
    sum_blocks,
)

__all__ = [
    "alike",
    "blocks",
    "centred_unit",
    "class_distances",
    "class_means",
    "class_rows",
    "cross_entropy",
    "gmm_probability",
    "growing_threshold",
    "jsd",
    "kl",
    "lengths",
    "min_max",
    "nearest_scores",
    "normalise",
    "one_thread",
    "per_class_gmm",
    "softmax",
    "softmax_of",
    "sum_blocks",
]
