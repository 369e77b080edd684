"""RoLT+: DivideMix that divides by the distance to class centroids.

Wei, Shi, Tu, Li, "Robust Long-Tailed Learning Under Label Noise", arXiv
2108.11569, section 3.4.
"""

import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.methods import dividemix, rolt
from jaxnlt.runtime.errors import UserError, one_of


class CoDivide(base.Selector):
    """Divides by losses or distances, with one mixture or one a class.

    Args:
      options: `basis`, `per_class`, `p_threshold` and `gmm_*` of
        config.rolt_plus.

    Source: papers/dividemix_rolt.md section 6.
    """

    def __init__(self, options, heads=()):
        super().__init__(options, heads)
        one_of("config.rolt_plus.basis", options.basis, ("loss", "dist"))
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
    """RoLT+ with the options of config.rolt_plus.

    Raises:
      UserError: a field out of range.
    """

    own_selector = "rolt_plus"
    first_epoch = rolt.FIRST_EPOCH

    def __init__(self, config, data):
        super().__init__(config, data)
        start, beta = self.options.drw_start, self.options.drw_beta
        if start < 0:
            raise UserError(
                f"config.rolt_plus.drw_start: must be at least 0, is {start}"
            )
        if not 0 <= beta < 1:
            raise UserError(
                f"config.rolt_plus.drw_beta: must lie in [0, 1), is {beta}"
            )

    def semi_loss(self, net, params, batch, draws, selection, carry):
        """DivideMix's loss, from DRW on with weights of the labelled rows.

        Source: papers/dividemix_rolt.md section 6.
        """
        if self.options.drw_start:
            selection = selection | {"row_weights": self.row_weights(batch)}
        return super().semi_loss(net, params, batch, draws, selection, carry)

    def row_weights(self, batch):
        """Weights [B] of the labelled rows: 1, their class's from DRW on.

        All given labels are counted, not the trusted ones alone.

        Source: papers/dividemix_rolt.md sections 4.3 and 6.
        """
        weights = losses.effective_weights(
            self.data.counts, self.options.drw_beta
        )
        rows = jnp.asarray(weights)[batch["x"]["labels"]]
        return jnp.where(batch["epoch"] >= self.options.drw_start, rows, 1)

    def mixed_terms(self, out, targets, num_x, selection):
        """DivideMix's terms; from DRW on the labelled rows have weights.

        A mixed row has that of its own given label, its partner's counts for
        nothing.

        Source: papers/dividemix_rolt.md section 6.
        """
        terms, total = super().mixed_terms(out, targets, num_x, selection)
        if "row_weights" not in selection:
            return terms, total
        values = losses.cross_entropy(out["logits"][:num_x], targets[:num_x])
        weights = jnp.tile(selection["row_weights"], 2)  # of both views
        ce = losses.weighted_mean(values, weights)
        return terms | {"loss_ce": ce}, ce
