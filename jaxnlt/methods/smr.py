"""SMR: DivideMix after a mixup warm-up, recalibrated now and then.

Zhang et al., Mathematics 2024, 12(15), 2389, doi 10.3390/math12152389.

The warm-up mixes images and labels, whatever the noise.  Every so many epochs
the networks train on all given labels by plain cross-entropy in place of the
semi-supervised epoch; optimizer and step size go on.  All else is DivideMix.
"""

import jax.numpy as jnp

from jaxnlt import losses, semi
from jaxnlt.methods import dividemix


class Method(dividemix.Method):
    """SMR: two more kinds of supervised epochs, DivideMix's selection."""

    def __init__(self, config, data):
        super().__init__(config, data)
        self.warmup = self.supervised_phase(
            "warmup",
            self.warmup_loss,
            draws=lambda key, sizes: semi.mixup_draws(
                key, self.options.alpha, sizes["x"]
            ),
        )
        self.recalibration = self.supervised_phase(
            "recalibration", self.ce_loss
        )

    def phases(self):
        return (self.warmup, self.semi, self.recalibration)

    def phase(self, epoch):
        """Warm-up, then a recalibration at the end of every period.

        The first epoch after the warm-up is never one, nor, with
        `spare_last_epoch`, the last of the run.

        Source: papers/smr.md section 11.
        """
        options = self.options
        usual = super().phase(epoch)
        # A short schedule must leave epochs to the semi-supervised stage.
        period = max(2, round(options.period))
        if epoch <= options.warmup or (epoch + 1) % period:
            return usual
        if options.spare_last_epoch and epoch + 1 == self.config.epochs:
            return usual
        return self.recalibration

    def warmup_loss(self, net, params, batch, draws, selection, carry):
        """Mixup of the whole batch, images and labels alike.

        Source: papers/smr.md section 7.
        """
        (images,) = batch["x"]["views"]
        labels, partner = batch["x"]["labels"], draws["permutation"]
        mixed = semi.mixup(images, draws["coefficient"], partner)
        logits = net(params, mixed, ("logits",))["logits"]
        values = losses.mixup_cross_entropy(
            logits, labels, labels[partner], draws["coefficient"]
        )
        ce = jnp.mean(values)
        return ce, carry, {"loss_ce": ce}
