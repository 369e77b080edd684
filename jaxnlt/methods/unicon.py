"""UNICON: class-uniform selection, and contrast of the unlabelled images.

Karim et al., "UNICON: Combating Label Noise Through Uniform Selection and
Contrastive Learning", CVPR 2022, arXiv 2203.14542.

DivideMix whose clean set holds the same number of samples of every given
class, those on which both networks together disagree least with the label; so
the selection of either network may teach.
Weak views make the targets, strong views are trained on, and two strong views
of an unlabelled image attract each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Literal, NamedTuple

import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.config import rates
from jaxnlt.config.family import PenaltyOptions, ProjectionDim
from jaxnlt.config.fields import NotNegative, Range, Rate, Share, Temperature
from jaxnlt.data.sampling import LastBatch
from jaxnlt.method import (
    DataInfo,
    Net,
    Outputs,
    Phase,
    PyTree,
    Selection,
    Selector,
    Stream,
)
from jaxnlt.methods import dividemix
from jaxnlt.models.layers import l2_normalise
from jaxnlt.runtime.errors import UserError

# Selection -------------------------------------------------------------------

#: config.unicon.jsd_log -> what a disagreement in nats is divided by.
UNITS = {"2": np.log(2), "e": 1.0}


def disagreement(
    logits: Sequence[np.ndarray], labels: np.ndarray, log: str
) -> np.ndarray:
    """Jensen-Shannon divergence of label and mean prediction.

    Args:
      logits: of every network, [N, C].
      labels: [N] given labels.
      log: 2 for [0, 1], e for [0, ln 2], as the release.

    Returns:
      float64 [N].

    Source: UNICON eq. 2; ``papers/unicon.md`` section 3.
    """
    one_hot, scores = np.eye(np.shape(logits[0])[1]), np.empty(len(labels))
    for part in selection.row_blocks(np.shape(logits[0])):
        probs = np.mean([selection.softmax(z[part]) for z in logits], axis=0)
        scores[part] = selection.jsd(probs, one_hot[labels[part]])
    return scores / UNITS[log]


def cutoff(scores: np.ndarray, limit: float, tau: float) -> float:
    r"""Disagreement below which a sample counts for the share of clean ones.

    The mean; where that exceeds the limit, :math:`\bar d - (\bar d - \min
    d)/\tau`.

    Args:
      scores: [N] disagreements.
      limit: d_u.
      tau: how far the cutoff then moves to the smallest score, at least 1.

    Returns:
      The cutoff.

    Source: UNICON section 3.2; ``papers/unicon.md`` section 3.
    """
    mean = float(np.mean(scores))
    if mean > limit:
        mean -= (mean - float(np.min(scores))) / tau
    return mean


def select_uniform(
    scores: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    share: float,
    repeat_index_0: bool,
) -> np.ndarray:
    """The same number of least disagreeing samples of every given class.

    Args:
      scores: [N] disagreements.
      labels: [N] given labels.
      num_classes: C.
      share: of all samples that are to be selected; a class that is too small
        gives all it has.
      repeat_index_0: whether the places that stay free, of int(share N),
        repeat sample 0, and those of a class of one sample repeat that sample,
        as in the release.

    Returns:
      int64 [n] selected rows, class by class.

    Source: UNICON section 3.2; ``papers/unicon.md`` section 4.
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


def refinement_weights(scores: np.ndarray) -> np.ndarray:
    """Weight of the given label: 1 below a disagreement of 1/2, else 1 - d.

    Source: ``papers/unicon.md`` section 4.
    """
    return np.where(scores < 0.5, 1.0, 1.0 - scores)


@dataclass(frozen=True)
class UniformSelectionOptions:
    """Fields of ``UniformSelection``.

    Attributes:
      jsd_log: base of the logarithm; the paper's disagreement reaches 1, that
        is 2, the release takes e, where the mean never exceeds the limit.
      disagreement_limit: mean disagreement above which the cutoff is lowered.
      cutoff_tau: how little it is lowered.
      unfilled: places that small classes leave free; the release repeats
        sample 0.
    """

    jsd_log: Literal["2", "e"] = "2"
    disagreement_limit: Share = 0.7
    cutoff_tau: Annotated[float, Range(1, 1e6)] = 5.0
    unfilled: Literal["none", "repeat_index_0"] = "none"


