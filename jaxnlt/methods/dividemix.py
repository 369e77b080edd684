"""DivideMix: two networks divide the data for each other and mix it.

Li, Socher, Hoi, "DivideMix: Learning with Noisy Labels as Semi-supervised
Learning", ICLR 2020, arXiv 2002.07394.

Warm-up on all given labels, then every epoch a two-component mixture of each
network's losses divides the data for its peer; MixMatch with co-guessing and
co-refinement trains on the division.  SMR, RoLT+, TABASCO, UNICON and SFA
extend this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxnlt import losses, models, selection
from jaxnlt import method as base
from jaxnlt.config import family
from jaxnlt.config.family import (
    FamilyOptions,
    MixtureOptions,
    PenaltyOptions,
    ThresholdOptions,
)
from jaxnlt.config.fields import Range
from jaxnlt.data import sampling
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import MixupDraws, Targets
from jaxnlt.method import (
    Batch,
    DataInfo,
    DeviceOutputs,
    Division,
    Loss,
    LossResult,
    Net,
    Outputs,
    Phase,
    Pool,
    PyTree,
    Selection,
    Selector,
    Stream,
)
from jaxnlt.methods import agreement, retrain
from jaxnlt.runtime.errors import UserError, logger
from jaxnlt.selection.history import LossHistory, mean_losses

# Selection -------------------------------------------------------------------


@dataclass(frozen=True)
class LossMixtureOptions(ThresholdOptions, MixtureOptions):
    """Fields of ``LossMixture``.

    Attributes:
      average_losses: over how many selections, this one included, the loss of
        a sample is averaged.
    """

    average_losses: Annotated[int, Range(1, 1000)] = 1


class LossMixture(Selector):
    """One mixture of the min-max normalised losses of all samples.

    Source: DivideMix section 3.2 and appendix A (averaging at 90 % noise).
    """

    options_type = LossMixtureOptions
    options: LossMixtureOptions
    outputs = ("logits",)

    def init_memory(self) -> LossHistory:
        return LossHistory(np.zeros((0, 0)))

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: LossHistory,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, LossHistory]:
        averaged, memory = mean_losses(
            outputs[k]["logits"],
            data.labels,
            memory,
            self.options.average_losses,
        )
        clean = fitted(averaged, self.options, rng)
        return divide(clean, self.options.p_threshold, data), memory


def fitted(
    values: np.ndarray, options: MixtureOptions, rng: np.random.Generator
) -> np.ndarray:
    """Posterior [N] of the smaller half of a mixture, see ``gmm_probability``.

    Args:
      values: float [N].
      options: settings of the mixture.
      rng: draws the seed of its start.
    """
    return selection.gmm_probability(
        values,
        int(rng.integers(2**31)),
        max_iter=options.gmm_max_iter,
        tol=options.gmm_tol,
        reg_covar=options.gmm_reg_covar,
    )


def divide(clean: np.ndarray, threshold: float, data: DataInfo) -> Selection:
    """Trusts samples whose clean probability is above the threshold.

    Args:
      clean: float [N] clean probability, also the weight of the given label.
      threshold: strict lower bound.
      data: labels and number of classes.

    Returns:
      The selection, with counts of the trusted samples.
    """
    labelled = np.flatnonzero(clean > threshold)
    return Selection(
        labelled=labelled,
        unlabelled=np.flatnonzero(~(clean > threshold)),
        weights=clean,
        counts=np.bincount(data.labels[labelled], minlength=data.num_classes),
        clean_probability=clean,
    )


# The step --------------------------------------------------------------------


def given_label_loss(
    net: Net, params: PyTree, x: Stream
) -> tuple[jax.Array, jax.Array]:
    """Mean cross-entropy of a batch's only view, and the logits [B, C]."""
    (images,) = x.views
    logits = net(params, images, ("logits",))["logits"]
    return jnp.mean(losses.cross_entropy(logits, x.labels)), logits


def two_view_targets(
    net: Net,
    params: PyTree,
    x: Stream,
    u: Stream,
    temperature: float,
    align: mixmatch.Align = mixmatch.as_guessed,
) -> Targets:
    """Sharpened targets of both sides, each from its first two views.

    Unlabelled rows are guessed by both networks on both views, labelled rows
    refined by the trained network alone.  Train-mode passes run in the order
    u1, u2, x1, x2.

    Args:
      net: the trained network and its peer.
      params: of the trained network.
      x: the labelled batch.
      u: the unlabelled batch.
      temperature: of the sharpening.
      align: of the guesses, before they are sharpened.

    Returns:
      The targets.

    Source: DivideMix eq. 3-5.
    """
    head = ("logits",)
    own_u = [net.guess(params, view, head)["logits"] for view in u.views[:2]]
    own_x = [net.guess(params, view, head)["logits"] for view in x.views[:2]]
    peer_u = [net.peer(view, head)["logits"] for view in u.views[:2]]
    guessed, mean = align(mixmatch.mean_probs(own_u + peer_u))
    refined = mixmatch.refine(x.labels, mixmatch.mean_probs(own_x), x.weights)
    return Targets(
        mixmatch.sharpen(refined, temperature),
        mixmatch.sharpen(guessed, temperature),
        mean,
    )


