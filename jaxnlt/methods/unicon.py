"""UNICON: class-uniform selection, and contrast of the unlabelled images.

Karim et al., "UNICON: Combating Label Noise Through Uniform Selection and
Contrastive Learning", CVPR 2022, arXiv 2203.14542.

DivideMix whose clean set holds the same number of samples of every given
class, those on which both networks together disagree least with the label; so
it does not matter whose selection teaches.
Weak views make the targets, strong views are trained on, and two strong views
of an unlabelled image attract each other.
"""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxnlt import contrast, uniform_selection
from jaxnlt.errors import UserError, one_of
from jaxnlt.methods import base, dividemix
from jaxnlt.models.layers import l2_normalise

CHOICES = {
    "jsd_log": tuple(uniform_selection.UNITS),
    "unfilled": ("none", "repeat_index_0"),
    "scoring_mode": ("eval", "train"),
    "unlabelled_batch": ("rounded", "exact", "same"),
}


class UniformSelection(base.Selector):
    """The least disagreeing samples of every class, equally many.

    Args:
      options: `jsd_log`, `unfilled`, `disagreement_limit`, `cutoff_tau` of
        config.unicon.
    """

    outputs = ("logits",)

    def __init__(self, options, heads=()):
        super().__init__(options, heads)
        for name in ("jsd_log", "unfilled"):
            one_of(f"config.unicon.{name}", options[name], CHOICES[name])
        if options.cutoff_tau < 1:
            raise UserError(
                "config.unicon.cutoff_tau: must be at least 1, is "
                f"{options.cutoff_tau}"
            )

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

    own_selector = "unicon"
    heads = ("logits", "embedding")

    def __init__(self, config, data):
        options = config.unicon
        for name in ("scoring_mode", "unlabelled_batch"):
            one_of(f"config.unicon.{name}", options[name], CHOICES[name])
        super().__init__(config, data)
        self.network_options = {"projection_dim": options.projection_dim}
        # Parameters without a gradient are left alone, decay included.
        self.warmup = replace(
            self.warmup, trainable=lambda path: path[0] != "embedding"
        )
        # Plain training as in the warm-up, penalty aside.
        self.restart = replace(self.warmup, name="restart", loss=self.ce_loss)

    def phases(self):
        if self.options.restart_every:
            return (*super().phases(), self.restart)
        return super().phases()

    def phase(self, epoch):
        """Warm-up, then a restart at the end of every period, if any.

        Source: papers/unicon.md section 7.
        """
        period, usual = self.options.restart_every, super().phase(epoch)
        if usual is self.semi and period and dividemix.recurs(epoch, period):
            return self.restart
        return usual

    def semi_phase(self):
        views = ("weak", "weak", "strong", "strong")
        return replace(
            super().semi_phase(),
            streams=self.streams,
            views={"x": views, "u": views},
            order="select_train_each",
            # The release leaves the network it has just trained in train mode
            # while both score for the other one.
            pool_train=self.options.scoring_mode == "train",
        )

    def streams(self, selection, rng):
        """One pass over x; u at a pace that follows the selected share."""
        batch = self.config.batch_size
        if self.options.unlabelled_batch == "same":
            return base.split_streams(batch, batch)(selection, rng)
        sizes = len(selection.labelled), len(selection.unlabelled)
        chosen = sizes[0] / sum(sizes)
        unlabelled = uniform_selection.unlabelled_batch(
            batch,
            float(selection.shared.get("share", chosen)),
            self.options.unlabelled_batch == "rounded",
        )
        return base.split_streams(batch, unlabelled)(selection, rng)

    def learning_rate(self, epoch):
        """Half a cosine; it rises again after `cosine_epochs`, as released.

        Of 0 `cosine_epochs` it drops as elsewhere.  A restart has its own.

        Source: papers/unicon.md sections 1 and 7.
        """
        options = self.options
        if self.phase(epoch) is self.restart:
            return options.restart_rate
        if not options.cosine_epochs:
            return super().learning_rate(epoch)
        span = self.config.optimizer.learning_rate - options.min_learning_rate
        turn = math.cos(math.pi * epoch / options.cosine_epochs)
        return options.min_learning_rate + span * (1 + turn) / 2

    def unlabelled_terms(self, net, params, u):
        """SimCLR loss of the strong views of the unlabelled images.

        Source: UNICON eq. 9; papers/unicon.md sections 5 and 6.
        """
        embedded = [
            l2_normalise(net(params, view, ("embedding",))["embedding"])
            for view in u["views"][2:]
        ]
        values = contrast.view_contrast(
            jnp.stack(embedded, axis=1), self.options.contrast_temperature
        )
        simclr = jnp.mean(values)
        weight = self.options.contrast_weight
        return {"loss_contrast": simclr}, weight * simclr
