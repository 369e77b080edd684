"""SMR: DivideMix after a mixup warm-up, recalibrated periodically.

Zhang et al., Mathematics 2024, 12(15), 2389, doi 10.3390/math12152389.

The warm-up mixes images and labels, whatever the noise.  At the end of every
period the networks train on all given labels by plain cross-entropy in place of
the semi-supervised epoch; optimizer and step size go on.  The rest is
DivideMix.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxnlt import losses
from jaxnlt import method as base
from jaxnlt.config import rates
from jaxnlt.config.family import FamilyOptions
from jaxnlt.config.fields import Positive
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.method import (
    Batch,
    DataInfo,
    Division,
    LossResult,
    Net,
    Outputs,
    Phase,
    Pool,
    PyTree,
    Selection,
    Selector,
)
from jaxnlt.methods import dividemix


class TrustAll(Selector):
    """Trusts the whole pool, in its order, without inference."""

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: PyTree,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, PyTree]:
        return base.trust_all(data), memory


@dataclass(frozen=True)
class Options(FamilyOptions, dividemix.LossMixtureOptions):
    """Fields of ``config.smr``.

    Attributes:
      period: epochs from one recalibration to the next; rounded, 2 at least.
      spare_first_epoch: whether the first epoch after the warm-up is never a
        recalibration; the scripts of Clothing1M and WebVision have no such
        rule.
      spare_last_epoch: whether the last epoch is never a recalibration, as in
        every published schedule; the released rule has no such guard.
      recalibrate_on: warmup takes the images of the warm-up, drawn and
        augmented as there; pool takes the subset of the second network's
        selection, unaugmented, in a fixed order, for both networks, as the
        release does on Clothing1M.
      animal10n_lr: three_stage drops the step size at each of
        ``optimizer.drops``, released at the last alone: the second stage of
        the release's ANIMAL-10N script has an empty condition (B1).
    """

    period: Positive = 30.0
    spare_first_epoch: bool = True
    spare_last_epoch: bool = True
    recalibrate_on: Literal["warmup", "pool"] = "warmup"
    animal10n_lr: Literal["three_stage", "released"] = "three_stage"


class Method(dividemix.Method):
    """SMR: two other kinds of supervised epochs, DivideMix's selection."""

    options_type = Options
    options: Options

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        super().__init__(config, data)
        self.warmup = self.supervised_phase(
            "warmup",
            self.warmup_loss,
            draws=lambda key, sizes: mixmatch.mixup_draws(
                key, self.options.alpha, sizes["x"]
            ),
        )
        changes: dict[str, Any] = {}
        if self.options.recalibrate_on == "pool":
            changes = {
                "streams": self.in_order,
                "views": {"x": ("none",)},
                "selector": TrustAll(),
                "pool": self.shared_pool(),
            }
        self.recalibration = self.supervised_phase(
            "recalibration", self.ce_loss, **changes
        )

    def shared_pool(self) -> Pool | None:
        """The subset of the second network's selection, for both networks.

        Source: ``papers/smr.md`` section 11.
        """
        draw = self.pool()
        if draw is None:
            return None
        seed = self.config.seed

        def pool(epoch: int, k: int, rng: np.random.Generator) -> np.ndarray:
            # The generator that ``Trainer.pools`` passes for that network.
            second = np.random.default_rng((seed, epoch, 1, 1))
            return draw(epoch, 1, second)

        return pool

    def in_order(
        self, selection: Selection, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """One unshuffled pass, in the batches of the divided data."""
        rows, batch = selection.labelled, self.config.batch_size
        steps = -(-len(rows) // batch)
        return {"x": np.resize(rows, (steps, batch)).astype(np.int32)}

    def phases(self) -> Sequence[Phase]:
        return (*super().phases(), self.recalibration)

    def phase(self, epoch: int) -> Phase:
        """Warm-up, then a recalibration at the end of every period.

        Source: ``papers/smr.md`` section 11.
        """
        options, usual = self.options, super().phase(epoch)
        first = options.warmup + options.spare_first_epoch
        last = self.config.epochs - options.spare_last_epoch
        if usual in self.ending or not first <= epoch < last:
            return usual
        recurs = rates.recurs(epoch, options.period)
        return self.recalibration if recurs else usual

    def learning_rate(self, epoch: int) -> float:
        """Divided at every drop, or at the last alone.

        Source: ``papers/smr.md`` section 16 (B1).
        """
        optimizer = self.config.optimizer
        skipped = self.options.animal10n_lr == "released"
        if skipped and epoch < max(optimizer.drops, default=0):
            return float(optimizer.learning_rate)
        return super().learning_rate(epoch)

    def warmup_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: MixupDraws,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Mixup of the whole batch, images and labels alike.

        Source: ``papers/smr.md`` section 7.
        """
        (images,) = batch.x.views
        labels, partner = batch.x.labels, draws.permutation
        mixed = mixmatch.mixup(images, draws.coefficient, partner)
        logits = net(params, mixed, ("logits",))["logits"]
        values = losses.mixup_cross_entropy(
            logits, labels, labels[partner], draws.coefficient
        )
        ce = jnp.mean(values)
        return LossResult(ce, {"loss_ce": ce}, carry)
