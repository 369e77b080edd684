"""RoLT: robust long-tailed learning by nearest centroids and soft labels.

Wei, Shi, Tu, Li, "Robust Long-Tailed Learning Under Label Noise", arXiv
2108.11569; Frontiers of Computer Science 2025.

One network.  Every epoch starts with class centroids of the centred, unit
features; a mixture within every class separates clean samples from the others,
which later epochs train on several guesses at their label.  RoLT+, whose
selection is the same, is rolt_plus.py.  Classifier re-training and
tau-normalisation of a finished run: configs/erm.py with ``init_from``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.config.family import Margin, Scale
from jaxnlt.config.fields import Decay, Natural, Positive
from jaxnlt.data.sampling import LastBatch
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
    TrainState,
)
from jaxnlt.methods import erm
from jaxnlt.runtime.errors import UserError, logger

# The paper counts epochs from 1.
FIRST_EPOCH = 1
# Scores of a class without samples: farther than unit rows can be.
FARTHEST = -4.0
#: How near a sample is to a centroid, see ``scores``.
Nearness = Literal["l2", "cosine", "product"]


class Nearest(NamedTuple):
    """Nearest-centroid scores, refined once by their own division.

    Attributes:
      first: [N, C] scores with centroids of all samples of a class.
      mask: bool[N] samples that the mixtures on ``first`` keep.
      refined: [N, C] scores with centroids of the kept ones.
      centre: [D] mean feature.
      centroids: [C, D] the refined ones.
    """

    first: np.ndarray
    mask: np.ndarray
    refined: np.ndarray
    centre: np.ndarray
    centroids: np.ndarray


def nearest(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    nearness: Nearness = "l2",
) -> Nearest:
    """Scores of every class, before and after one refinement.

    Args:
      features: [N, D].
      labels: [N] given labels.
      num_classes: C.
      nearness: see ``scores``.

    Returns:
      Nearest.

    Source: ``papers/dividemix_rolt.md`` section 4.2, steps 2 and 3.
    """
    centre = features.mean(0, dtype=np.float64)
    rows = selection.centred_unit(features, centre)
    everyone = np.ones(len(labels), bool)
    means, counts = selection.class_means(rows, labels, num_classes, everyone)
    absent = counts == 0
    for c in np.flatnonzero(absent):
        logger.warning("RoLT: class %d has no sample; it is left out", c)
    first = scores(rows, means, absent, nearness)
    mask = own_class_probability(first, labels, num_classes) > 0.5
    kept = np.bincount(labels[mask], minlength=num_classes)
    for c in np.flatnonzero((kept == 0) & ~absent):
        logger.warning(
            "RoLT: no sample of class %d is kept; all make its centroid", c
        )
        mask |= labels == c
    means, _ = selection.class_means(rows, labels, num_classes, mask)
    refined = scores(rows, means, absent, nearness)
    return Nearest(first, mask, refined, centre, means)


def scores(
    rows: np.ndarray,
    means: np.ndarray,
    absent: np.ndarray,
    nearness: Nearness = "l2",
) -> np.ndarray:
    r"""Scores of all centroids, the largest the nearest.

    .. math:: -\lVert x_i - c_k \rVert^2, \quad
       x_i \cdot c_k / \lVert c_k \rVert, \quad x_i \cdot c_k / D

    Args:
      rows: [N, D] unit rows.
      means: [C, D] centroids, means of unit rows and shorter than these.
      absent: bool[C] classes without samples; they are far from all.
      nearness: l2, cosine or product, in the order of the formulas; the
        release calls the last one cos.

    Returns:
      float64[N, C].

    Source: ``papers/dividemix_rolt.md`` section 5.
    """
    if nearness == "l2":
        found = selection.nearest_scores(rows, means)
    elif nearness == "cosine":
        found = rows @ selection.normalise(means).T
    else:
        found = rows @ means.T / rows.shape[1]
    found[:, absent] = FARTHEST
    return found


def own_class_probability(
    ncm: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """Posterior of the nearer half, of a mixture within every given class.

    Args:
      ncm: [N, C] nearest-centroid scores.
      labels: [N] given labels.
      num_classes: C.

    Returns:
      float64[N]; ones in a class of one sample or of equal ones, with a
      warning.

    Source: ``papers/dividemix_rolt.md`` section 4.2, step 3.
    """
    for c in np.flatnonzero(np.bincount(labels) == 1):
        logger.warning(
            "RoLT: class %d has a single sample; it counts as clean", c
        )
    distances, equal = selection.class_distances(ncm, labels, num_classes)
    for c in np.flatnonzero(equal):
        logger.warning(
            "RoLT: all samples of class %d are equally far from its centroid; "
            "they count as clean",
            c,
        )
    return selection.per_class_gmm(distances, labels, num_classes)


def ensemble(
    past: np.ndarray | None,
    now: np.ndarray,
    epoch: int,
    decay: float,
    compounding: bool,
) -> tuple[np.ndarray, np.ndarray]:
    r"""Running mean of scores, and the mean corrected for its zero start.

    :math:`E \leftarrow a E + (1-a) Z,\ \hat E = E / (1 - a^t)`.

    Args:
      past: [N, C] running mean, or None at the first selection.
      now: [N, C] scores of this epoch.
      epoch: t, counted from 1.
      decay: a.
      compounding: whether the first mean is the scores themselves and every
        later one starts from the corrected mean, as released.

    Returns:
      What to keep and the corrected mean, [N, C] each.

    Source: ``papers/dividemix_rolt.md`` section 4.2, step 4.
    """
    if past is None:
        running = now if compounding else (1 - decay) * now
    else:
        running = decay * past + (1 - decay) * now
    corrected = running / (1 - decay**epoch)
    return (corrected if compounding else running), corrected


@dataclass(frozen=True)
class CentroidOptions:
    """Of selections by class centroids.

    Attributes:
      nearness: of a sample to a centroid, squared distance or cosine; product
        is what the release's option cos computes, the cosine times the
        centroid's length over the dimension.
    """

    nearness: Nearness = "l2"


@dataclass(frozen=True)
class Options(CentroidOptions):
    """Fields of ``config.rolt``.

    Attributes:
      loss: cross-entropy or LDAM on a cosine classifier.
      soft_start: epochs before those with soft labels.
      drw: whether classes are re-weighted from ``drw_start`` on.
      drw_start: epochs before deferred re-weighting.
      drw_beta: of its effective numbers.
      ldam_margin: largest margin of LDAM.
      ldam_scale: of the cosines in LDAM.
      lr_rise: epochs over which the learning rate rises.
      ensemble_decay: of the running means of scores.
      ensembling: the release divides the running mean by its correction again
        at every epoch (compounding).
      clean_on: images that the selection looks at; the release's loader
        augments them.
      last_batch: the end of an epoch that is no whole batch: filled from the
        start of the pass, or dropped as in the release.
      vote_by: ncm votes by the centroids of the epoch's start.
    """

    loss: Literal["ce", "ldam"] = "ce"
    soft_start: Natural = 80
    drw: bool = True
    drw_start: Natural = 160
    drw_beta: Decay = 0.9999
    ldam_margin: Margin = 0.5
    ldam_scale: Scale = 30.0
    lr_rise: Positive = 5.0
    ensemble_decay: Decay = 0.6
    ensembling: Literal["standard", "compounding"] = "standard"
    clean_on: Literal["eval", "augmented"] = "eval"
    last_batch: LastBatch = "filled"
    vote_by: Literal["logits", "ncm"] = "logits"


class Ensembles(NamedTuple):
    """What ``NearestCentroids`` keeps.

    Attributes:
      erm: float64 [N, C] running mean of logits; [0, 0] before the first
        selection, as all arrays here.
      ncm: float64 [N, C] running mean of nearest-centroid scores.
      centroids: float64 [C, D] of the last selection.
      centre: float64 [D] mean feature of the last selection.
      frozen: int64 [N] labels at the start of deferred re-weighting.
      times: int64 scalar, how many selections the running means hold.
    """

    erm: np.ndarray
    ncm: np.ndarray
    centroids: np.ndarray
    centre: np.ndarray
    frozen: np.ndarray
    times: np.ndarray


class Shares(NamedTuple):
    """What the loss receives of a selection.

    Attributes:
      shares: float [3 + C] weights of the first guess, the second guess, the
        given label and every class.
      class_weights: float [C].
    """

    shares: Any
    class_weights: Any


class Guesses(NamedTuple):
    """Guesses at the label of every sample.

    Attributes:
      first: int32 [N] labels.
      second: int32 [N] labels.
      soft: bool [N] samples whose last shares go to the classes, not to the
        given label.
    """

    first: Any
    second: Any
    soft: Any


class NearestCentroids(Selector):
    """Separates clean samples from others and guesses the others' labels."""

    options_type = Options
    options: Options
    outputs = ("features", "logits")

    def init_memory(self) -> Ensembles:
        empty = np.zeros((0, 0))
        return Ensembles(
            erm=empty,
            ncm=empty,
            centroids=empty,
            centre=np.zeros(0),
            frozen=np.zeros(0, np.int64),
            times=np.zeros((), np.int64),
        )

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: Ensembles,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, Ensembles]:
        options, labels = self.options, data.labels
        logits = np.asarray(outputs[k]["logits"], np.float64)
        features = outputs[k]["features"]
        if options.loss == "ldam":  # the head's weights are unit vectors
            logits = logits / np.maximum(selection.lengths(features), 1e-12)
        found = nearest(features, labels, data.num_classes, options.nearness)
        clean = own_class_probability(found.refined, labels, data.num_classes)
        trusted = clean > 0.5
        times = int(memory.times) + 1

        def averaged(
            past: np.ndarray, now: np.ndarray
        ) -> tuple[np.ndarray, np.ndarray]:
            return ensemble(
                past if times > 1 else None,
                now,
                self.correction_time(times, epoch),
                options.ensemble_decay,
                options.ensembling == "compounding",
            )

        mean_logits, corrected = averaged(memory.erm, logits)
        by_logits = corrected.argmax(1)
        mean_scores, corrected = averaged(memory.ncm, found.refined)
        by_centroids = corrected.argmax(1)
        current = np.where(trusted, labels, by_logits)
        frozen = memory.frozen
        deferred = options.drw and epoch >= options.drw_start
        if deferred and not len(frozen):
            frozen = current.astype(np.int64)
        shares, guesses = self.soft_labels(
            labels,
            trusted,
            by_logits,
            by_centroids,
            frozen,
            epoch,
            data.num_classes,
        )
        counts = data.counts
        if deferred:
            counts = np.bincount(frozen, minlength=data.num_classes)
        elif options.loss == "ldam" and epoch >= options.soft_start:
            counts = np.bincount(current, minlength=data.num_classes)
        weights = np.ones(data.num_classes)
        if deferred:
            weights = losses.effective_weights(counts, options.drw_beta)
        kept = Ensembles(
            erm=mean_logits,
            ncm=mean_scores,
            centroids=found.centroids,
            centre=found.centre,
            frozen=frozen,
            times=np.asarray(times),
        )
        return Selection(
            labelled=np.flatnonzero(trusted),
            unlabelled=np.flatnonzero(~trusted),
            weights=np.ones(len(labels)),
            counts=counts,
            clean_probability=clean,
            shared=Shares(shares, weights),
            per_sample=guesses,
        ), kept

    def correction_time(self, times: int, epoch: int) -> int:
        """Exponent t of the correction; as released the epoch's number."""
        if self.options.ensembling == "compounding":
            return epoch + FIRST_EPOCH
        return times

    def soft_labels(
        self,
        labels: np.ndarray,
        trusted: np.ndarray,
        by_logits: np.ndarray,
        by_centroids: np.ndarray,
        frozen: np.ndarray,
        epoch: int,
        num_classes: int,
    ) -> tuple[np.ndarray, Guesses]:
        """Shares of the guesses, and the guesses of every sample.

        Args:
          labels: int [N] given labels.
          trusted: bool [N].
          by_logits: int [N] guesses of the averaged logits.
          by_centroids: int [N] guesses of the averaged centroid scores.
          frozen: int [N] labels at the start of deferred re-weighting.
          epoch: about to be trained.
          num_classes: C.

        Returns:
          float64 [3 + C] shares, see ``Shares``, and the guesses.

        Source: ``papers/dividemix_rolt.md`` section 4.2, step 6.
        """
        options = self.options
        given = np.asarray(labels, np.int32)
        each = np.full(num_classes, 1 / num_classes)
        if options.drw and epoch >= options.drw_start:
            shares = np.array([0.5, 0, 0, *(0.5 * each)])
            first, second, soft = frozen, given, ~trusted
        elif epoch >= options.soft_start:
            shares = np.array([0.4, 0.2, 0.2, *(0.2 * each)])
            first = np.where(trusted, given, by_logits)
            second = np.where(trusted, given, by_centroids)
            soft = ~trusted
        else:
            shares = np.array([0, 0, 1, *(0 * each)])
            first, second, soft = given, given, np.zeros_like(trusted)
        return shares, Guesses(
            first.astype(np.int32), second.astype(np.int32), soft
        )


