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
from collections.abc import Sequence
from dataclasses import replace

import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.methods import dividemix
from jaxnlt.models.layers import l2_normalise
from jaxnlt.runtime.errors import UserError, one_of

CHOICES = {
    "jsd_log": ("2", "e"),
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
        scores = disagreement(
            [out["logits"] for out in outputs], data.labels, options.jsd_log
        )
        cutoff = cutoff(scores, options.disagreement_limit, options.cutoff_tau)
        share = float(np.mean(scores < cutoff))
        labelled = select_uniform(
            *(scores, data.labels, data.num_classes, share),
            options.unfilled == "repeat_index_0",
        )
        return base.Selection(
            labelled=labelled,
            unlabelled=np.setdiff1d(np.arange(size), labelled),
            weights=refinement_weights(scores),
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
        unlabelled = unlabelled_batch(
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
        values = losses.view_contrast(
            jnp.stack(embedded, axis=1), self.options.contrast_temperature
        )
        simclr = jnp.mean(values)
        weight = self.options.contrast_weight
        return {"loss_contrast": simclr}, weight * simclr


Array = np.ndarray

#: config.unicon.jsd_log -> what a disagreement in nats is divided by.
UNITS = {"2": np.log(2), "e": 1.0}


def disagreement(logits: Sequence[Array], labels: Array, log: str) -> Array:
    """Jensen-Shannon divergence of label and mean prediction.

    Args:
      logits: of every network, [N, C].
      labels: [N] given labels.
      log: '2' for [0, 1], 'e' for [0, ln 2], as the release.

    Returns:
      float64[N].

    Source: UNICON eq. 2; papers/unicon.md section 3.
    """
    one_hot, scores = np.eye(np.shape(logits[0])[1]), np.empty(len(labels))
    for part in selection.blocks(len(labels)):
        probs = np.mean([selection.softmax(z[part]) for z in logits], axis=0)
        scores[part] = selection.jsd(probs, one_hot[labels[part]])
    return scores / UNITS[log]


def cutoff(scores: Array, limit: float, tau: float) -> float:
    r"""Disagreement below which a sample counts for the share of clean ones.

    The mean; where that exceeds the limit, :math:`\bar d - (\bar d - \min
    d)/\tau`.

    Args:
      scores: [N] disagreements.
      limit: d_u.
      tau: how far the cutoff then moves to the smallest score, at least 1.

    Returns:
      The cutoff.

    Source: UNICON section 3.2; papers/unicon.md section 3.
    """
    mean = float(np.mean(scores))
    if mean > limit:
        mean -= (mean - float(np.min(scores))) / tau
    return mean


def select_uniform(
    scores: Array,
    labels: Array,
    num_classes: int,
    share: float,
    repeat_index_0: bool,
) -> Array:
    """The same number of least disagreeing samples of every given class.

    Args:
      scores: [N] disagreements.
      labels: [N] given labels.
      num_classes: C.
      share: of all samples that are to be selected; a class that is too small
        gives all it has.
      repeat_index_0: whether the places that stay free, of int(share N),
        repeat sample 0, and the only sample of a class its class's, as the
        release does.

    Returns:
      int64[n] selected rows, class by class.

    Source: UNICON section 3.2; papers/unicon.md section 4.
    """
    total = int(share * len(labels))
    per_class = int(share * len(labels) / num_classes)
    rows = []
    for members in selection.class_rows(labels, num_classes):
        chosen = members
        if len(members) >= per_class:
            order = np.argsort(scores[members], kind="stable")
            chosen = members[order[:per_class]]
        if repeat_index_0 and len(members) == 1:
            chosen = np.repeat(members, per_class)
        rows.append(chosen)
    selected = np.concatenate(rows)
    if repeat_index_0:
        free = np.zeros(total - len(selected), np.int64)
        selected = np.concatenate([selected, free])
    return selected


def refinement_weights(scores: Array) -> Array:
    """Weight of the given label: 1 below a disagreement of 1/2, else 1 - d.

    Source: papers/unicon.md section 4.
    """
    return np.where(scores < 0.5, 1.0, 1.0 - scores)


def unlabelled_batch(batch_size: int, share: float, rounded: bool) -> int:
    """Unlabelled rows a step, so that both sides pass at the same pace.

    Args:
      batch_size: B, labelled rows a step.
      share: of all samples that are selected.
      rounded: to a multiple of 8 in [B/2, 2 B], so that few programs are
        compiled; else int(B / (2 share)), at least 1.

    Returns:
      Rows a step.

    Source: papers/unicon.md section 1.
    """
    wanted = batch_size / (2 * share) if share else float("inf")
    if not rounded:
        return max(1, int(min(wanted, 2.0**20)))
    low, high = max(8, batch_size // 2), max(8, 2 * batch_size)
    return 8 * round(min(max(wanted, low), high) / 8)
