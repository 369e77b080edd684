"""SMR: DivideMix after a mixup warm-up, recalibrated now and then.

Zhang et al., Mathematics 2024, 12(15), 2389, doi 10.3390/math12152389.

The warm-up mixes images and labels, whatever the noise.  Every so many epochs
the networks train on all given labels by plain cross-entropy in place of the
semi-supervised epoch; optimizer and step size go on.  All else is DivideMix.
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from jaxnlt import method as base
from jaxnlt.losses import mixmatch
from jaxnlt.methods import dividemix
from jaxnlt.runtime.errors import one_of

CHOICES = {
    "recalibrate_on": ("warmup", "pool"),
    "animal10n_lr": ("three_stage", "released"),
}


class TrustAll(base.Selector):
    """Trusts the whole pool, in its order, and asks no network."""

    def select(self, outputs, k, data, memory, epoch, rng):
        return base.trust_all(data), memory


class Method(dividemix.Method):
    """SMR: two more kinds of supervised epochs, DivideMix's selection.

    Raises:
      UserError: an unknown choice.
    """

    def __init__(self, config, data):
        super().__init__(config, data)
        for name, known in CHOICES.items():
            if name in self.options:  # one of them only where it is used
                one_of(f"config.smr.{name}", self.options[name], known)
        self.warmup = self.supervised_phase(
            "warmup",
            self.warmup_loss,
            draws=lambda key, sizes: mixmatch.mixup_draws(
                key, self.options.alpha, sizes["x"]
            ),
        )
        how: dict[str, Any] = {}
        if self.options.recalibrate_on == "pool":
            how = {
                "streams": self.in_order,
                "views": {"x": ("none",)},
                "selector": TrustAll(),
                "pool": self.shared_pool(),
            }
        self.recalibration = self.supervised_phase(
            "recalibration", self.ce_loss, **how
        )

    def shared_pool(self):
        """The subset of the second network's selection, for both networks.

        Source: papers/smr.md section 11.
        """
        draw = self.pool()
        if draw is None:
            return None
        seed = self.config.seed
        # As trainer.Trainer.pools hands it to that network.
        return lambda epoch, k, rng: draw(
            epoch, 1, np.random.default_rng((seed, epoch, 1, 1))
        )

    def in_order(self, selection, rng):
        """One unshuffled pass, in the batches of the divided data."""
        rows, batch = selection.labelled, self.config.batch_size
        steps = -(-len(rows) // batch)
        return {"x": np.resize(rows, (steps, batch)).astype(np.int32)}

    def phases(self):
        return (self.warmup, self.semi, self.recalibration)

    def phase(self, epoch):
        """Warm-up, then a recalibration at the end of every period.

        With `spare_first_epoch` the first after the warm-up is never one, nor,
        with `spare_last_epoch`, the last of the run.

        Source: papers/smr.md section 11.
        """
        options = self.options
        first = options.warmup + options.spare_first_epoch
        last = self.config.epochs - options.spare_last_epoch
        if first <= epoch < last and dividemix.recurs(epoch, options.period):
            return self.recalibration
        return super().phase(epoch)

    def learning_rate(self, epoch):
        """Divided at every drop; ANIMAL-10N's release skips to the last.

        Source: papers/smr.md B1.
        """
        optimizer = self.config.optimizer
        skipped = self.options.get("animal10n_lr") == "released"
        if skipped and epoch < max(optimizer.drops, default=0):
            return optimizer.learning_rate
        return super().learning_rate(epoch)

    def warmup_loss(self, net, params, batch, draws, selection, carry):
        """Mixup of the whole batch, images and labels alike.

        Source: papers/smr.md section 7.
        """
        (images,) = batch["x"]["views"]
        labels, partner = batch["x"]["labels"], draws["permutation"]
        mixed = mixmatch.mixup(images, draws["coefficient"], partner)
        logits = net(params, mixed, ("logits",))["logits"]
        values = losses.mixup_cross_entropy(
            logits, labels, labels[partner], draws["coefficient"]
        )
        ce = jnp.mean(values)
        return ce, carry, {"loss_ce": ce}
