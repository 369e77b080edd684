"""Empirical risk minimisation, the yardstick: CE or mixup on given labels.

Zhang et al., "mixup: Beyond Empirical Risk Minimization", ICLR 2018.
"""

import jax.numpy as jnp

from jaxnlt import losses, semi
from jaxnlt.errors import UserError, one_of
from jaxnlt.methods import base


class Method(base.Method):
    """One or more networks, each trained by itself on every given label."""

    def __init__(self, config, data):
        super().__init__(config, data)
        options = config.erm
        self.num_nets = options.num_nets
        losses_and_draws = {
            "ce": (self.ce_loss, lambda key, sizes: {}),
            "mixup": (self.mixup_loss, self.mixup_draws),
        }
        one_of("config.erm.loss", options.loss, losses_and_draws)
        one_of("config.erm.view", options.view, ("weak", "strong", "none"))
        if options.num_nets < 1:
            raise UserError(
                f"config.erm.num_nets: must be at least 1, is {self.num_nets}"
            )
        loss, draws = losses_and_draws[options.loss]
        self._phase = base.Phase(
            name="train",
            loss=loss,
            draws=draws,
            streams=base.single_stream(config.warmup_batch_size),
            views={"x": (options.view,)},
        )

    def phases(self):
        return (self._phase,)

    def phase(self, epoch):
        return self._phase

    def ce_loss(self, net, params, batch, draws, selection, carry):
        """Mean cross-entropy with the given labels."""
        (images,) = batch["x"]["views"]
        logits = net(params, images, ("logits",))["logits"]
        ce = jnp.mean(losses.cross_entropy(logits, batch["x"]["labels"]))
        return ce, carry, {"loss_ce": ce}

    def mixup_draws(self, key, sizes):
        """Coefficient and partners; Beta(alpha, alpha), not folded."""
        alpha = self.config.erm.mixup_alpha
        return semi.mixup_draws(key, alpha, sizes["x"], folded=False)

    def mixup_loss(self, net, params, batch, draws, selection, carry):
        """Cross-entropy of mixed images with both labels, mixed alike."""
        (images,) = batch["x"]["views"]
        labels = batch["x"]["labels"]
        coefficient, partner = draws["coefficient"], draws["permutation"]
        mixed = semi.mixup(images, coefficient, partner)
        logits = net(params, mixed, ("logits",))["logits"]
        own = losses.cross_entropy(logits, labels)
        other = losses.cross_entropy(logits, labels[partner])
        ce = jnp.mean(coefficient * own + (1 - coefficient) * other)
        return ce, carry, {"loss_ce": ce}
