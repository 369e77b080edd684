"""RoLT+: DivideMix that divides by the distance to class centroids.

Wei, Shi, Tu, Li, "Robust Long-Tailed Learning Under Label Noise", arXiv
2108.11569, section 3.4.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt.config.family import PenaltyOptions
from jaxnlt.config.fields import Decay, NotNegative
from jaxnlt.losses import mixmatch
from jaxnlt.method import (
    Batch,
    DataInfo,
    DeviceOutputs,
    Division,
    Outputs,
    Selection,
    Selector,
)
from jaxnlt.methods import dividemix, rolt
from jaxnlt.selection.history import LossHistory, mean_losses


@dataclass(frozen=True)
class CoDivideOptions(dividemix.LossMixtureOptions, rolt.CentroidOptions):
    """Fields of ``CoDivide``; only losses are averaged.

    Attributes:
      basis: what the mixtures are fitted on, losses or distances.
      per_class: one mixture for each given class, or one for all.
    """

    basis: Literal["loss", "dist"] = "dist"
    per_class: bool = True


class CoDivide(Selector):
    """Divides by losses or distances, with one mixture or one for each class.

    Source: ``papers/dividemix_rolt.md`` section 6.
    """

    options_type = CoDivideOptions
    options: CoDivideOptions

    def __init__(self, options: CoDivideOptions, heads: tuple[str, ...] = ()):
        super().__init__(options, heads)
        loss = options.basis == "loss"
        self.outputs = ("logits",) if loss else ("features",)

    def init_memory(self) -> LossHistory:
        return LossHistory(np.zeros((0, 0)))

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: LossHistory,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, LossHistory]:
        options, out = self.options, outputs[k]
        if options.basis == "loss":
            averaged, memory = mean_losses(
                out["logits"], data.labels, memory, options.average_losses
            )
            clean = self.of_losses(averaged, data, rng)
        else:
            clean = self.of_distances(out["features"], data, rng)
        return dividemix.divide(clean, options.p_threshold, data), memory

    def of_losses(
        self, values: np.ndarray, data: DataInfo, rng: np.random.Generator
    ) -> np.ndarray:
        """Posterior [N] of the lower losses [N]."""
        if self.options.per_class:
            return selection.per_class_gmm(
                values, data.labels, data.num_classes
            )
        return dividemix.fitted(values, self.options, rng)

    def of_distances(
        self, features: np.ndarray, data: DataInfo, rng: np.random.Generator
    ) -> np.ndarray:
        """Posterior [N] of the nearer samples, of features [N, D]."""
        options, labels = self.options, data.labels
        found = rolt.nearest(
            features, labels, data.num_classes, options.nearness
        )
        if options.per_class:
            return rolt.own_class_probability(
                found.refined, labels, data.num_classes
            )
        # One mixture takes the scores before refinement, as released.
        own = found.first[np.arange(len(labels)), labels]
        return dividemix.fitted(selection.min_max(-own), options, rng)


@dataclass(frozen=True)
class Options(PenaltyOptions, CoDivideOptions):
    """Fields of ``config.rolt_plus``.

    Attributes:
      drw_start: epochs before those whose labelled rows weigh by class; 0 is
        never, as in the release's default.
      drw_beta: of the effective numbers.
    """

    drw_start: NotNegative = 0.0
    drw_beta: Decay = 0.9999


class Method(dividemix.Method):
    """RoLT+ with the fields of ``config.rolt_plus``."""

    options_type = Options
    options: Options
    own_selector = "rolt_plus"
    first_epoch = rolt.FIRST_EPOCH

    def row_weights(self, batch: Batch) -> jax.Array:
        """Weights [B] of the labelled rows: 1, their class's from DRW on.

        All given labels are counted, not the trusted ones alone.

        Source: ``papers/dividemix_rolt.md`` sections 4.3 and 6.
        """
        weights = losses.effective_weights(
            self.data.counts, self.options.drw_beta
        )
        rows = jnp.asarray(weights)[batch.x.labels]
        return jnp.where(batch.time.epoch >= self.options.drw_start, rows, 1)

    def mixed_loss(
        self,
        out: DeviceOutputs,
        mixed: mixmatch.Mixed,
        batch: Batch,
        division: Division,
    ) -> dividemix.MixedLoss:
        """DivideMix's terms; from DRW on the labelled rows have weights.

        A mixed row has the weight of its own given label, not its partner's.

        Source: ``papers/dividemix_rolt.md`` section 6.
        """
        found = super().mixed_loss(out, mixed, batch, division)
        if not self.options.drw_start:
            return found
        rows = slice(mixed.num_labelled)
        values = losses.cross_entropy(out["logits"][rows], mixed.targets[rows])
        weights = jnp.tile(self.row_weights(batch), 2)  # of both views
        ce = losses.weighted_mean(values, weights)
        return found._replace(labelled=ce, terms=found.terms | {"loss_ce": ce})
