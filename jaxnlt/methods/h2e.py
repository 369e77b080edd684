"""H2E: an invariant classifier separates hard noise from hard samples.

Yi, Tang, Hua, Lim, Zhang, "Identifying Hard Noise in Long-Tailed Sample
Distribution", ECCV 2022, arXiv 2207.13378.

One network, three phases a round.  base: plain training or mixup.  identify:
on the frozen backbone a second classifier learns to be invariant over three
class distributions; its agreement with each label becomes the sample's weight.
robust: the last block and the classifier of the base network are trained with
these weights.  The next round starts a new network without the images of the
least weight.
"""

import csv
import io
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from jaxnlt import losses, models
from jaxnlt import method as base
from jaxnlt.config import fields, rates
from jaxnlt.config.fields import (
    BetaParameter,
    Factor,
    Natural,
    NotNegative,
    Positive,
    Range,
    Rate,
    Share,
)
from jaxnlt.data import cells, sampling, untrusted
from jaxnlt.data.records import HELD_OUT
from jaxnlt.losses import mixmatch
from jaxnlt.method import (
    Batch,
    DataInfo,
    Division,
    LossResult,
    Memory,
    Net,
    Outputs,
    Phase,
    PyTree,
    Selection,
    Selector,
    Stream,
    Streams,
    TrainState,
)
from jaxnlt.models.preact_resnet import PreActResNet
from jaxnlt.runtime import paths, sharding
from jaxnlt.runtime.errors import UserError, logger

STEPS = ("base", "identify", "robust")
# Stream -> exponent of the class sizes; None takes every image once.
ENVIRONMENTS = {"raw": None, "reverse": -1.0, "balance": 0.0}
# Rows of a class that follow one another where base is resampled.
GROUP = 8
FLAGGED_WEIGHT = 0.01  # of a sample whose label the identifier contradicts
LEAST_WEIGHT = 0.5  # of the least sure sample whose label it confirms

Array = jax.Array
View = Literal["weak", "strong", "none"]
Rounds = Annotated[int, Range(0, 100)]


@dataclass(frozen=True)
class Options:
    """Fields of ``config.h2e``.

    Attributes:
      rounds: 2 or more iterate; 0 is base training alone.
      iterate: later rounds drop the flagged images in base and identify, or mix
        all by their scores; the release has no code for it.
      starts: epochs of the run before every phase but the first.
      mix: base training: ce, mixup, or weighted by the clean probabilities of
        any run's labels.csv, ``scores``.
      mixup_alpha: parameter of the Beta distribution.
      scores: a labels.csv, for mix=weighted.
      resample: class-aware batches in base training; the release can do it,
        none of its configs does.
      view: of base and robust; the release has RandAugment in both.
      raw_view: of the identifier's first environment, which the release leaves
        unaugmented; the others are strong (reversed) and weak (balanced).
      weight_decay_factor: the release adds an L2 term to SGD's own decay in
        base and robust.
      identify_weight_decay: weight decay of identify.
      robust_weight_decay: weight decay of robust.
      base_peak: the base cosine starts from so many times the learning rate;
        from twice, its mean is the rate of other methods.
      identify_rate: step size of identify.
      rate_drop_every: epochs of identify between two drops.
      rate_drop_factor: of each drop.
      robust_rate: step size at the start of robust.
      erm_weight: of the risk in identify; a penalty alone is least where all
        logits are 0, and the release has no term that keeps them up.
      penalty_weight: of the invariance penalty.
      penalty_start: epochs of identify before the penalty.
      penalty_ramp: epochs of its rise.
      train_exponents: the release computes the adjustment once, from exponents
        of 1.
      prior_subtractions: the release subtracts the prior in the head and once
        more.
      frozen_bn: the release's frozen backbone still moves its BN statistics.
      freeze: robust trains the last block and the classifier only.
    """

    rounds: Rounds = 1
    iterate: Literal["drop", "scores"] = "drop"
    starts: Any = None
    mix: Literal["ce", "mixup", "weighted"] = "mixup"
    mixup_alpha: BetaParameter = 1.0
    scores: str = ""
    resample: bool = False
    view: View = "strong"
    raw_view: View = "weak"
    weight_decay_factor: Annotated[float, Range(0, 1000)] = 1.0
    identify_weight_decay: Share = 1e-4
    robust_weight_decay: Share = 1e-5
    base_peak: Annotated[float, Range(0, 1000)] = 2.0
    identify_rate: Rate = 0.001
    rate_drop_every: Positive = 5.0
    rate_drop_factor: Factor = 0.9
    robust_rate: Rate = 0.01
    erm_weight: NotNegative = 1.0
    penalty_weight: NotNegative = 1.0
    penalty_start: NotNegative = 5.0
    penalty_ramp: NotNegative = 5.0
    train_exponents: bool = True
    prior_subtractions: Annotated[int, Range(0, 10)] = 1
    frozen_bn: Literal["eval", "train"] = "eval"
    freeze: bool = True