class MixedLoss(NamedTuple):
    """The loss of a mixed batch, its sides apart.

    Attributes:
      labelled: scalar loss of the labelled rows.
      unlabelled: scalar squared error of the unlabelled rows, before the ramp.
      terms: what both consist of, by name.
    """

    labelled: jax.Array
    unlabelled: jax.Array
    terms: dict[str, jax.Array]


class ExtraLoss(NamedTuple):
    """A further loss of the unlabelled rows.

    Attributes:
      weighted: scalar to be added to the loss.
      terms: what it consists of, by name.
    """

    weighted: jax.Array | float
    terms: dict[str, jax.Array]


# The method ------------------------------------------------------------------


@dataclass(frozen=True)
class Options(PenaltyOptions, LossMixtureOptions):
    """Fields of ``config.dividemix``."""


class Method(base.Method):
    """DivideMix; subclasses replace the selector, a phase or the loss.

    Raises:
      UserError: a field out of its range.
    """

    options_type: ClassVar[type] = Options
    options: FamilyOptions
    own_selector = "dividemix"
    num_nets = 2
    # The paper's number of the first epoch; the ramp counts from there.
    first_epoch = 0

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        super().__init__(config, data)
        # Class sizes of the warm-up's images.
        self.warmup_counts = sampling.balanced_counts(
            data.counts, self.options.warmup_samples
        )
        self.warmup = self.supervised_phase("warmup", self.warmup_loss)
        self.semi = self.semi_phase()
        self.ending = retrain.phases(self, self.semi)
        assert self.semi.selector is not None
        averaged = getattr(self.semi.selector.options, "average_losses", 1)
        if self.options.pool_samples and averaged > 1:
            raise UserError(
                f"config.{self.group}.pool_samples: every epoch draws other "
                "samples, so average_losses must be 1"
            )
        self.warn_of_scratch()

    def warn_of_scratch(self) -> None:
        """Warns where published figures need pretrained weights.

        Source: ``papers/dividemix_rolt.md`` section 1, ``papers/smr.md``
        section 2.
        """
        config = self.config
        pretrained = config.model.pretrained or config.init_from
        trains = self.data.ids is not None
        if config.benchmark == "clothing1m" and trains and not pretrained:
            logger.warning(
                "%s: the published settings start from ImageNet weights, this "
                "run from random ones; see config.model.pretrained",
                config.benchmark,
            )

    def starts(self) -> dict[str, int]:
        return {f"config.{self.group}.warmup": self.options.warmup}

    def check(self) -> None:
        super().check()
        retrain.check(self)
        family.check_subsets(
            self.options, f"config.{self.group}", self.data.num_classes
        )

    def init_carry(self) -> PyTree:
        """The mean of the guesses, where they are aligned."""
        dtype = models.DTYPES[self.config.model.dtype][1]
        to, classes = self.options.align_to, self.data.num_classes
        return mixmatch.no_guesses(to, classes, dtype)

    def supervised_phase(self, name: str, loss: Loss, **other: Any) -> Phase:
        """One pass over the given labels, a view each.

        Args:
          name: of the phase.
          loss: of the phase.
          **other: fields of ``Phase`` that differ.
        """
        batch = self.config.warmup_batch_size
        streams = base.single_stream(batch)
        if self.options.warmup_samples:
            streams = self._subset_stream(batch)
        views = {"x": (self.options.warmup_view,)}
        phase = Phase(name=name, loss=loss, streams=streams, views=views)
        return replace(phase, **other)

    def semi_phase(self) -> Phase:
        """The semi-supervised phase, trained on the peer's division."""
        batch = self.config.batch_size
        return Phase(
            name="semi",
            loss=self.semi_loss,
            streams=base.split_streams(batch, batch),
            views={"x": ("weak", "weak"), "u": ("weak", "weak")},
            draws=lambda key, sizes: mixmatch.mixup_draws(
                key, self.options.alpha, 2 * (sizes["x"] + sizes["u"])
            ),
            selector=agreement.selector_of(self),
            taught_by="peer",
            peer=self.options.peer,
            pool=self.pool(),
        )

    def pool(self) -> Pool | None:
        """The rows that a selection looks at."""
        data, size = self.data, self.options.pool_samples
        if not size:
            return None
        return lambda epoch, k, rng: sampling.balanced_subset(
            data.labels, data.num_classes, size, rng
        )

    def _subset_stream(self, batch_size: int) -> base.Streams:
        """A stream ``x`` of one pass over a balanced subset."""
        data, size = self.data, self.options.warmup_samples

        def rows(
            selection: Selection, rng: np.random.Generator
        ) -> dict[str, np.ndarray]:
            drawn = sampling.balanced_subset(
                data.labels, data.num_classes, size, rng
            )
            return {"x": sampling.one_pass(drawn, batch_size, rng)}

        return rows

    def phases(self) -> Sequence[Phase]:
        return (self.warmup, self.semi, *self.ending)

    def phase(self, epoch: int) -> Phase:
        if retrain.begun(self, epoch):
            return self.ending[0]
        return self.warmup if epoch < self.options.warmup else self.semi

    def ce_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Mean cross-entropy with the given labels."""
        ce, _ = given_label_loss(net, params, batch.x)
        return LossResult(ce, {"loss_ce": ce}, carry)

    def warmup_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Cross-entropy, with the confidence penalty if asked for.

        Source: DivideMix section 3.1.
        """
        ce, logits = given_label_loss(net, params, batch.x)
        terms = {"loss_ce": ce}
        options = self.options
        if isinstance(options, PenaltyOptions) and options.confidence_penalty:
            penalty = jnp.mean(losses.negative_entropy(logits))
            terms["loss_negative_entropy"] = penalty
            ce = ce + penalty
        return LossResult(ce, terms, carry)

    def semi_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: MixupDraws,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Cross-entropy, ramped squared error and prior penalty, all mixed.

        Source: DivideMix eq. 9-12.
        """
        options, x, u = self.options, batch.x, batch.u
        align = mixmatch.aligner(
            options.align_to, options.align_decay, division.counts, carry
        )
        targets = two_view_targets(
            net, params, x, u, options.sharpen_temperature, align
        )
        extra = self.unlabelled_loss(net, params, u)
        # The first two views make targets, the last two are trained on.
        mixed = mixmatch.mixed_batch(x.views[-2:], u.views[-2:], targets, draws)
        if not options.unlabelled_loss:  # partners still come from all rows
            mixed = mixed._replace(
                images=mixed.images[: mixed.num_labelled],
                targets=mixed.targets[: mixed.num_labelled],
            )
        out = net(params, mixed.images, self.vote)
        loss = self.mixed_loss(out, mixed, batch, division)
        penalty = losses.prior_penalty(out["logits"])
        terms = loss.terms | {"loss_penalty": penalty}
        unlabelled = extra.weighted
        if options.unlabelled_loss:
            ramp = mixmatch.ramp(
                mixmatch.ramp_time(
                    batch.time.epoch + self.first_epoch,
                    batch.time.step,
                    division.num_labelled,
                    self.config.batch_size,
                ),
                options.warmup,
                options.ramp,
            )
            terms["lambda_u"] = options.lambda_u * ramp
            unlabelled = unlabelled + terms["lambda_u"] * loss.unlabelled
        # Copies of labelled rows, where nothing is unlabelled, weigh 0.
        some = division.num_unlabelled > 0
        total = loss.labelled + (penalty + jnp.where(some, unlabelled, 0))
        return LossResult(total, terms | extra.terms, targets.mean)

    def unlabelled_loss(self, net: Net, params: PyTree, u: Stream) -> ExtraLoss:
        """A further loss of the unlabelled rows; DivideMix has none."""
        return ExtraLoss(0.0, {})

    def mixed_loss(
        self,
        out: DeviceOutputs,
        mixed: mixmatch.Mixed,
        batch: Batch,
        division: Division,
    ) -> MixedLoss:
        """Cross-entropy and squared error of the mixed batch.

        Args:
          out: train-mode outputs of the mixed images.
          mixed: the mixed batch.
          batch: the batch before mixing.
          division: what the loss receives of the selection.
        """
        found = mixmatch.terms(out["logits"], mixed.targets, mixed.num_labelled)
        terms = {"loss_ce": found.ce}
        if self.options.unlabelled_loss:
            terms["loss_mse"] = found.mse
        return MixedLoss(found.ce, found.mse, terms)
