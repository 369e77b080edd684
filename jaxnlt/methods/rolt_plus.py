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
from jaxnlt.config.family import (
    MixtureOptions,
    PenaltyOptions,
    ThresholdOptions,
)
from jaxnlt.config.fields import Decay, NotNegative
from jaxnlt.losses import mixmatch
from jaxnlt.method import (
    Batch,
    DataInfo,
    DeviceOutputs,
    Division,
    Outputs,
    PyTree,
    Selection,
    Selector,
)
from jaxnlt.methods import dividemix, rolt


@dataclass(frozen=True)
class CoDivideOptions(ThresholdOptions, MixtureOptions):
    """Fields of ``CoDivide``.

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

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: PyTree,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, PyTree]:
        clean = self.clean_probability(outputs[k], data, rng)
        return dividemix.divide(clean, self.options.p_threshold, data), memory

    def clean_probability(
        self, out: Outputs, data: DataInfo, rng: np.random.Generator
    ) -> np.ndarray:
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
        return dividemix.fitted(values, options, rng)


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