# Rounds and phases -----------------------------------------------------------


class Span(NamedTuple):
    """The epochs of one phase in one round.

    Attributes:
      step: of STEPS.
      round: from 1.
      first: its first epoch.
      end: the epoch after its last.
    """

    step: str
    round: int
    first: int
    end: int


def schedule(rounds: int, starts: Mapping, epochs: int) -> tuple[Span, ...]:
    """The phases of all rounds, in order.

    Args:
      rounds: 0 is base training alone.
      starts: ``round1``, ``round2`` ..., each with the first epoch of ``base``
        (not in round 1), ``identify`` and ``robust``.
      epochs: of the whole run; the last phase lasts until then.

    Returns:
      Spans that follow one another without a gap.

    Raises:
      UserError: the starts of other rounds, or not in order.
    """
    wanted = {f"round{r}": set(STEPS) for r in range(1, rounds + 1)}
    if rounds > 0:
        wanted["round1"] = {"identify", "robust"}
    _check_starts(starts)
    if wanted != {name: set(part) for name, part in starts.items()}:
        raise UserError(
            f"config.h2e.rounds: is {rounds}, but config.h2e.starts holds "
            "those of other rounds; rounds= after the benchmark sets both"
        )
    begun = [("base", 1, 0)]
    for number in range(1, rounds + 1):
        part = starts[f"round{number}"]
        if number > 1:
            begun.append(("base", number, part["base"]))
        begun.append(("identify", number, part["identify"]))
        begun.append(("robust", number, part["robust"]))
    for (_, _, before), (name, number, first) in itertools.pairwise(begun):
        if first <= before:
            raise UserError(
                f"config.h2e.starts.round{number}.{name}: must be after "
                f"{before}, the start of the phase before, is {first}"
            )
    last = begun[-1][-1]
    ends = [*(first for *_, first in begun[1:]), max(epochs, last + 1)]
    return tuple(
        Span(*each, end) for each, end in zip(begun, ends, strict=True)
    )


def _check_starts(starts: Any) -> None:
    """Refuses what is no mapping of rounds to the epochs of their steps."""
    where = "config.h2e.starts"
    if not hasattr(starts, "items"):
        raise UserError(
            f"{where}: is a group of fields, is {fields.shown(starts)}"
        )
    for number, part in starts.items():
        if not hasattr(part, "items"):
            raise UserError(
                f"{where}.{number}: is a group of fields, is "
                f"{fields.shown(part)}"
            )
        for step, first in part.items():
            fields.check_value(Natural, first, f"{where}.{number}.{step}")


def ramp_since(
    epoch: jax.Array, firsts: Sequence[int], start: float, length: float
) -> jax.Array:
    """Share of a term that grows anew in every round.

    Args:
      epoch: scalar, counted from the run's first.
      firsts: first epochs of the phase that has the term, the earliest of them
        not after ``epoch``.
      start: epochs of the phase before the term.
      length: epochs of its linear rise; 0 is a jump.

    Returns:
      Scalar in [0, 1].
    """
    began = jnp.asarray(firsts, epoch.dtype)
    past = epoch - jnp.max(jnp.where(began <= epoch, began, began[0]))
    if length:
        return mixmatch.ramp(past, start, length)
    return (past >= start).astype(epoch.dtype)


