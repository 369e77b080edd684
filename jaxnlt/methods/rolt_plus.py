"""RoLT+: DivideMix that divides by the distance to class centroids.

Wei, Shi, Tu, Li, "Robust Long-Tailed Learning Under Label Noise", arXiv
2108.11569, section 3.4.
"""

import numpy as np

from jaxnlt import selection
from jaxnlt.errors import one_of
from jaxnlt.methods import base, dividemix, rolt


class CoDivide(base.Selector):
    """Divides by losses or distances, with one mixture or one a class.

    Args:
      options: `basis`, `per_class`, `p_threshold` and `gmm_*` of
        config.rolt_plus.

    Source: papers/dividemix_rolt.md section 6.
    """

    def __init__(self, options):
        one_of("config.rolt_plus.basis", options.basis, ("loss", "dist"))
        self.options = options
        loss = options.basis == "loss"
        self.outputs = ("logits",) if loss else ("features",)

    def select(self, outputs, k, data, memory, epoch, rng):
        clean = self.clean_probability(outputs[k], data, rng)
        return dividemix.divide(clean, self.options.p_threshold, data), memory

    def clean_probability(self, out, data, rng):
        """Posterior of the lower losses or of the nearer samples."""
        options, labels = self.options, data.labels
        if options.basis == "loss":
            values = selection.min_max(
                selection.cross_entropy(out["logits"], labels)
            )
            if options.per_class:
                return selection.per_class_gmm(values, labels, data.num_classes)
        else:
            found = rolt.nearest(out["features"], labels, data.num_classes)
            if options.per_class:
                return rolt.own_class_probability(
                    found.refined, labels, data.num_classes
                )
            # One mixture takes the scores before refinement, as released.
            own = found.first[np.arange(len(labels)), labels]
            values = selection.min_max(-own)
        return selection.gmm_probability(
            values,
            int(rng.integers(2**31)),
            max_iter=options.gmm_max_iter,
            tol=options.gmm_tol,
            reg_covar=options.gmm_reg_covar,
        )


class Method(dividemix.Method):
    """RoLT+ with the options of config.rolt_plus."""

    def selector(self):
        return CoDivide(self.options)
