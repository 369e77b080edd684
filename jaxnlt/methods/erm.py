"""Empirical risk minimisation, the baseline: one loss on all given labels.

Losses against noise and long tails, resampling, and a second phase: deferred
re-weighting (Cao et al. 2019), classifier re-training or tau-normalisation
(Kang et al. 2020).  mixup: Zhang et al., ICLR 2018.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxnlt import losses, models
from jaxnlt import method as base
from jaxnlt.config.family import Margin, Scale
from jaxnlt.config.fields import (
    BetaParameter,
    Decay,
    Natural,
    NotNegative,
    Range,
)
from jaxnlt.data import sampling
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.method import (
    Batch,
    DataInfo,
    Division,
    LossResult,
    Memory,
    Net,
    Phase,
    PyTree,
    Selection,
    Streams,
    TrainState,
)
from jaxnlt.runtime.errors import UserError

#: Losses of ``losses.active_passive`` that the code of H2E compares.
#: ``papers/h2e.md`` section 11.
ActivePassive = Literal[
    "mae",
    "rce",
    "nce",
    "nfl",
    "ngce",
    "nmae",
    "nrce",
    "mae_rce",
    "nce_mae",
    "nce_rce",
    "gce_mae",
    "gce_nce",
    "gce_rce",
    "nfl_mae",
    "nfl_nce",
    "nfl_rce",
    "ngce_mae",
    "ngce_nce",
    "ngce_rce",
]


@dataclass(frozen=True)
class Options:
    """Fields of ``config.erm``.

    Attributes:
      loss: of the given labels; names with a prefix n are normalised losses,
        two names joined by an underscore are an active and a passive loss.
      view: augmentation of the images.
      num_nets: networks that vote.
      sampling: how often the classes are drawn.
      second: second phase: deferred re-weighting, classifier re-training or
        tau-normalisation.
      second_start: epochs before it; 0 without a second phase.
      lr_rise: epochs over which the learning rate rises; 0 starts with it.
      mixup_alpha: parameter of the Beta distribution; 1 is mixup's choice for
        CIFAR.
      focal_gamma: exponent of the focal losses; 0.5 is the choice for nfl.
      adjustment: strength of logit adjustment; 1 is its choice without tuning.
      ldam_margin: largest margin of LDAM.
      ldam_scale: of the cosines in LDAM.
      drw_beta: of the effective numbers in deferred re-weighting.
      gce_q: exponent of the generalised cross-entropies.
      sce_forward: weight of the cross-entropy in symmetric cross-entropy.
      sce_backward: weight of its reverse cross-entropy.
      sce_log_zero: stands for log 0 there.
      apl_active: weight of the active loss.
      apl_passive: weight of the passive loss.
      elr_weight: of the early-learning regulariser.
      elr_momentum: of its running targets.
      tau: exponent of tau-normalisation; 0 only drops the bias.
    """

    loss: Literal[
        "ce",
        "mixup",
        "focal",
        "balanced_softmax",
        "ldam",
        "logit_adjustment",
        "gce",
        "sce",
        "elr",
        "dmi",
        ActivePassive,
    ] = "ce"
    view: Literal["weak", "strong", "none"] = "weak"
    num_nets: Annotated[int, Range(1, 100)] = 1
    sampling: Literal[
        "instance", "square_root", "class_balanced", "reversed"
    ] = "instance"
    second: Literal["none", "drw", "crt", "tau_norm"] = "none"
    second_start: Natural = 0
    lr_rise: NotNegative = 0.0
    mixup_alpha: BetaParameter = 1.0
    focal_gamma: Annotated[float, Range(0, 20)] = 2.0
    adjustment: Annotated[float, Range(0, 100)] = 1.0
    ldam_margin: Margin = 0.5
    ldam_scale: Scale = 30.0
    drw_beta: Decay = 0.9999
    gce_q: Annotated[float, Range(1e-3, 1)] = 0.7
    sce_forward: NotNegative = 0.1
    sce_backward: NotNegative = 1.0
    sce_log_zero: Annotated[float, Range(-100, 0)] = -4.0
    apl_active: NotNegative = 1.0
    apl_passive: NotNegative = 1.0
    elr_weight: NotNegative = 3.0
    elr_momentum: Decay = 0.7
    tau: Annotated[float, Range(0, 10)] = 1.0


class Part(NamedTuple):
    """A part of the loss, before it is averaged.

    Attributes:
      share: weight of the part, a number or a scalar array.
      values: [B] losses.
      labels: int [B] labels that they are of.
    """

    share: jax.Array | float
    values: jax.Array
    labels: jax.Array


class RunningTargets(NamedTuple):
    """What ELR carries along.

    Attributes:
      targets: [N, C] running targets; zero until a sample is first seen.
    """

    targets: Any


#: A loss's parts, and what the network carries along.
Parts = tuple[list[Part], PyTree]


class Method(base.Method):
    """One or more networks, each trained by itself on every given label."""

    options_type = Options
    one_batch_size = True
    options: Options

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        super().__init__(config, data)
        options = self.options
        self.num_nets = options.num_nets
        own: dict[str, Callable[..., Parts]] = {
            "ce": self.ce,
            "mixup": self.mixup,
            "focal": self.focal,
            "balanced_softmax": self.balanced_softmax,
            "ldam": self.ldam,
            "logit_adjustment": self.logit_adjustment,
            "gce": self.gce,
            "sce": self.sce,
            "elr": self.elr,
        }
        of_labels = dict.fromkeys(get_args(ActivePassive), self.active_passive)
        self.losses = own | of_labels
        if options.second != "none" and options.second_start < 1:
            raise UserError(
                "config.erm.second_start: must be at least 1, is "
                f"{options.second_start}; second={options.second} after the "
                "benchmark sets it"
            )
        if options.second == "drw" and options.loss == "dmi":
            raise UserError(
                "config.erm.second: drw weighs rows, but dmi is a loss of the "
                "batch"
            )
        self.class_weights = losses.effective_weights(
            data.counts, options.drw_beta
        )
        self.train = self._phase("train", partial(self.loss, None))
        second: dict[str, Callable[[], Phase]] = {
            "none": lambda: self.train,
            "drw": lambda: self._phase(
                "drw", partial(self.loss, self.class_weights)
            ),
            "crt": self._crt_phase,
            "tau_norm": self._tau_phase,
        }
        self.second = second[options.second]()

    def starts(self) -> dict[str, int]:
        if self.options.second == "none":
            return {}
        return {"config.erm.second_start": self.options.second_start}

    def check(self) -> None:
        super().check()
        options = self.options
        weights: tuple[str, ...] = ()
        if options.loss == "sce":
            weights = ("sce_forward", "sce_backward")
        elif options.loss in get_args(ActivePassive) and "_" in options.loss:
            weights = ("apl_active", "apl_passive")
        if weights and not any(getattr(options, name) for name in weights):
            raise UserError(
                f"config.erm.{weights[0]}: and {weights[1]} are both 0, which "
                f"leaves nothing of {options.loss}"
            )

    def _phase(self, name: str, loss: base.Loss) -> Phase:
        """All data through the loss of config.erm.loss."""
        options = self.options
        cosine = options.loss == "ldam"
        mixes = options.loss == "mixup"
        return Phase(
            name=name,
            loss=loss,
            draws=self.mixup_draws if mixes else base.no_draws,
            streams=self._streams(options.sampling),
            views={"x": (options.view,)},
            # A cosine classifier has no bias.
            trainable=lambda path: not cosine or path != ("logits", "bias"),
        )

    def _crt_phase(self) -> Phase:
        """A new classifier on the frozen network, classes sampled evenly."""
        return Phase(
            name="crt",
            loss=self.crt_loss,
            streams=self._streams("class_balanced"),
            views={"x": (self.options.view,)},
            trainable=lambda path: path[0] == "logits",
        )

    def _tau_phase(self) -> Phase:
        """One batch without training; ``enter`` has rescaled the classifier."""
        whole = self._streams("instance")
        return Phase(
            name="tau_norm",
            loss=self.idle_loss,
            streams=lambda selection, rng: {
                "x": whole(selection, rng)["x"][:1]
            },
            views={"x": ("none",)},
            trainable=lambda path: False,
        )

    def _streams(self, name: str) -> Streams:
        batch, labels = self.config.batch_size, self.data.labels
        if name == "instance":
            return base.single_stream(batch)
        exponent = sampling.EXPONENTS[name]

        def rows(
            selection: Selection, rng: np.random.Generator
        ) -> dict[str, np.ndarray]:
            drawn = sampling.resampled(
                selection.labelled, labels, exponent, batch, rng
            )
            return {"x": drawn}

        return rows

    def phases(self) -> Sequence[Phase]:
        same = self.second is self.train
        return (self.train,) if same else (self.train, self.second)

    def phase(self, epoch: int) -> Phase:
        later = epoch >= self.options.second_start
        return self.second if later else self.train

    def learning_rate(self, epoch: int) -> float:
        """Rises over the first epochs, then falls by the drops.

        Source: Cao et al. 2019, section 4.
        """
        rise = self.options.lr_rise
        share = min(1.0, (epoch + 1) / rise) if rise else 1.0
        return super().learning_rate(epoch) * share

    def init_carry(self) -> PyTree:
        """Running targets of ELR."""
        if self.options.loss != "elr":
            return ()
        shape = (len(self.data.labels), self.data.num_classes)
        dtype = models.DTYPES[self.config.model.dtype][1]
        return RunningTargets(np.zeros(shape, dtype))

    def enter(
        self,
        epoch: int,
        states: list[TrainState],
        memory: Memory,
        fresh: Callable[[], list[TrainState]],
    ) -> tuple[list[TrainState], Memory]:
        """A second phase begins with a new or a rescaled classifier."""
        if epoch < self.options.second_start:
            return states, memory
        if self.options.second == "crt":
            states = [
                _with_classifier(state, **new.params["logits"])
                for state, new in zip(states, fresh(), strict=True)
            ]
        if self.options.second == "tau_norm":
            states = [
                _with_classifier(
                    state,
                    losses.tau_normalised(
                        state.params["logits"]["kernel"], self.options.tau
                    ),
                    jnp.zeros_like(state.params["logits"]["bias"]),
                )
                for state in states
            ]
        return states, memory

    def end_epoch(
        self, phase: Phase, states: list[TrainState]
    ) -> list[TrainState]:
        """After LDAM the classifier's weights are unit vectors, no bias.

        Its loss does not depend on their length, and the plain linear head
        then votes as the cosine classifier does.
        """
        if self.options.loss != "ldam" or phase.name not in ("train", "drw"):
            return states
        return [as_cosine(state) for state in states]

    # Losses ------------------------------------------------------------------

    def loss(
        self,
        weights: np.ndarray | None,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Mean loss, its rows weighed by their class if there are weights."""
        if self.options.loss == "dmi":
            total = losses.dmi(*self._given(net, params, batch))
            return LossResult(total, {"loss_dmi": total}, carry)
        parts, carry = self.losses[self.options.loss](
            net, params, batch, draws, carry
        )
        shares, rows = [], []
        for part in parts:
            shares.append(jnp.broadcast_to(part.share, part.values.shape))
            row = jnp.ones_like(part.values)
            if weights is not None:
                row = jnp.asarray(weights, part.values.dtype)[part.labels]
            rows.append(row)
        values = jnp.concatenate([part.values for part in parts])
        share, row = jnp.concatenate(shares), jnp.concatenate(rows)
        total = losses.weighted_mean(values, share * row)
        name = "ce" if self.options.loss == "mixup" else self.options.loss
        return LossResult(total, {f"loss_{name}": total}, carry)

    def _given(
        self, net: Net, params: PyTree, batch: Batch
    ) -> tuple[jax.Array, jax.Array]:
        """Logits and given labels of the batch."""
        (images,) = batch.x.views
        logits = net(params, images, ("logits",))["logits"]
        return logits, batch.x.labels

    def ce(
        self, net: Net, params: PyTree, batch: Batch, draws: Any, carry: PyTree
    ) -> Parts:
        """Cross-entropy."""
        logits, labels = self._given(net, params, batch)
        return [Part(1.0, losses.cross_entropy(logits, labels), labels)], carry

    def mixup_draws(
        self, key: jax.Array, sizes: Mapping[str, int]
    ) -> MixupDraws:
        """Coefficient and partners; Beta(alpha, alpha), not folded."""
        alpha = self.options.mixup_alpha
        return mixmatch.mixup_draws(key, alpha, sizes["x"], folded=False)

    def mixup(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: MixupDraws,
        carry: PyTree,
    ) -> Parts:
        """Cross-entropy of mixed images with both labels, mixed alike."""
        (images,) = batch.x.views
        labels, share = batch.x.labels, draws.coefficient
        mixed = mixmatch.mixup(images, share, draws.permutation)
        logits = net(params, mixed, ("logits",))["logits"]
        other = labels[draws.permutation]
        return [
            Part(share, losses.cross_entropy(logits, labels), labels),
            Part(1 - share, losses.cross_entropy(logits, other), other),
        ], carry

    def focal(
        self, net: Net, params: PyTree, batch: Batch, draws: Any, carry: PyTree
    ) -> Parts:
        """Focal loss."""
        logits, labels = self._given(net, params, batch)
        values = losses.focal(logits, labels, self.options.focal_gamma)
        return [Part(1.0, values, labels)], carry

    def balanced_softmax(
        self, net: Net, params: PyTree, batch: Batch, draws: Any, carry: PyTree
    ) -> Parts:
        """Balanced softmax with the given labels' counts."""
        logits, labels = self._given(net, params, batch)
        values = losses.balanced_softmax(logits, labels, self.data.counts)
        return [Part(1.0, values, labels)], carry

    def logit_adjustment(
        self, net: Net, params: PyTree, batch: Batch, draws: Any, carry: PyTree
    ) -> Parts:
        """Logit-adjusted cross-entropy; its strength 1 is balanced softmax."""
        logits, labels = self._given(net, params, batch)
        values = losses.logit_adjusted(
            logits, labels, self.data.counts, self.options.adjustment
        )
        return [Part(1.0, values, labels)], carry

    def ldam(
        self, net: Net, params: PyTree, batch: Batch, draws: Any, carry: PyTree
    ) -> Parts:
        """LDAM on the cosines of features and class weights."""
        (images,) = batch.x.views
        labels = batch.x.labels
        features = net(params, images, ("features",))["features"]
        values = losses.ldam(
            losses.cosines(features, params["logits"]["kernel"]),
            labels,
            losses.ldam_margins(self.data.counts, self.options.ldam_margin),
            self.options.ldam_scale,
        )
        return [Part(1.0, values, labels)], carry

    def gce(
        self, net: Net, params: PyTree, batch: Batch, draws: Any, carry: PyTree
    ) -> Parts:
        """Generalised cross-entropy."""
        logits, labels = self._given(net, params, batch)
        values = losses.generalised_cross_entropy(
            logits, labels, self.options.gce_q
        )
        return [Part(1.0, values, labels)], carry

    def sce(
        self, net: Net, params: PyTree, batch: Batch, draws: Any, carry: PyTree
    ) -> Parts:
        """Symmetric cross-entropy."""
        logits, labels = self._given(net, params, batch)
        options = self.options
        values = losses.symmetric_cross_entropy(
            logits,
            labels,
            options.sce_forward,
            options.sce_backward,
            options.sce_log_zero,
        )
        return [Part(1.0, values, labels)], carry

    def active_passive(
        self, net: Net, params: PyTree, batch: Batch, draws: Any, carry: PyTree
    ) -> Parts:
        """A loss of ``losses.active_passive``, or two of them.

        Source: Ma et al. 2020; ``papers/h2e.md`` section 11.
        """
        logits, labels = self._given(net, params, batch)
        options = self.options
        values = losses.active_passive(
            options.loss,
            logits,
            labels,
            (options.apl_active, options.apl_passive),
            options.gce_q,
            options.focal_gamma,
        )
        return [Part(1.0, values, labels)], carry

    def elr(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        carry: RunningTargets,
    ) -> Parts:
        """Cross-entropy with the early-learning regulariser."""
        logits, labels = self._given(net, params, batch)
        options, index = self.options, batch.x.index
        targets = losses.elr_update(
            carry.targets, index, logits, options.elr_momentum
        )
        values = losses.cross_entropy(logits, labels)
        values += options.elr_weight * losses.early_learning(
            logits, targets[index]
        )
        return [Part(1.0, values, labels)], RunningTargets(targets)

    def crt_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Cross-entropy of the new classifier on frozen features."""
        (images,) = batch.x.views
        logits = net.frozen(params, images, ("logits",))["logits"]
        total = jnp.mean(losses.cross_entropy(logits, batch.x.labels))
        return LossResult(total, {"loss_ce": total}, carry)

    def idle_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Nothing: the phase only evaluates."""
        return LossResult(jnp.zeros((), batch.x.weights.dtype), {}, carry)


def _with_classifier(
    state: TrainState, kernel: jax.Array, bias: jax.Array
) -> TrainState:
    """The state with another classifier, whose momentum starts from rest."""
    classifier = {"kernel": kernel, "bias": bias}
    rest = jax.tree.map(jnp.zeros_like, classifier)
    changed = state.with_momentum(state.momentum | {"logits": rest})
    return replace(changed, params=state.params | {"logits": classifier})


def as_cosine(state: TrainState) -> TrainState:
    """The state with unit class weights and no bias; momentum is kept."""
    classifier = {
        "kernel": losses.unit(state.params["logits"]["kernel"], 0),
        "bias": jnp.zeros_like(state.params["logits"]["bias"]),
    }
    return replace(state, params=state.params | {"logits": classifier})