def last_block(model: ml_collections.ConfigDict) -> tuple[str, str]:
    """Path of the last residual block, the part of the backbone robust trains.

    Args:
      model: config.model.

    Returns:
      First two parts of the path of its parameters.

    Source: ``papers/h2e.md`` section 5.
    """
    _, blocks = models.sizes(model)
    return "backbone", f"stage{len(blocks)}_block{blocks[-1]}"


def check_block(model: ml_collections.ConfigDict) -> None:
    """Refuses a network without the block that robust would train.

    Raises:
      UserError: the network of config.model has no residual stages.
    """
    _, block = last_block(model)
    if not issubclass(models.BACKBONES[model.name][0], PreActResNet):
        raise UserError(
            f"config.h2e.freeze: {model.name} has no {block} to train alone; "
            "--config.h2e.freeze=False trains the whole network"
        )


# The identifier and its weights ----------------------------------------------


def penalty(logits: Array, labels: Array) -> Array:
    r"""Invariance penalty with one dummy scale a class.

    .. math:: \sum_c \Big(\frac1B\sum_i (p_{ic} - [y_i = c])\,z_{ic}\Big)^2

    which is the squared gradient, at :math:`s = 1`, of the mean cross-entropy
    of :math:`z \odot s` with respect to :math:`s \in R^C`: zero where no
    rescaling of single classes lowers the risk of this environment.

    Args:
      logits: [B, C], the prior already subtracted.
      labels: int[B].

    Returns:
      Scalar of at least 0, differentiable in the logits.

    Source: ``papers/h2e.md`` section 3; Arjovsky et al. 2019 have one scale for
    all classes.
    """
    probs = jax.nn.softmax(logits)
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    slope = jnp.mean((probs - one_hot) * logits, axis=0)  # [C]
    return jnp.sum(slope**2)