def soft_label_loss(
    values: jax.Array, x: Stream, shares: jax.Array, class_weights: jax.Array
) -> jax.Array:
    r""":math:`\sum_k s_k \sum_i w_{t_{ik}} v_{i t_{ik}} / \sum_i w_{t_{ik}}`.

    Args:
      values: [B, C] loss of every row with every class as its label.
      x: the batch, ``Guesses`` per sample.
      shares: [3 + C] of the guesses, see ``Shares``.
      class_weights: [C].

    Returns:
      Scalar.

    Source: ``papers/dividemix_rolt.md`` section 4.2, step 6.
    """
    guesses, given = x.per_sample, x.labels[:, None]
    classes = jnp.arange(values.shape[1])
    targets = jnp.concatenate(
        [
            guesses.first[:, None],
            guesses.second[:, None],
            given,
            jnp.where(guesses.soft[:, None], classes, given),
        ],
        axis=1,
    )
    values = jnp.take_along_axis(values, targets, axis=1)
    weights = class_weights.astype(values.dtype)[targets]
    means = (weights * values).sum(0) / weights.sum(0)
    return jnp.sum(shares.astype(values.dtype) * means)


class Method(base.Method):
    """RoLT with the switches of ``config.rolt``."""

    options_type = Options
    one_batch_size = True
    options: Options

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        super().__init__(config, data)
        options = self.options
        cosine = options.loss == "ldam"
        everyone = base.trust_all(data)
        one_pass = base.single_stream(config.batch_size, options.last_batch)
        self.train = Phase(
            name="train",
            loss=self.loss,
            # Samples that are not clean are trained on too, with soft labels.
            streams=lambda selection, rng: one_pass(everyone, rng),
            views={"x": ("weak",)},
            selector=NearestCentroids(options),
            pool_view="weak" if options.clean_on == "augmented" else "none",
            # A cosine classifier has no bias.
            trainable=lambda path: not cosine or path != ("logits", "bias"),
        )

    def starts(self) -> dict[str, int]:
        found = {"config.rolt.soft_start": self.options.soft_start}
        if self.options.drw:
            found["config.rolt.drw_start"] = self.options.drw_start
        return found

    def check(self) -> None:
        super().check()
        if self.config.model.ema and self.options.vote_by == "ncm":
            raise UserError(
                "config.model.ema: config.rolt.vote_by=ncm votes by centroids "
                "of the networks that are not averaged; take "
                "--config.rolt.vote_by=logits or --config.model.ema=0"
            )

    def phases(self) -> Sequence[Phase]:
        return (self.train,)

    def phase(self, epoch: int) -> Phase:
        return self.train

    def learning_rate(self, epoch: int) -> float:
        """Rises over the first epochs, then falls by the drops.

        Source: ``papers/dividemix_rolt.md`` section 4.
        """
        share = (epoch + FIRST_EPOCH + 1) / self.options.lr_rise
        return super().learning_rate(epoch) * min(1.0, share)

    def enter(
        self,
        epoch: int,
        states: list[TrainState],
        memory: Memory,
        fresh: Callable[[], list[TrainState]],
    ) -> tuple[list[TrainState], Memory]:
        """LDAM's classifier starts with unit weights and no bias."""
        return self.end_epoch(self.train, states), memory

    def end_epoch(
        self, phase: Phase, states: list[TrainState]
    ) -> list[TrainState]:
        if self.options.loss != "ldam":
            return states
        return [erm.as_cosine(state) for state in states]

    def values(
        self, net: Net, params: PyTree, images: jax.Array, counts: jax.Array
    ) -> jax.Array:
        """Loss [B, C] of every row with every class as its label."""
        if self.options.loss == "ce":
            logits = net(params, images, ("logits",))["logits"]
            return -jax.nn.log_softmax(logits)
        features = net(params, images, ("features",))["features"]
        cosines = losses.cosines(features, params["logits"]["kernel"])
        margins = losses.ldam_margins(counts, self.options.ldam_margin)
        rows, classes = cosines.shape

        def with_label(label: jax.Array) -> jax.Array:
            labels = jnp.full(rows, label)
            return losses.ldam(
                cosines, labels, margins, self.options.ldam_scale
            )

        return jax.vmap(with_label, out_axes=1)(jnp.arange(classes))

    def loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Loss on soft labels, its classes weighed from DRW on."""
        x = batch.x
        values = self.values(net, params, x.views[0], division.counts)
        total = soft_label_loss(
            values, x, division.shared.shares, division.shared.class_weights
        )
        return LossResult(total, {f"loss_{self.options.loss}": total}, carry)

    def predict(self, outputs: Sequence[Outputs], memory: Memory) -> np.ndarray:
        """The classifier's logits, or the nearest of the epoch's centroids."""
        if self.options.vote_by == "logits":
            return super().predict(outputs, memory)
        (kept,), (out,) = memory.selector[self.train.name], outputs
        rows = selection.centred_unit(out["features"], kept.centre)
        absent = self.data.counts == 0
        return scores(rows, kept.centroids, absent, self.options.nearness)
