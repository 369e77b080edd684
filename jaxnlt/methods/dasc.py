"""DaSC: distribution-aware sample selection and contrastive learning.

Baik, Yoon, Kim, Choi, "Distribution-Aware Robust Learning from Long-Tailed
Data with Noisy Labels", ECCV 2024, arXiv 2407.16802.

Two networks, each with a conventional and a balanced head and a projector.
Warm-up trains both heads on all given labels, from some epoch on with a
class-balanced contrastive loss (SBCL).  Then every epoch divides the data by
distribution-aware centroids (DaCC), trains on DivideMix's terms for both
heads, keeps SBCL for confident samples and discriminates instances of the
others (MIDL) against a memory that the networks exchange.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxnlt import losses, models, selection
from jaxnlt import method as base
from jaxnlt.config.family import (
    Growth,
    ProjectionDim,
    SemiOptions,
    ThresholdOptions,
)
from jaxnlt.config.fields import (
    Natural,
    NotNegative,
    Range,
    Share,
    Temperature,
)
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import MixupDraws, Targets
from jaxnlt.method import (
    Batch,
    DataInfo,
    DeviceOutputs,
    Division,
    LossResult,
    Net,
    Outputs,
    Phase,
    PyTree,
    Selection,
    Selector,
    Stream,
    TrainState,
)
from jaxnlt.methods import agreement, retrain
from jaxnlt.runtime.errors import UserError, logger

CONTRASTIVE = ("projector", "prototype_projector")
BOTH_HEADS = ("logits", "balanced")

# Selection: DaCC -------------------------------------------------------------


class DaccScores(NamedTuple):
    """What DaCC computes before its mixtures.

    Attributes:
      mask: bool[N] samples that make the centroids.
      centroids: [C, D] unit rows.
      losses: [N] minus the assignment to the given label, min-max normalised
        over all samples.
    """

    mask: np.ndarray
    centroids: np.ndarray
    losses: np.ndarray


def dacc_scores(
    features: np.ndarray,
    logits: np.ndarray,
    balanced: np.ndarray,
    labels: np.ndarray,
    threshold: float,
    temperature: float,
) -> DaccScores:
    r"""Distribution-aware class centroids and the distance of each sample.

    .. math:: c_k = \mathrm{norm}\Big(\sum_{i \in M}
       \mathrm{softmax}(z_i/T)_k\, f_i\Big)

    where M holds the samples of which both heads are more confident than the
    threshold.  Given labels play no part in the centroids.

    Args:
      features: [N, D]; normalised here.
      logits: [N, C] of the conventional head, which also makes the weights.
      balanced: [N, C] of the balanced head.
      labels: [N] given labels.
      threshold: strict lower bound of both heads' largest probability.
      temperature: T, divides the logits.

    Returns:
      DaccScores.  When no sample is confident, all make the centroids.

    Source: DaSC section 3.2; ``papers/dasc.md`` section 6.1, steps 2-5.
    """
    sure = np.minimum(
        selection.largest_softmax(logits), selection.largest_softmax(balanced)
    )
    mask, own = sure > threshold, np.empty(len(labels))
    used = mask if mask.any() else np.ones_like(mask)
    sums = np.zeros((logits.shape[1], features.shape[1]))
    # With many classes an [N, C] in float64 is what does not fit: no more than
    # a block of it is held.
    with selection.one_thread():
        for part in selection.sum_blocks(logits.shape):
            these = used[part]
            weights = centroid_weights(logits[part], these, temperature)
            sums += weights.T @ selection.normalise(features[part][these])
        centroids = selection.normalise(sums)
        for part in selection.row_blocks(logits.shape):
            cosines = selection.normalise(features[part]) @ centroids.T
            own[part] = selection.softmax_of(cosines, labels[part])
    return DaccScores(mask, centroids, selection.min_max(-own))


def centroid_weights(
    logits: np.ndarray, used: np.ndarray, temperature: float
) -> np.ndarray:
    """Share of each sample in each centroid.

    Args:
      logits: [N, C] of the conventional head.
      used: bool[N], n samples that make the centroids.
      temperature: divides the logits.

    Returns:
      float64[n, C].

    Source: ``papers/dasc.md`` section 6.1, step 3.
    """
    rows = np.flatnonzero(used)
    weights = np.empty((len(rows), logits.shape[1]))
    for part in selection.row_blocks(weights.shape):
        scaled = np.asarray(logits[rows[part]], np.float64) / temperature
        weights[part] = selection.softmax(scaled)
    return weights


def labelled_weights(
    clean: np.ndarray, labelled: np.ndarray, aligned: bool
) -> np.ndarray:
    """Weight of each sample's given label in refinement.

    Args:
      clean: [N] clean probability.
      labelled: int[n] selected rows.
      aligned: whether a selected sample gets its own probability.  DaSC's
        release hands the j-th selected sample the probability of sample j.

    Returns:
      [N] weights; those of unselected rows are not used.

    Source: ``papers/dasc.md`` section 9 (B1).
    """
    if aligned:
        return clean
    weights = clean.copy()
    weights[labelled] = clean[: len(labelled)]
    return weights


@dataclass(frozen=True)
class DaCCOptions(ThresholdOptions):
    """Fields of ``DaCC``.

    Attributes:
      phi: growth of the confidence threshold an epoch.
      eval_temperature: divides the logits that weigh samples in the centroids.
      feature_type: project clusters projections, default pooled features.
      contrast: whether SBCL trains the projector; without it DaCC clusters
        pooled features.
      untrained_projector: cluster projections all the same, as the release
        does (B3).
      aligned_clean_prob: whether a selected sample gets its own clean
        probability as weight; the release takes another sample's (B1).
    """

    phi: Growth = 1.005
    eval_temperature: Temperature = 0.1
    feature_type: Literal["project", "default"] = "project"
    contrast: bool = True
    untrained_projector: bool = False
    aligned_clean_prob: bool = True


class DaCC(Selector):
    """Distribution-aware class centroids and one mixture for each given class.

    Networks without a balanced head use the conventional one twice; without a
    projector, or where nothing trains it, pooled features are clustered.
    """

    options_type = DaCCOptions
    options: DaCCOptions

    def __init__(self, options: DaCCOptions, heads: tuple[str, ...] = ()):
        super().__init__(options, heads)
        trained = options.contrast or options.untrained_projector
        project = options.feature_type == "project" and trained
        self.feature_head = "features"
        if project and "projection" in heads:
            self.feature_head = "projection"
        self.balanced = "balanced" if "balanced" in heads else "logits"
        self.outputs = tuple(
            dict.fromkeys(("logits", self.balanced, self.feature_head))
        )

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: PyTree,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, PyTree]:
        options, out = self.options, outputs[k]
        threshold = selection.growing_threshold(
            epoch, data.num_classes, options.phi
        )
        scores = dacc_scores(
            features=out[self.feature_head],
            logits=out["logits"],
            balanced=out[self.balanced],
            labels=data.labels,
            threshold=threshold,
            temperature=options.eval_temperature,
        )
        if not scores.mask.any():
            logger.warning(
                "DaCC: no sample of network %d passes the confidence "
                "threshold %.3f in epoch %d; all make the centroids",
                k,
                threshold,
                epoch + 1,
            )
        clean = selection.per_class_gmm(
            scores.losses, data.labels, data.num_classes
        )
        chosen = clean > options.p_threshold
        labelled = np.flatnonzero(chosen)
        counts = np.bincount(data.labels[labelled], minlength=data.num_classes)
        weights = labelled_weights(clean, labelled, options.aligned_clean_prob)
        return Selection(
            labelled=labelled,
            unlabelled=np.flatnonzero(~chosen),
            weights=weights,
            counts=counts,
            clean_probability=clean,
        ), memory


# The memory of MIDL ----------------------------------------------------------


class ContrastMemory(NamedTuple):
    """Keys of earlier batches, a first-in-first-out memory of fixed size.

    Attributes:
      rows: [M, D] unit rows, oldest first.
      fill: int scalar; the last ``fill`` rows are valid.
      guesses: ``mixmatch.GuessMean`` of the network; () where guesses are not
        aligned.
    """

    rows: Any
    fill: Any
    guesses: Any = ()


def fifo(
    memory: ContrastMemory, rows: jax.Array, keep: jax.Array
) -> ContrastMemory:
    """Appends rows to the memory.

    Args:
      memory: before.
      rows: [n, D] in the order they come.
      keep: bool [n] which of them enter.

    Returns:
      The new memory; no gradient flows into it.

    Source: DaSC section 3.4; ``papers/dasc.md`` section 6.4.
    """
    size = memory.rows.shape[0]
    rows = jax.lax.stop_gradient(rows).astype(memory.rows.dtype)
    valid = jnp.concatenate([jnp.arange(size) >= size - memory.fill, keep])
    # A stable sort moves the invalid rows to the front and keeps the order.
    order = jnp.argsort(valid, stable=True)[len(rows) :]
    fill = memory.fill + keep.sum(dtype=memory.fill.dtype)
    return memory._replace(
        rows=jnp.concatenate([memory.rows, rows])[order],
        fill=jnp.minimum(size, fill),
    )


def confidence(
    largest: jax.Array, threshold: float
) -> tuple[jax.Array, jax.Array]:
    """Rows strictly above and strictly below the threshold, bool each.

    A row that meets it exactly is an anchor of neither contrastive loss.
    """
    return largest > threshold, largest < threshold


class Sizes(NamedTuple):
    """Rows of the labelled and of the unlabelled batch."""

    x: int
    u: int


def _views(rows: jax.Array, sizes: Sizes) -> tuple[jax.Array, jax.Array]:
    """First and second views, [x; u] each, of rows ordered x1, x2, u1, u2."""
    ends = [sizes.x, 2 * sizes.x, 2 * sizes.x + sizes.u]
    x1, x2, u1, u2 = jnp.split(rows, ends)
    return jnp.concatenate([x1, u1]), jnp.concatenate([x2, u2])


# The method ------------------------------------------------------------------


@dataclass(frozen=True)
class Options(SemiOptions, DaCCOptions):
    """Fields of ``config.dasc``.

    Attributes:
      contrast_start: epochs before SBCL, within the warm-up.
      contrast_weight: of SBCL.
      contrast_temperature: of SBCL.
      confidence_threshold: of the largest target: rows above it are anchors of
        SBCL, rows below it of MIDL.
      projection_dim: length of projections.
      midl: whether unsure rows are discriminated.
      midl_weight: of MIDL.
      midl_temperature: of MIDL.
      memory_size: keys in the memory of MIDL.
      midl_label: zero is InfoNCE's own key; the release numbers the rows (B2).
      midl_key: mixed_batch as in the code, two_views as in the figure (D1).
      memory_rows: all enter the memory as in the code, or the low_confidence
        ones as in the figure (D2).
      prior_penalty: in the code, not among the paper's terms (D3).
      memory_exchange: in the code, not in the paper's text (D6).
      lr_decay: divide the step size by 10 after ``lr_decay_epoch`` epochs; off
        in the released command.
      lr_decay_epoch: see ``lr_decay``.
    """

    contrast_start: Natural = 10
    contrast_weight: NotNegative = 0.5
    contrast_temperature: Temperature = 0.1
    confidence_threshold: Share = 0.9
    projection_dim: ProjectionDim = 128
    midl: bool = True
    midl_weight: NotNegative = 0.3
    midl_temperature: Temperature = 0.5
    memory_size: Annotated[int, Range(1, 2**20)] = 1024
    midl_label: Literal["zero", "arange"] = "zero"
    midl_key: Literal["mixed_batch", "two_views"] = "mixed_batch"
    memory_rows: Literal["all", "low_confidence"] = "all"
    prior_penalty: bool = True
    memory_exchange: bool = True
    lr_decay: bool = False
    lr_decay_epoch: NotNegative = 80.0


class HeadLosses(NamedTuple):
    """Mean losses of the two heads on one view."""

    ce: jax.Array
    balanced_ce: jax.Array


class Method(base.Method):
    """DaSC with every switch of ``config.dasc``."""

    options_type = Options
    options: Options
    own_selector = "dacc"
    num_nets = 2
    heads = ("logits", "balanced", "projection", "prototypes")
    vote = BOTH_HEADS

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        super().__init__(config, data)
        options = self.options
        if options.midl and not options.contrast:
            raise UserError(
                "config.dasc.midl: needs the projector that "
                "config.dasc.contrast=True trains"
            )
        self.network_options = {
            "bottleneck": True,
            "projection_dim": options.projection_dim,
        }
        all_rows = base.single_stream(config.warmup_batch_size)
        self.warmup = Phase(
            name="warmup",
            loss=self.warmup_loss,
            streams=all_rows,
            views={"x": (options.warmup_view,) * 2},
            # Parameters without a gradient are left alone, decay included.
            trainable=lambda path: path[0] not in CONTRASTIVE,
        )
        self.warmup_contrast = Phase(
            name="warmup_contrast",
            loss=self.warmup_contrast_loss,
            streams=all_rows,
            views={"x": (options.warmup_view,) * 2},
        )
        batch = config.batch_size
        self.semi = Phase(
            name="semi",
            loss=self.semi_loss,
            streams=base.split_streams(batch, batch),
            views={
                "x": ("strong", "strong", "weak"),
                "u": ("strong", "strong", "weak"),
            },
            draws=lambda key, sizes: mixmatch.mixup_draws(
                key, options.alpha, 2 * (sizes["x"] + sizes["u"])
            ),
            selector=agreement.selector_of(self),
            taught_by="peer",
            peer="updated",
            trainable=lambda path: (
                options.contrast or path[0] not in CONTRASTIVE
            ),
        )
        self.ending = retrain.phases(self, self.semi)

    def check(self) -> None:
        super().check()
        retrain.check(self)

    def starts(self) -> dict[str, int]:
        names = ["warmup"]
        if self.options.contrast:
            names.insert(0, "contrast_start")
        return {
            f"config.dasc.{name}": getattr(self.options, name) for name in names
        }

    def phases(self) -> Sequence[Phase]:
        if self.options.contrast:
            warmups = (self.warmup, self.warmup_contrast)
            return (*warmups, self.semi, *self.ending)
        return (self.warmup, self.semi, *self.ending)

    def phase(self, epoch: int) -> Phase:
        if retrain.begun(self, epoch):
            return self.ending[0]
        if epoch >= self.options.warmup:
            return self.semi
        if self.options.contrast and epoch >= self.options.contrast_start:
            return self.warmup_contrast
        return self.warmup

    def learning_rate(self, epoch: int) -> float:
        decayed = self.options.lr_decay and epoch >= self.options.lr_decay_epoch
        return super().learning_rate(epoch) * (0.1 if decayed else 1.0)

    def init_carry(self) -> ContrastMemory:
        shape = (self.options.memory_size, self.options.projection_dim)
        dtype = models.DTYPES[self.config.model.dtype][1]
        to, classes = self.options.align_to, self.data.num_classes
        return ContrastMemory(
            np.zeros(shape, dtype),
            np.int32(0),
            mixmatch.no_guesses(to, classes, dtype),
        )

    def end_epoch(
        self, phase: Phase, states: list[TrainState]
    ) -> list[TrainState]:
        """After a semi-supervised epoch the networks exchange memories."""
        if phase is not self.semi or not self.options.memory_exchange:
            return states
        first, second = states
        return [
            replace(own, carry=other.carry._replace(guesses=own.carry.guesses))
            for own, other in ((first, second), (second, first))
        ]

    # Warm-up -----------------------------------------------------------------

    def _both_heads(
        self, out: DeviceOutputs, labels: jax.Array, counts: jax.Array
    ) -> HeadLosses:
        ce = jnp.mean(losses.cross_entropy(out["logits"], labels))
        balanced = losses.balanced_softmax(out["balanced"], labels, counts)
        return HeadLosses(ce, jnp.mean(balanced))

    def warmup_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: ContrastMemory,
    ) -> LossResult:
        """Both heads on two weak views, summed over heads, halved for views.

        Source: DaSC section 3.1; ``papers/dasc.md`` section 5.
        """
        first, second = (
            self._both_heads(
                net(params, view, BOTH_HEADS), batch.x.labels, division.counts
            )
            for view in batch.x.views
        )
        ce = (first.ce + second.ce) / 2
        balanced = (first.balanced_ce + second.balanced_ce) / 2
        terms = {"loss_ce": ce, "loss_balanced_ce": balanced}
        return LossResult(ce + balanced, terms, carry)

    def warmup_contrast_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: ContrastMemory,
    ) -> LossResult:
        """Warm-up with the supervised contrastive loss, filling the memory.

        Source: DaSC section 3.3; ``papers/dasc.md`` sections 5 and 6.3.
        """
        options, labels = self.options, batch.x.labels
        view_a, view_b = batch.x.views
        heads = (*BOTH_HEADS, "projection")
        a = net(params, view_a, (*heads, "prototypes"))
        b = net(params, view_b, heads)
        first, second = (
            self._both_heads(out, labels, division.counts) for out in (a, b)
        )
        ce = (first.ce + second.ce) / 2
        balanced = (first.balanced_ce + second.balanced_ce) / 2
        projections = jnp.concatenate([a["projection"], b["projection"]])
        targets = jax.nn.one_hot(
            jnp.tile(labels, 2), self.data.num_classes, dtype=projections.dtype
        )
        contrast = jnp.mean(
            losses.class_balanced_contrastive(
                projections,
                targets,
                a["prototypes"],
                options.contrast_temperature,
            )
        )
        if options.midl:
            everyone = jnp.ones(labels.shape, bool)
            carry = fifo(carry, a["projection"], everyone)
        total = ce + balanced + options.contrast_weight * contrast
        terms = {
            "loss_ce": ce,
            "loss_balanced_ce": balanced,
            "loss_contrast": contrast,
        }
        return LossResult(total, terms, carry)

    # Semi-supervised stage ---------------------------------------------------

    def targets(
        self,
        net: Net,
        params: PyTree,
        x: Stream,
        u: Stream,
        align: mixmatch.Align = mixmatch.as_guessed,
    ) -> Targets:
        """Sharpened targets of both sides, from the third, weak view.

        Unlabelled rows are guessed by the conventional heads alone, labelled
        rows refined by both heads of both networks.

        Source: DivideMix eq. 3-5; ``papers/dasc.md`` section 6.2, steps 1 and
        2.
        """
        view_x, view_u = x.views[2], u.views[2]
        own_u = net.guess(params, view_u, ("logits",))
        own_x = net.guess(params, view_x, BOTH_HEADS)
        other_u = net.peer(view_u, ("logits",))
        other_x = net.peer(view_x, BOTH_HEADS)
        guessed, mean = align(
            mixmatch.mean_probs([own_u["logits"], other_u["logits"]])
        )
        refined = mixmatch.refine(
            x.labels,
            mixmatch.mean_probs(
                [out[head] for out in (own_x, other_x) for head in BOTH_HEADS]
            ),
            x.weights,
        )
        temperature = self.options.sharpen_temperature
        return Targets(
            mixmatch.sharpen(refined, temperature),
            mixmatch.sharpen(guessed, temperature),
            mean,
        )

    def semi_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: MixupDraws,
        division: Division,
        carry: ContrastMemory,
    ) -> LossResult:
        """MixMatch on both heads, SBCL and MIDL.

        Source: DaSC section 3; ``papers/dasc.md`` section 6.2.
        """
        options, x, u = self.options, batch.x, batch.u
        align = mixmatch.aligner(
            options.align_to,
            options.align_decay,
            division.counts,
            carry.guesses,
        )
        targets = self.targets(net, params, x, u, align)
        carry = carry._replace(guesses=targets.mean)
        mixed = mixmatch.mixed_batch(x.views[:2], u.views[:2], targets, draws)
        heads = BOTH_HEADS + ("projection",) * options.contrast
        out = net(params, mixed.images, heads)

        prior = losses.log_prior(division.counts)
        prior = prior.astype(out["balanced"].dtype)
        num_x = mixed.num_labelled
        own = mixmatch.terms(out["logits"], mixed.targets, num_x)
        balanced = mixmatch.terms(out["balanced"], mixed.targets, num_x, prior)
        time = mixmatch.ramp_time(
            batch.time.epoch,
            batch.time.step,
            division.num_labelled,
            self.config.batch_size,
        )
        ramp = mixmatch.ramp(time, options.warmup, options.ramp)
        lambda_u = options.lambda_u * ramp
        terms = {
            "loss_ce": own.ce,
            "loss_mse": own.mse,
            "loss_balanced_ce": balanced.ce,
            "loss_balanced_mse": balanced.mse,
            "lambda_u": lambda_u,
        }
        # Copies of labelled rows, where nothing is unlabelled, weigh nothing.
        weight_u = jnp.where(division.num_unlabelled > 0, lambda_u, 0)
        total = own.ce + balanced.ce + weight_u * (own.mse + balanced.mse)
        if options.prior_penalty:
            terms["loss_penalty"] = losses.prior_penalty(out["logits"])
            total += terms["loss_penalty"]
        if options.contrast:
            contrast = self.contrast_loss(
                net, params, batch, targets, out["projection"], draws, carry
            )
            terms |= contrast.terms
            total += contrast.loss
            carry = contrast.carry
        return LossResult(total, terms, carry)

    def contrast_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        targets: Targets,
        mixed_projections: jax.Array,
        draws: MixupDraws,
        carry: ContrastMemory,
    ) -> LossResult:
        """SBCL of confident rows and MIDL of the others, weighted.

        Source: DaSC sections 3.3 and 3.4; ``papers/dasc.md`` sections 6.3 and
        6.4.
        """
        options, x, u = self.options, batch.x, batch.u
        sizes = Sizes(len(targets.labelled), len(targets.unlabelled))
        images = jnp.concatenate([*x.views[:2], *u.views[:2]])
        of_rows = jnp.concatenate(
            [
                targets.labelled,
                targets.labelled,
                targets.unlabelled,
                targets.unlabelled,
            ]
        )
        plain = net(params, images, ("projection", "prototypes"))
        confident, unsure = confidence(
            of_rows.max(-1), options.confidence_threshold
        )
        terms = {
            "loss_contrast": losses.masked_mean(
                losses.class_balanced_contrastive(
                    plain["projection"],
                    of_rows,
                    plain["prototypes"],
                    options.contrast_temperature,
                ),
                confident,
            )
        }
        total = options.contrast_weight * terms["loss_contrast"]
        if options.midl:
            terms["loss_midl"] = self.midl(
                plain["projection"], unsure, carry, sizes
            )
            total += options.midl_weight * terms["loss_midl"]
            keys = mixed_projections
            if options.midl_key == "two_views":
                keys = self.two_view_keys(
                    net, params, images, draws.coefficient, sizes
                )
            carry = self.remember(carry, keys, unsure, sizes)
        return LossResult(total, terms, carry)

    def midl(
        self,
        projections: jax.Array,
        unsure: jax.Array,
        carry: ContrastMemory,
        sizes: Sizes,
    ) -> jax.Array:
        """Instance discrimination of the rows that are not confident.

        Args:
          projections: [2 Bx + 2 Bu, D] in the order x1, x2, u1, u2.
          unsure: bool [2 Bx + 2 Bu] rows below the confidence threshold.
          carry: the memory.
          sizes: Bx and Bu.

        Returns:
          Scalar mean over the unsure first views, 0 if there are none.

        Source: DaSC section 3.4; ``papers/dasc.md`` sections 6.4 and 9 (B2).
        """
        queries, keys = _views(projections, sizes)
        released = self.options.midl_label == "arange"
        values = losses.info_nce(
            queries,
            keys,
            carry.rows,
            carry.fill,
            self.options.midl_temperature,
            jnp.arange(len(queries)) if released else None,
        )
        return losses.masked_mean(values, _views(unsure, sizes)[0])

    def two_view_keys(
        self,
        net: Net,
        params: PyTree,
        images: jax.Array,
        coefficient: jax.Array,
        sizes: Sizes,
    ) -> jax.Array:
        """Keys of mixed views of the same image, as DaSC's figure shows them.

        Returns:
          [2 Bx + 2 Bu, D], each key twice, in the order x1, x2, u1, u2.

        Source: ``papers/dasc.md`` section 9 (D1).
        """
        first, second = _views(images, sizes)
        coefficient = jnp.asarray(coefficient, images.dtype)
        blend = coefficient * first + (1 - coefficient) * second
        keys = net.guess(params, blend, ("projection",))["projection"]
        keys_x, keys_u = jnp.split(keys, [sizes.x])
        return jnp.concatenate([keys_x, keys_x, keys_u, keys_u])

    def remember(
        self,
        carry: ContrastMemory,
        keys: jax.Array,
        unsure: jax.Array,
        sizes: Sizes,
    ) -> ContrastMemory:
        """Appends second-view keys, all of them or only those of unsure rows.

        Source: ``papers/dasc.md`` sections 6.4 and 9 (D2).
        """
        _, rows = _views(keys, sizes)
        keep = _views(unsure, sizes)[1]
        if self.options.memory_rows == "all":
            keep = jnp.ones_like(keep)
        return fifo(carry, rows, keep)