def instance_weights(
    adjusted_logits: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Weights of the samples from the identifier's predictions.

    A sample whose label is not the first largest logit is flagged and weighs
    0.01.  The confidences of the others, over the whole data and not by
    class, go through one min-max map onto [0.5, 1].

    Args:
      adjusted_logits: [N, C] with the prior subtracted once.
      labels: int[N] given labels.

    Returns:
      float64[N] weights and bool[N] flags.  Equal confidences, or a single
      agreeing sample, weigh 0.5; where no sample agrees all weigh 0.01, which
      a batch's normalisation turns into equal weights.

    Source: ``papers/h2e.md`` section 4.
    """
    logits = np.asarray(adjusted_logits, np.float64)
    labels = np.asarray(labels)
    flagged = logits.argmax(axis=1) != labels
    top = logits.max(axis=1, keepdims=True)
    confidence = 1 / np.exp(logits - top).sum(axis=1)
    weights = np.full(len(labels), FLAGGED_WEIGHT)
    agreeing = confidence[~flagged]
    if not len(agreeing):
        logger.warning(
            "h2e: the identifier confirms none of %d labels; all of them "
            "weigh the same",
            len(labels),
        )
        return weights, flagged
    above = agreeing - agreeing.min()
    # A range within rounding counts as 0, as in scikit-learn's scaler.
    span = above.max()
    share = above / span if span >= 10 * np.finfo(span).eps else 0 * above
    weights[~flagged] = LEAST_WEIGHT + (1 - LEAST_WEIGHT) * share
    return weights, flagged


def normalised_weighted_ce(
    logits: Array, labels: Array, weights: Array
) -> Array:
    r"""Cross-entropy with weights normalised in the batch.

    .. math:: \sum_i \frac{w_i}{\sum_j w_j}\,CE_i

    A batch of flagged samples only weighs as much as any other.

    Args:
      logits: [B, C].
      labels: int[B].
      weights: [B], as ``instance_weights`` makes them.

    Returns:
      Scalar in nats.

    Source: ``papers/h2e.md`` section 5.
    """
    return losses.weighted_mean(
        losses.cross_entropy(logits, labels), jnp.asarray(weights)
    )


def with_identifier(state: TrainState) -> TrainState:
    """The state whose identifier is the classifier, exponents 1, no momentum.

    Source: ``papers/h2e.md`` section 3.
    """
    params = state.params
    head = {
        # Copies, for a step donates every array.
        "linear": jax.tree.map(jnp.copy, params["logits"]),
        "exponents": jnp.ones_like(params["identifier"]["exponents"]),
    }
    return replace(state.at_rest(), params=params | {"identifier": head})


class Weights(NamedTuple):
    """What the selectors of H2E keep.

    Attributes:
      weights: float64 [N] weights of the samples; [0] until they are known.
    """

    weights: np.ndarray


class InstanceWeights(Selector):
    """Weights of the samples by the identifier, at the start of robust.

    The weights stay until ``Method.enter`` empties the memory.
    """

    options: Options
    outputs: tuple[str, ...] = ("identifier",)

    def init_memory(self) -> Weights:
        return Weights(np.zeros(0))

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: Weights,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, Weights]:
        if not len(memory.weights):
            logits = np.asarray(outputs[k]["identifier"], np.float64)
            # The head has subtracted the prior once.
            again = self.options.prior_subtractions - 1
            ones = np.ones(data.num_classes)
            prior = losses.prior_adjustment(
                losses.class_prior(data.counts), ones
            )
            weights, _ = instance_weights(
                logits - again * np.asarray(prior), data.labels
            )
            memory = Weights(weights)
        return replace(
            unflagged(memory.weights, data),
            weights=memory.weights,
            clean_probability=memory.weights,
        ), memory


class Scores(NamedTuple):
    """Scores of the samples, of sum 1 within every given class.

    Attributes:
      scores: float [N].
    """

    scores: Any


class PreviousWeights(InstanceWeights):
    """Leaves out or scores the images by the weights of the round before."""

    outputs: tuple[str, ...] = ()

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: Weights,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, Weights]:
        chosen = unflagged(memory.weights, data)
        if self.options.iterate == "scores":
            scores = class_scores(data.labels, memory.weights)
            chosen = replace(chosen, per_sample=Scores(scores))
        return chosen, memory


def unflagged(weights: np.ndarray, data: DataInfo) -> Selection:
    """Trusts the samples that are not flagged; all of them weigh 1."""
    kept = weights > FLAGGED_WEIGHT
    return Selection(
        labelled=np.flatnonzero(kept),
        unlabelled=np.flatnonzero(~kept),
        weights=np.ones(len(weights)),
        counts=np.bincount(data.labels[kept], minlength=data.num_classes),
    )


# Mixup weighted by scores ----------------------------------------------------


def class_scores(labels: np.ndarray, scores: np.ndarray) -> np.ndarray:
    r"""Scores normalised within the given class, :math:`s_i / \sum_{y_j=y_i}`.

    Args:
      labels: int[N] given labels.
      scores: [N] of at least 0, such as the clean probabilities of a
        labels.csv.

    Returns:
      float64[N], of sum 1 in every class that has samples, so that a score
      is about 1 / n_c.  A class with scores of 0 only gets equal ones.

    Raises:
      UserError: a score is negative or not finite.

    Source: ``papers/h2e.md`` sections 2 and 12.
    """
    labels = np.asarray(labels)
    scores = np.asarray(scores, np.float64)
    wrong = ~(np.isfinite(scores) & (scores >= 0))
    if wrong.any():
        raise UserError(
            f"scores: must be finite and at least 0, {wrong.sum()} are not"
        )
    totals = np.bincount(labels, scores)
    zero = (totals == 0) & (np.bincount(labels) > 0)
    if zero.any():
        logger.warning(
            "h2e: %d classes have scores of 0 only; their samples count alike",
            int(zero.sum()),
        )
        scores = np.where(zero[labels], 1.0, scores)
        totals = np.bincount(labels, scores)
    return scores / totals[labels]


def mixing_shares(scores: Array, partner: Array) -> tuple[Array, Array]:
    r"""Shares of a mixed row, :math:`s_i / (s_i + s_{\pi(i)})` and the rest.

    With scores normalised by class a tail image mixed with a head image keeps
    nearly all of it: mixing re-balances the classes and suppresses noise.

    Args:
      scores: [B] of at least 0, as ``class_scores`` makes them.
      partner: int[B] permutation, the row that each row is mixed with.

    Returns:
      [B] share of the row itself and [B] of its partner, of sum 1; halves
      where both scores are 0.

    Source: ``papers/h2e.md`` section 2 (``mix_up_weight``).
    """
    scores = jnp.asarray(scores)
    both = scores + scores[partner]
    own = jnp.where(both > 0, scores / jnp.where(both > 0, both, 1), 0.5)
    return own, 1 - own


def read_scores(path: str, ids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Clean probabilities of the training images, of a run's labels.csv.

    Args:
      path: the file.
      ids: [N] of the images, in the order wanted.
      labels: int[N] given labels, which the scores must be of; a file without
        the column given_index is believed.

    Returns:
      float64[N] of at least 0.

    Raises:
      UserError: not such a file, or its images or labels are not these.
    """
    try:
        text = untrusted.read_text(paths.expanded(path, "config.h2e.scores"))
        rows = [
            row
            for row in csv.DictReader(io.StringIO(text, newline=""))
            if row.get("split") != HELD_OUT
        ]
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    key = "index" if np.asarray(ids).dtype.kind in "iu" else "path"
    for column in (key, "clean_probability"):
        if not rows or rows[0].get(column) is None:
            raise UserError(f"{path}: has no column {column}")
    expected = dict(zip(map(str, ids), map(str, labels), strict=True))
    scores: dict[str, float] = {}
    for row in rows:
        name, text = cells.plain(row[key]), row["clean_probability"]
        if not text and row.get("predicted_label") == "unreadable":
            continue
        if name in scores:
            raise UserError(f"{path}: {name} is listed twice")
        try:
            scores[name] = float(text)
        except (TypeError, ValueError):
            scores[name] = math.nan
        if not 0 <= scores[name] < math.inf:
            raise UserError(
                f"{path}: the clean_probability of {name} must be a number of "
                f"at least 0, is {text!r}"
            )
        given = row.get("given_index")
        if given and expected.get(name, given) != given:
            raise UserError(
                f"{path}: image {name} has class {given} there and "
                f"{expected[name]} here; train both runs on the same labels"
            )
    for name in expected:
        if name not in scores:
            raise UserError(f"{path}: lacks the training image {name}")
    foreign = set(scores) - set(expected)
    if foreign:
        raise UserError(
            f"{path}: {min(foreign)} is not an image of this training set"
        )
    return np.array([scores[name] for name in expected])


def class_aware(labels: np.ndarray, batch_size: int) -> Streams:
    """Class-aware stream of base training, C max n_c rows an epoch.

    Args:
      labels: int[N] classes of all samples.
      batch_size: rows a step.

    Returns:
      A function of the selection and a numpy Generator, as ``Phase.streams``.

    Source: ``papers/h2e.md`` sections 2 and 10.
    """

    def rows_of(
        selection: Selection, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        rows = selection.labelled
        counts = np.bincount(labels[rows])
        total = int(counts.max()) * np.count_nonzero(counts)
        steps = int(-(-total // batch_size))
        return {
            "x": sampling.class_aware(
                rows, labels, GROUP, steps, batch_size, rng
            )
        }

    return rows_of


# The method ------------------------------------------------------------------


class HandOver(NamedTuple):
    """What the method keeps from phase to phase.

    Attributes:
      adjusted: bool scalar, whether the vote subtracts the log prior.
      batch_stats: for each network the running statistics at the start of
        identify, host arrays.
    """

    adjusted: np.ndarray
    batch_stats: list[PyTree]


def cosine_rate(initial: float, epoch: int, epochs: int) -> float:
    r"""Step size :math:`\frac{l}{2}(1 + \cos(\pi e / E))` of both trainings.

    Args:
      initial: l.
      epoch: e of 0 .. E - 1, counted from the training's first.
      epochs: E.

    Returns:
      Step size of the epoch.

    Source: ``papers/h2e.md`` sections 2 and 5.
    """
    return rates.at_epoch(optax.cosine_decay_schedule(initial, epochs), epoch)


def step_rate(
    initial: float, epoch: int, every: float = 5, factor: float = 0.9
) -> float:
    r"""Step size :math:`l f^{\lfloor e / k \rfloor}` of the identifier.

    Args:
      initial: l.
      epoch: e, counted from the identifier's first.
      every: k, epochs between two drops.
      factor: f of each drop.

    Returns:
      Step size of the epoch.

    Source: ``papers/h2e.md`` section 3.
    """
    decay = optax.exponential_decay(initial, 1, factor, staircase=True)
    return rates.at_epoch(decay, int(epoch // every))


class Method(base.Method):
    """H2E with the switches of ``config.h2e``."""

    options_type = Options
    one_batch_size = True
    options: Options
    heads = ("logits", "identifier")

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        super().__init__(config, data)
        options = self.options
        if options.rounds and options.freeze:
            check_block(config.model)
        self.spans = schedule(options.rounds, options.starts, config.epochs)
        self.prior = losses.class_prior(data.counts)
        self.network_options = {"prior": tuple(self.prior.tolist())}
        self.scores = self._given_scores()
        self.first, self.later = self._make_phases()

    def starts(self) -> dict[str, int]:
        return {
            f"config.h2e.starts.round{span.round}.{span.step}": span.first
            for span in self.spans[1:]
        }

    def check(self) -> None:
        super().check()
        rates.check_own(self.config, "schedules of its own")
        options = self.options
        if options.rounds and not options.erm_weight + options.penalty_weight:
            raise UserError(
                "config.h2e.erm_weight: and penalty_weight are both 0, which "
                "leaves no loss of identify"
            )
        if options.scores and self.config.audit.out_of_sample:
            raise UserError(
                "config.audit.out_of_sample: does not go with "
                "config.h2e.scores, of networks that have seen all images; "
                "leave one out"
            )

    def _given_scores(self) -> np.ndarray | None:
        """Scores of config.h2e.scores, of sum 1 within every class."""
        path, weighted = self.options.scores, self.options.mix == "weighted"
        if weighted != bool(path):
            raise UserError(
                "config.h2e.scores: mix=weighted needs the labels.csv of a run"
                if weighted
                else "config.h2e.scores: is for mix=weighted only"
            )
        # Without ids nothing is trained, and the file may be gone.
        if not weighted or self.data.ids is None:
            return None
        scores = read_scores(path, self.data.ids, self.data.labels)
        return class_scores(self.data.labels, scores)

    def _make_phases(self) -> tuple[dict[str, Phase], dict[str, Phase]]:
        """The phases of the first round and of all later ones, by STEPS."""
        options, config = self.options, self.config
        one_pass = base.single_stream(config.batch_size)
        everyone = base.trust_all(self.data)
        factor = options.weight_decay_factor
        block = last_block(config.model)

        def in_base(path: tuple[str, ...]) -> bool:
            return path[0] != "identifier"

        def in_robust(path: tuple[str, ...]) -> bool:
            on_top = path[0] == "logits" or path[:2] == block
            return in_base(path) and (on_top or not options.freeze)

        def in_identifier(path: tuple[str, ...]) -> bool:
            fixed = not options.train_exponents and path[-1] == "exponents"
            return path[0] == "identifier" and not fixed

        first = {
            "base": Phase(
                name="base",
                loss=partial(self.base_loss, options.mix),
                draws=self.mixing_draws(options.mix),
                streams=class_aware(self.data.labels, config.batch_size)
                if options.resample
                else one_pass,
                views={"x": (options.view,)},
                trainable=in_base,
                weight_decay=factor * config.optimizer.weight_decay,
            ),
            "identify": Phase(
                name="identify",
                loss=self.identify_loss,
                streams=self.environments,
                views={
                    "raw": (options.raw_view,),
                    "reverse": ("strong",),
                    "balance": ("weak",),
                },
                trainable=in_identifier,
                weight_decay=options.identify_weight_decay,
                evaluated=False,
            ),
            "robust": Phase(
                name="robust",
                loss=self.robust_loss,
                # Flagged images are trained on too, with their weight.
                streams=lambda selection, rng: one_pass(everyone, rng),
                views={"x": (options.view,)},
                selector=InstanceWeights(options),
                trainable=in_robust,
                weight_decay=factor * options.robust_weight_decay,
            ),
        }
        kept = PreviousWeights(options)
        if options.iterate == "drop":
            again = {
                name: replace(first[name], selector=kept)
                for name in ("base", "identify")
            }
        else:
            again = {
                "base": replace(
                    first["base"],
                    name="base_scored",
                    loss=partial(self.base_loss, "weighted"),
                    draws=self.mixing_draws("weighted"),
                    streams=first["robust"].streams,
                    selector=kept,
                )
            }
        return first, first | again

    def _span(self, epoch: int) -> Span:
        """The span of an epoch; the last one lasts."""
        return [s for s in self.spans if s.first <= epoch][-1]

    def phases(self) -> Sequence[Phase]:
        found: list[Phase] = []
        for span in self.spans:
            phase = self._phase(span)
            if not any(phase is known for known in found):
                found.append(phase)
        return tuple(found)

    def _phase(self, span: Span) -> Phase:
        return (self.first if span.round == 1 else self.later)[span.step]

    def phase(self, epoch: int) -> Phase:
        return self._phase(self._span(epoch))

    def learning_rate(self, epoch: int) -> float:
        """Cosine in base and robust, drops in identify, each from its start.

        Source: ``papers/h2e.md`` sections 2, 3 and 5.
        """
        options, span = self.options, self._span(epoch)
        past = epoch - span.first
        if span.step == "identify":
            return step_rate(
                options.identify_rate,
                past,
                options.rate_drop_every,
                options.rate_drop_factor,
            )
        initial = options.robust_rate
        if span.step == "base":
            rate = self.config.optimizer.learning_rate
            initial = options.base_peak * rate
        return cosine_rate(initial, past, span.end - span.first)

    def environments(
        self, selection: Selection, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        """Three streams of one length: class sizes as given, reversed, equal.

        Source: ``papers/h2e.md`` section 3.
        """
        rows, size = selection.labelled, self.config.batch_size
        raw = sampling.one_pass(rows, size, rng)
        return {
            name: raw
            if exponent is None
            else sampling.independent(
                rows, self.data.labels, exponent, len(raw), size, rng
            )
            for name, exponent in ENVIRONMENTS.items()
        }

    def init_memory(self, states: Sequence[TrainState]) -> HandOver:
        return HandOver(
            np.asarray(False), [sharding.fetch(s.batch_stats) for s in states]
        )

    def enter(
        self,
        epoch: int,
        states: list[TrainState],
        memory: Memory,
        fresh: Callable[[], list[TrainState]],
    ) -> tuple[list[TrainState], Memory]:
        """Hands over from phase to phase.

        identify starts from the base classifier; robust from the base network,
        with its statistics where identify has moved them; a new round from new
        networks and the weights of the last one.
        """
        span, method = self._span(epoch), memory.method
        selector = dict(memory.selector)
        robust = self.first["robust"]
        if span.step == "base" and span.round > 1:
            states = fresh()
            method = method._replace(adjusted=np.asarray(False))
            weighed = selector[robust.name]
            for phase in self.later.values():
                if isinstance(phase.selector, PreviousWeights):
                    selector[phase.name] = weighed
        elif span.step == "identify":
            states = [with_identifier(state) for state in states]
            if self.options.frozen_bn == "train":
                kept = [sharding.fetch(state.batch_stats) for state in states]
                method = method._replace(batch_stats=kept)
        elif span.step == "robust":
            states = [state.at_rest() for state in states]
            if self.options.frozen_bn == "train":
                states = [
                    replace(state, batch_stats=stats)
                    for state, stats in zip(
                        states, method.batch_stats, strict=True
                    )
                ]
            method = method._replace(adjusted=np.asarray(True))
            assert robust.selector is not None
            selector[robust.name] = [robust.selector.init_memory()]
        return states, replace(memory, selector=selector, method=method)

    # Losses ------------------------------------------------------------------

    def mixing_draws(self, mix: str) -> base.Draws:
        """Coefficient and partners; weighted mixup uses the partners alone."""
        if mix == "ce":
            return base.no_draws
        alpha = self.options.mixup_alpha
        return lambda key, sizes: mixmatch.mixup_draws(
            key, alpha, sizes["x"], folded=False
        )

    def base_loss(
        self,
        mix: str,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Cross-entropy, of images mixed alike or by their scores.

        Source: ``papers/h2e.md`` section 2.
        """
        x = batch.x
        (images,), labels = x.views, x.labels
        if mix == "ce":
            logits = net(params, images, ("logits",))["logits"]
            total = losses.cross_entropy(logits, labels).mean()
            return LossResult(total, {"loss_ce": total}, carry)
        partner = draws.permutation
        if mix == "mixup":
            share = jnp.asarray(draws.coefficient, images.dtype)
        else:
            share, _ = mixing_shares(self._scores_of(x), partner)
        own = share.reshape(-1, *[1] * (images.ndim - 1))
        images = mixmatch.mixup(images, own, partner)
        logits = net(params, images, ("logits",))["logits"]
        total = losses.mixup_cross_entropy(
            logits, labels, labels[partner], share.astype(logits.dtype)
        ).mean()
        return LossResult(total, {"loss_ce": total}, carry)

    def _scores_of(self, x: Stream) -> jax.Array:
        """Scores of a batch: of the round before, or of the file."""
        if isinstance(x.per_sample, Scores):
            return x.per_sample.scores
        return jnp.asarray(self.scores)[x.index]

    def identify_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Risk and invariance penalty, means over the environments.

        Source: ``papers/h2e.md`` section 3.
        """
        options = self.options
        run = net.frozen if options.frozen_bn == "eval" else net
        risks: list[jax.Array] = []
        penalties: list[jax.Array] = []
        norms: list[jax.Array] = []
        for name in ENVIRONMENTS:
            stream = batch.streams[name]
            (images,), labels = stream.views, stream.labels
            logits = run(params, images, ("identifier",))["identifier"]
            risks.append(losses.cross_entropy(logits, labels).mean())
            penalties.append(penalty(logits, labels))
            norms.append(jnp.mean(jnp.sum(logits**2, axis=1)))
        risk, mean_penalty, norm = (
            jnp.asarray(sum(values)) / len(ENVIRONMENTS)
            for values in (risks, penalties, norms)
        )
        weight = options.penalty_weight * ramp_since(
            batch.time.epoch,
            [span.first for span in self.spans if span.step == "identify"],
            options.penalty_start,
            options.penalty_ramp,
        )
        total = options.erm_weight * risk + weight * mean_penalty
        terms = {
            "loss_ce": risk,
            "loss_penalty": mean_penalty,
            "penalty_weight": weight,
            "logits_norm": jnp.sqrt(norm),
        }
        return LossResult(total, terms, carry)

    def robust_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Cross-entropy by the weights, normalised in the batch.

        Source: ``papers/h2e.md`` section 5.
        """
        (images,) = batch.x.views
        logits = net(params, images, ("logits",))["logits"]
        total = normalised_weighted_ce(logits, batch.x.labels, batch.x.weights)
        return LossResult(total, {"loss_ce": total}, carry)

    def predict(self, outputs: Sequence[Outputs], memory: Memory) -> np.ndarray:
        """Logits; from robust on less the log prior.

        Source: ``papers/h2e.md`` section 5.
        """
        logits = super().predict(outputs, memory)
        if not memory.method.adjusted:
            return logits
        ones = np.ones(len(self.prior))
        return logits - np.asarray(losses.prior_adjustment(self.prior, ones))