class Selected(NamedTuple):
    """What a selection shares besides its rows.

    Attributes:
      share: float64 scalar, of all samples, that the cutoff counts as clean.
    """

    share: np.ndarray


class UniformSelection(Selector):
    """The least disagreeing samples of every class, equally many."""

    options_type = UniformSelectionOptions
    options: UniformSelectionOptions
    outputs = ("logits",)

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: PyTree,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, PyTree]:
        """Both networks score together, so k does not matter."""
        options, size = self.options, len(data.labels)
        scores = disagreement(
            [out["logits"] for out in outputs], data.labels, options.jsd_log
        )
        limit = cutoff(scores, options.disagreement_limit, options.cutoff_tau)
        share = float(np.mean(scores < limit))
        labelled = select_uniform(
            scores,
            data.labels,
            data.num_classes,
            share,
            options.unfilled == "repeat_index_0",
        )
        return Selection(
            labelled=labelled,
            unlabelled=np.setdiff1d(np.arange(size), labelled),
            weights=refinement_weights(scores),
            counts=np.bincount(
                data.labels[labelled], minlength=data.num_classes
            ),
            clean_probability=1 - scores,
            shared=Selected(np.asarray(share)),
        ), memory


# The method ------------------------------------------------------------------


def unlabelled_batch(batch_size: int, share: float, rounded: bool) -> int:
    """Unlabelled rows a step, so that both sides pass at the same pace.

    Args:
      batch_size: B, labelled rows a step.
      share: of all samples that are selected.
      rounded: to a multiple of 8 in [B/2, 2 B], so that few programs are
        compiled; else int(B / (2 share)), at least 1.

    Returns:
      Rows a step.

    Source: ``papers/unicon.md`` section 1.
    """
    wanted = batch_size / (2 * share) if share else float("inf")
    if not rounded:
        return max(1, int(min(wanted, 2.0**20)))
    low, high = max(8, batch_size // 2), max(8, 2 * batch_size)
    return 8 * round(min(max(wanted, low), high) / 8)


@dataclass(frozen=True)
class Options(PenaltyOptions, UniformSelectionOptions):
    """Fields of ``config.unicon``.

    Attributes:
      scoring_mode: train scores for the second network with the batch
        statistics of the first, in the data's order, as the release does on
        CIFAR.
      unlabelled_batch: unlabelled rows a step: exact takes int(B / 2 share) as
        the release, rounded a multiple of 8 in [B/2, 2 B], same takes B as the
        scripts for large images.
      last_batch: the end of a semi-supervised pass that is no whole batch:
        filled from the start of the pass, or dropped as in the release, whose
        WebVision script keeps it.
      contrast_weight: of the loss of two strong views.
      contrast_temperature: of that loss.
      projection_dim: length of embeddings.
      min_learning_rate: end of half a cosine that starts at ``learning_rate``.
      cosine_epochs: length of that half cosine, after which the rate rises
        again; 0 leaves the rate to ``optimizer.drops``.
      restart_every: epochs from one restart to the next, which is plain
        training on all labels; rounded, 2 at least; 0 is never.
      restart_rate: step size of a restart.
      passes: of training on each selection.
      added_pass: epochs before those with one pass more; 0 is never.
      keep: best goes on from the weights of each network that were best on
        the validation images after any pass so far, as the release does on
        Clothing1M; last from the latest ones.
    """

    lambda_u: NotNegative = 30.0
    scoring_mode: Literal["eval", "train"] = "eval"
    unlabelled_batch: Literal["rounded", "exact", "same"] = "rounded"
    last_batch: LastBatch = "filled"
    contrast_weight: NotNegative = 0.025
    contrast_temperature: Temperature = 0.05
    projection_dim: ProjectionDim = 128
    min_learning_rate: Rate = 2e-4
    cosine_epochs: NotNegative = 280.0
    restart_every: NotNegative = 0.0
    restart_rate: Rate = 1e-3
    passes: Annotated[int, Range(1, 100)] = 1
    added_pass: NotNegative = 0.0
    keep: Literal["last", "best"] = "last"


class Method(dividemix.Method):
    """UNICON with the switches of ``config.unicon``."""

    options_type = Options
    options: Options
    own_selector = "unicon"
    heads = ("logits", "embedding")

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        super().__init__(config, data)
        self.network_options = {"projection_dim": self.options.projection_dim}
        # Parameters without a gradient are left alone, decay included.
        self.warmup = replace(
            self.warmup,
            trainable=lambda path: path[0] != "embedding",
            keep=self.options.keep,
        )
        # Plain training as in the warm-up, penalty aside.
        self.restart = replace(self.warmup, name="restart", loss=self.ce_loss)

    def check(self) -> None:
        super().check()
        if self.options.cosine_epochs:
            rates.check_own(self.config, "config.unicon.cosine_epochs")
        least, rate = (
            self.options.min_learning_rate,
            self.config.optimizer.learning_rate,
        )
        if self.options.cosine_epochs and least > rate:
            raise UserError(
                "config.unicon.min_learning_rate: must be at most "
                f"config.optimizer.learning_rate, {rate:g}, is {least:g}"
            )

    def phases(self) -> Sequence[Phase]:
        if self.options.restart_every:
            return (*super().phases(), self.restart)
        return super().phases()

    def phase(self, epoch: int) -> Phase:
        """Warm-up, then a restart at the end of every period, if any.

        Source: ``papers/unicon.md`` section 7.
        """
        period, usual = self.options.restart_every, super().phase(epoch)
        if usual is self.semi and period and rates.recurs(epoch, period):
            return self.restart
        return usual

    def semi_phase(self) -> Phase:
        return replace(
            super().semi_phase(),
            streams=self.streams,
            views={
                "x": ("weak", "weak", "strong", "strong"),
                "u": ("weak", "weak", "strong", "strong"),
            },
            order="select_train_each",
            # The release leaves the network it has just trained in train mode
            # while both score for the other one.
            pool_train=self.options.scoring_mode == "train",
            passes=self.passes,
            keep=self.options.keep,
        )

    def passes(self, epoch: int) -> int:
        """How often an epoch trains on a selection.

        Source: ``papers/unicon.md`` section 7.
        """
        start = self.options.added_pass
        return self.options.passes + bool(start and epoch >= start)

    def streams(
        self, selection: Selection, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """One pass over x; u at a pace that follows the selected share."""
        batch, last = self.config.batch_size, self.options.last_batch
        if self.options.unlabelled_batch == "same":
            return base.split_streams(batch, batch, last)(selection, rng)
        labelled, rest = len(selection.labelled), len(selection.unlabelled)
        share = labelled / (labelled + rest)
        if isinstance(selection.shared, Selected):
            share = float(selection.shared.share)
        unlabelled = unlabelled_batch(
            batch, share, self.options.unlabelled_batch == "rounded"
        )
        return base.split_streams(batch, unlabelled, last)(selection, rng)

    def learning_rate(self, epoch: int) -> float:
        """Half a cosine; it rises again after ``cosine_epochs``, as released.

        Of 0 ``cosine_epochs`` it drops as elsewhere.  A restart has its own.

        Source: ``papers/unicon.md`` sections 1 and 7.
        """
        options, half = self.options, self.options.cosine_epochs
        if self.phase(epoch) is self.restart:
            return options.restart_rate
        if not half:
            return super().learning_rate(epoch)
        span = self.config.optimizer.learning_rate - options.min_learning_rate
        falling = optax.cosine_decay_schedule(span, half)

        def wave(count: base.Array) -> base.Array:
            return falling(abs((count + half) % (2 * half) - half))

        return options.min_learning_rate + rates.at_epoch(wave, epoch)

    def unlabelled_loss(
        self, net: Net, params: PyTree, u: Stream
    ) -> dividemix.ExtraLoss:
        """SimCLR loss of the strong views of the unlabelled images.

        Source: UNICON eq. 9; ``papers/unicon.md`` sections 5 and 6.
        """
        embedded = [
            l2_normalise(net(params, view, ("embedding",))["embedding"])
            for view in u.views[2:]
        ]
        values = losses.view_contrast(
            jnp.stack(embedded, axis=1), self.options.contrast_temperature
        )
        simclr = jnp.mean(values)
        weight = self.options.contrast_weight
        return dividemix.ExtraLoss(weight * simclr, {"loss_contrast": simclr})
