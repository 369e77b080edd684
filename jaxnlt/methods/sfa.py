"""SFA: stochastic feature averaging selects by sampled class centroids.

Li et al., "Stochastic Feature Averaging for Learning with Long-Tailed Noisy
Labels", IJCAI 2023, doi 10.24963/ijcai.2023/434.

DivideMix with a second, balanced head.  A Gaussian is kept for the centroid of
each class, its moments averaged over the epochs; the distance of each sample to
a centroid drawn from it is divided by a mixture within every class.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt.config.family import FamilyOptions, Growth, ThresholdOptions
from jaxnlt.config.fields import Count, Decay, Natural, Range
from jaxnlt.losses import mixmatch
from jaxnlt.method import (
    Batch,
    DataInfo,
    DeviceOutputs,
    Division,
    LossResult,
    Net,
    Outputs,
    PyTree,
    Selection,
    Selector,
)
from jaxnlt.methods import dividemix
from jaxnlt.runtime.errors import logger

# The paper counts epochs from 1.
FIRST_EPOCH = 1
# The release samples classes of more confident samples than this.
MANY = 300

# Moments of the centroids ----------------------------------------------------


class Moments(NamedTuple):
    """Running moments of the class centroids, one Gaussian a class.

    Attributes:
      first: float64 [C, D] running mean of the centroids.
      second: float64 [C, D] running mean of their squares.
      known: int64 [C] selections that have given the class a centroid.
    """

    first: np.ndarray
    second: np.ndarray
    known: np.ndarray


def no_moments(num_classes: int, dimensions: int) -> Moments:
    """Moments before the first centroid."""
    zeros = np.zeros((num_classes, dimensions))
    return Moments(zeros, zeros, np.zeros(num_classes, np.int64))


def update_moments(
    moments: Moments,
    centroids: np.ndarray,
    found: np.ndarray,
    beta: float,
    fresh: int = 1,
) -> Moments:
    r"""Exponential running averages of centroids and squared centroids.

    .. math:: M \leftarrow \beta M + (1-\beta) c,\quad
       S \leftarrow \beta S + (1-\beta) c^2

    Args:
      moments: of the epochs before.
      centroids: [C, D] of this epoch.
      found: bool [C] classes with a centroid this epoch; others keep theirs.
      beta: weight of the past; 0 for the first centroids of a class.
      fresh: how many centroids of a class forget the past.

    Returns:
      The new moments.

    Source: SFA section 3; ``papers/sfa.md`` section 6, step 4.
    """
    past = np.where(moments.known >= fresh, beta, 0.0)[:, None]
    mix = np.where(found[:, None], 1 - past, 0.0)
    keep = 1 - mix
    return Moments(
        keep * moments.first + mix * centroids,
        keep * moments.second + mix * centroids**2,
        moments.known + found,
    )


def deviation(moments: Moments) -> np.ndarray:
    r"""Standard deviation :math:`\sqrt{\mathrm{clip}(S - M^2)}`, [C, D].

    Source: ``papers/sfa.md`` section 6, step 5.
    """
    variance = moments.second - moments.first**2
    return np.sqrt(np.clip(variance, 1e-30, 1e30))


def sample_centroids(
    moments: Moments, noise: np.ndarray, sampled: np.ndarray
) -> np.ndarray:
    r"""Centroids :math:`M + \sigma \circ \varepsilon` of the sampled classes.

    Args:
      moments: means and standard deviations.
      noise: [C, D] standard normal draw.
      sampled: bool [C]; the other classes take their mean.

    Returns:
      float64 [C, D].

    Source: ``papers/sfa.md`` section 6, step 6.
    """
    noise = np.where(sampled[:, None], noise, 0.0)
    return moments.first + deviation(moments) * noise


# Selection -------------------------------------------------------------------


@dataclass(frozen=True)
class StochasticCentroidsOptions(ThresholdOptions):
    """Fields of ``StochasticCentroids``.

    Attributes:
      base_confidence: probability of the given label above which a sample
        makes centroids, at epoch 0; 0 takes 1 / C.
      phi: growth of that threshold an epoch.
      first_exponent: of ``phi`` at epoch 0; WebVision's script, which selects
        at the end of the epoch before, is at 0.
      beta: weight of the past in the moments; WebVision's script has 0.9.
      fresh_selections: selections, from the first on, whose centroids are the
        moments, without the past; 2 in WebVision's script.
      persist_moments: whether moments are kept from epoch to epoch; the
        release forgets them.
      sampled_classes: over_300 draws centroids only for classes of more than
        300 confident samples, head classes alone, as the release does on
        CIFAR; the release's WebVision script draws all.
      draws: draws of all centroids a selection, their scores summed; 5 in the
        first release, 1 in the last.
    """

    base_confidence: Decay = 0.0
    phi: Growth = 1.005
    first_exponent: Natural = FIRST_EPOCH
    beta: Decay = 0.99
    fresh_selections: Count = 1
    persist_moments: bool = True
    sampled_classes: Literal["all", "over_300"] = "all"
    draws: Annotated[int, Range(1, 1000)] = 1


class StochasticCentroids(Selector):
    """Distance to centroids drawn from running Gaussians, one a class."""

    options_type = StochasticCentroidsOptions
    options: StochasticCentroidsOptions
    outputs = ("features", "balanced")

    def init_memory(self) -> Moments:
        return no_moments(0, 0)

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: Moments,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, Moments]:
        rows = selection.centred_unit(outputs[k]["features"])
        confident = self.confident(outputs[k]["balanced"], data, epoch)
        moments, counts = self.moments(rows, confident, data, memory)
        sampled = counts > MANY
        if self.options.sampled_classes == "all":
            sampled = np.ones(data.num_classes, bool)
        shape = (self.options.draws, *moments.first.shape)
        scores = functools.reduce(
            np.add,
            (
                selection.nearest_scores(
                    rows, sample_centroids(moments, noise, sampled)
                )
                for noise in rng.standard_normal(shape)
            ),
        )
        clean = self.clean_probability(scores, data)
        divided = dividemix.divide(clean, self.options.p_threshold, data)
        return divided, moments

    def confident(
        self, balanced: np.ndarray, data: DataInfo, epoch: int
    ) -> np.ndarray:
        r"""Samples whose given label is more probable than the threshold.

        The threshold :math:`\phi^e / C` grows with the absolute epoch.

        Args:
          balanced: [N, C] logits of the balanced head.
          data: labels and number of classes.
          epoch: from 0.

        Returns:
          bool [N].

        Source: ``papers/sfa.md`` section 6, steps 1 and 2.
        """
        options = self.options
        threshold = selection.growing_threshold(
            epoch + options.first_exponent, data.num_classes, options.phi
        )
        if options.base_confidence:  # in place of 1 / C
            threshold *= data.num_classes * options.base_confidence
        probs = selection.softmax(balanced)
        return probs[np.arange(len(data.labels)), data.labels] > threshold

    def moments(
        self,
        rows: np.ndarray,
        confident: np.ndarray,
        data: DataInfo,
        memory: Moments,
    ) -> tuple[Moments, np.ndarray]:
        """Moments after this epoch, and confident samples of each class.

        A class without confident samples keeps its moments; if it has none,
        all its samples make the centroid.  An absent class keeps its moments.

        Args:
          rows: float64 [N, D] centred unit features.
          confident: bool [N].
          data: labels and number of classes.
          memory: moments before this epoch.

        Returns:
          The moments and int64 [C].

        Source: ``papers/sfa.md`` section 6, steps 3 and 4, and section 6.3.
        """
        labels, classes = data.labels, data.num_classes
        zeros = no_moments(classes, rows.shape[1])
        past = memory if len(memory.known) else zeros
        known = past.known > 0
        if not self.options.persist_moments:
            # The release averages with zeros once centroids are not fresh.
            past, known = zeros._replace(known=past.known), zeros.known > 0
        means, counts = selection.class_means(rows, labels, classes, confident)
        present = data.counts > 0
        unsure = present & (counts == 0)
        for c in np.flatnonzero(~present):
            logger.warning("SFA: class %d has no sample; it is left out", c)
        for c in np.flatnonzero(unsure & known):
            logger.warning(
                "SFA: class %d has no confident sample; it keeps its centroid",
                c,
            )
        whole = unsure & ~known
        for c in np.flatnonzero(whole):
            logger.warning(
                "SFA: class %d has no confident sample; all its samples make "
                "the centroid",
                c,
            )
        if whole.any():
            everyone = np.ones(len(labels), bool)
            of_all, _ = selection.class_means(rows, labels, classes, everyone)
            means = np.where(whole[:, None], of_all, means)
        moments = update_moments(
            past,
            means,
            (counts > 0) | whole,
            self.options.beta,
            self.options.fresh_selections,
        )
        return moments, counts

    def clean_probability(
        self, scores: np.ndarray, data: DataInfo
    ) -> np.ndarray:
        """Posterior [N] of the nearer half of every class's mixture.

        Args:
          scores: [N, C] of ``nearest_scores``, summed over the draws.
          data: labels and number of classes.

        Source: ``papers/sfa.md`` section 6, step 8, and section 6.3.
        """
        distances, equal = selection.class_distances(
            scores, data.labels, data.num_classes
        )
        for c in np.flatnonzero(data.counts == 1):
            logger.warning(
                "SFA: class %d has a single sample; it counts as clean", c
            )
        for c in np.flatnonzero(equal):
            logger.warning(
                "SFA: all samples of class %d are equally far from its "
                "centroid; they count as clean",
                c,
            )
        return selection.per_class_gmm(distances, data.labels, data.num_classes)


# The method ------------------------------------------------------------------


@dataclass(frozen=True)
class Options(FamilyOptions, StochasticCentroidsOptions):
    """Fields of ``config.sfa``."""


class Method(dividemix.Method):
    """DivideMix's training with a balanced head beside the conventional."""

    options_type = Options
    options: Options
    own_selector = "sfa"
    first_epoch = FIRST_EPOCH
    heads = ("logits", "balanced")
    vote = ("logits", "balanced")

    def warmup_loss(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """Cross-entropy, and balanced softmax with the given counts.

        Source: ``papers/sfa.md`` section 5.
        """
        (images,) = batch.x.views
        labels = batch.x.labels
        out = net(params, images, self.heads)
        ce = jnp.mean(losses.cross_entropy(out["logits"], labels))
        balanced = jnp.mean(
            losses.balanced_softmax(out["balanced"], labels, self.warmup_counts)
        )
        terms = {"loss_ce": ce, "loss_balanced_ce": balanced}
        return LossResult(ce + balanced, terms, carry)

    def mixed_loss(
        self,
        out: DeviceOutputs,
        mixed: mixmatch.Mixed,
        batch: Batch,
        division: Division,
    ) -> dividemix.MixedLoss:
        """The conventional head's terms, and the balanced head's.

        Source: ``papers/sfa.md`` section 7, step 4.
        """
        own = super().mixed_loss(out, mixed, batch, division)
        prior = losses.log_prior(division.counts)
        balanced = mixmatch.terms(
            out["balanced"],
            mixed.targets,
            mixed.num_labelled,
            prior.astype(out["balanced"].dtype),
        )
        terms = own.terms | {"loss_balanced_ce": balanced.ce}
        if self.options.unlabelled_loss:
            terms["loss_balanced_mse"] = balanced.mse
        return dividemix.MixedLoss(
            own.labelled + balanced.ce, own.unlabelled + balanced.mse, terms
        )
