"""UNICON: class-uniform selection, and contrast of the unlabelled images.

Karim et al., "UNICON: Combating Label Noise Through Uniform Selection and
Contrastive Learning", CVPR 2022, arXiv 2203.14542.

DivideMix whose clean set holds the same number of samples of every given
class, those on which both networks together disagree least with the label.
Weak views make the targets, strong views are trained on, and two strong views
of an unlabelled image attract each other.
"""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxnlt import contrast, losses, semi, uniform_selection
from jaxnlt.errors import UserError, one_of
from jaxnlt.methods import base, dividemix
from jaxnlt.models.layers import l2_normalise

CHOICES = {
    "jsd_log": tuple(uniform_selection.UNITS),
    "unfilled": ("none", "repeat_index_0"),
    "unlabelled_batch": ("rounded", "exact"),
}


class UniformSelection(base.Selector):
    """The least disagreeing samples of every class, equally many.

    Args:
      options: `jsd_log`, `unfilled`, `disagreement_limit`, `cutoff_tau` of
        config.unicon.
    """

    outputs = ("logits",)

    def __init__(self, options):
        self.options = options

    def select(self, outputs, k, data, memory, epoch, rng):
        """Both networks score together, so k does not matter."""
        options, size = self.options, len(data.labels)
        scores = uniform_selection.disagreement(
            [out["logits"] for out in outputs], data.labels, options.jsd_log
        )
        cutoff = uniform_selection.cutoff(
            scores, options.disagreement_limit, options.cutoff_tau
        )
        share = float(np.mean(scores < cutoff))
        labelled = uniform_selection.select_uniform(
            *(scores, data.labels, data.num_classes, share),
            options.unfilled == "repeat_index_0",
        )
        return base.Selection(
            labelled=labelled,
            unlabelled=np.setdiff1d(np.arange(size), labelled),
            weights=uniform_selection.refinement_weights(scores),
            counts=np.bincount(
                data.labels[labelled], minlength=data.num_classes
            ),
            clean_probability=1 - scores,
            shared={"share": np.asarray(share)},
        ), memory


class Method(dividemix.Method):
    """UNICON with the switches of config.unicon."""

    heads = ("logits", "embedding")

    def __init__(self, config, data):
        options = config.unicon
        for name, known in CHOICES.items():
            one_of(f"config.unicon.{name}", options[name], known)
        if options.cutoff_tau < 1:
            raise UserError(
                "config.unicon.cutoff_tau: must be at least 1, is "
                f"{options.cutoff_tau}"
            )
        super().__init__(config, data)
        self.network_options = {"projection_dim": options.projection_dim}
        # Parameters without a gradient are left alone, decay included.
        self.warmup = replace(
            self.warmup, trainable=lambda path: path[0] != "embedding"
        )

    def selector(self):
        return UniformSelection(self.options)

    def semi_phase(self):
        views = ("weak", "weak", "strong", "strong")
        return replace(
            super().semi_phase(),
            streams=self.streams,
            views={"x": views, "u": views},
            taught_by="self",
            order="select_train_each",
        )

    def streams(self, selection, rng):
        """One pass over x; u at a pace that follows the selected share."""
        batch = self.config.batch_size
        chosen = len(selection.labelled) / len(self.data.labels)
        unlabelled = uniform_selection.unlabelled_batch(
            batch,
            float(selection.shared.get("share", chosen)),
            self.options.unlabelled_batch == "rounded",
        )
        return base.split_streams(batch, unlabelled)(selection, rng)

    def learning_rate(self, epoch):
        """Half a cosine; it rises again after `cosine_epochs`, as released.

        Source: papers/unicon.md section 1.
        """
        options = self.options
        span = self.config.optimizer.learning_rate - options.min_learning_rate
        turn = math.cos(math.pi * epoch / options.cosine_epochs)
        return options.min_learning_rate + span * (1 + turn) / 2

    def contrast(self, net, params, u):
        """SimCLR loss of the strong views of the unlabelled images.

        Source: papers/unicon.md sections 5 and 6.
        """
        embedded = [
            l2_normalise(net(params, view, ("embedding",))["embedding"])
            for view in u["views"][2:]
        ]
        values = contrast.view_contrast(
            jnp.stack(embedded, axis=1), self.options.contrast_temperature
        )
        return jnp.mean(values)

    def semi_loss(self, net, params, batch, draws, selection, carry):
        """DivideMix's terms on strong views, targets of weak ones, contrast.

        Source: UNICON eq. 9; papers/unicon.md section 5.
        """
        options, x, u = self.options, batch["x"], batch["u"]
        targets_x, targets_u = semi.two_view_targets(
            net, params, x, u, options.sharpen_temperature
        )
        simclr = self.contrast(net, params, u)
        images, targets = semi.mixed_batch(
            x["views"][2:], u["views"][2:], targets_x, targets_u, draws
        )
        num_x = 2 * len(targets_x)
        if not options.unlabelled_loss:
            images, targets = images[:num_x], targets[:num_x]
        out = net(params, images, self.vote)
        terms, total = self.mixed_terms(out, targets, num_x, selection)
        terms["loss_penalty"] = losses.prior_penalty(out["logits"])
        terms["loss_contrast"] = simclr
        # Copies of labelled rows, where nothing is unlabelled, weigh 0.
        some = selection["num_unlabelled"] > 0
        unlabelled = options.contrast_weight * simclr
        if options.unlabelled_loss:
            time = semi.ramp_time(batch, selection, self.config.batch_size)
            ramp = semi.ramp(time, options.warmup, options.ramp)
            terms["lambda_u"] = options.lambda_u * ramp
            unlabelled += terms["lambda_u"] * terms["loss_mse"]
        total += terms["loss_penalty"] + jnp.where(some, unlabelled, 0)
        return total, carry, terms
