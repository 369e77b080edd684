"""SFA: stochastic feature averaging selects by sampled class centroids.

Li et al., "Stochastic Feature Averaging for Learning with Long-Tailed Noisy
Labels", IJCAI 2023, doi 10.24963/ijcai.2023/434.

DivideMix with a second, balanced head.  A Gaussian is kept for each class's
centroid, its moments averaged over the epochs; a centroid drawn from it
measures how far each sample lies, and a mixture within every class divides
them.
"""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.losses import mixmatch
from jaxnlt.methods import dividemix
from jaxnlt.runtime.errors import UserError, logger, one_of

Array = np.ndarray
# The paper counts epochs from 1.
FIRST_EPOCH = 1
# The release samples classes of more confident samples than this.
MANY = 300


class StochasticCentroids(base.Selector):
    """Distance to centroids drawn from running Gaussians, one a class.

    Args:
      options: `phi`, `base_confidence`, `beta`, `persist_moments`,
        `sampled_classes`, `draws`, `p_threshold` of config.sfa.

    Raises:
      UserError: a field out of range.
    """

    outputs = ("features", "balanced")

    def __init__(self, options, heads=()):
        super().__init__(options, heads)
        one_of(
            "config.sfa.sampled_classes",
            options.sampled_classes,
            ("all", "over_300"),
        )
        if options.draws < 1:
            raise UserError(
                f"config.sfa.draws: must be at least 1, is {options.draws}"
            )
        if not 0 <= options.beta < 1:
            raise UserError(
                f"config.sfa.beta: must lie in [0, 1), is {options.beta}"
            )

    def init_memory(self):
        return no_moments(0, 0)._asdict()

    def select(self, outputs, k, data, memory, epoch, rng):
        rows = selection.centred_unit(outputs[k]["features"])
        confident = self.confident(outputs[k]["balanced"], data, epoch)
        moments, counts = self.moments(rows, confident, data, memory)
        sampled = counts > MANY
        if self.options.sampled_classes == "all":
            sampled = np.ones(data.num_classes, bool)
        shape = (self.options.draws, *moments.first.shape)
        scores = sum(
            selection.nearest_scores(
                rows, sample_centroids(moments, noise, sampled)
            )
            for noise in rng.standard_normal(shape)
        )
        clean = self.clean_probability(scores, data)
        divided = dividemix.divide(clean, self.options.p_threshold, data)
        return divided, moments._asdict()

    def confident(self, balanced, data, epoch):
        r"""Samples whose given label is more probable than the threshold.

        The threshold :math:`\phi^{epoch} / C` grows with the absolute epoch.
        """
        options = self.options
        classes = data.num_classes
        if options.base_confidence:
            classes = 1 / options.base_confidence
        threshold = selection.growing_threshold(
            epoch + FIRST_EPOCH, classes, options.phi
        )
        probs = selection.softmax(balanced)
        return probs[np.arange(len(data.labels)), data.labels] > threshold

    def moments(self, rows, confident, data, memory):
        """Moments after this epoch, and confident samples of each class.

        A class without confident samples keeps its moments; if it has none,
        all its samples make the centroid.  An absent class keeps its moments.
        """
        labels, classes = data.labels, data.num_classes
        past = Moments(**memory)
        if not len(past.known):
            past = no_moments(classes, rows.shape[1])
        known = past.known
        if not self.options.persist_moments:
            # The release averages with zeros from the second selection on.
            zeros = no_moments(classes, rows.shape[1])
            past, known = zeros._replace(known=known), zeros.known
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
            anyone = np.ones(len(labels), bool)
            everyone, _ = selection.class_means(rows, labels, classes, anyone)
            means = np.where(whole[:, None], everyone, means)
        moments = update_moments(
            past, means, (counts > 0) | whole, self.options.beta
        )
        return moments, counts

    def clean_probability(self, scores, data):
        """Posterior of the nearer half of every class's mixture."""
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


class Method(dividemix.Method):
    """DivideMix's training with a balanced head beside the conventional."""

    own_selector = "sfa"
    first_epoch = FIRST_EPOCH
    heads = ("logits", "balanced")
    vote = ("logits", "balanced")

    def warmup_loss(self, net, params, batch, draws, selection, carry):
        """Cross-entropy, and balanced softmax with the given counts.

        Source: papers/sfa.md section 5.
        """
        (images,) = batch["x"]["views"]
        labels = batch["x"]["labels"]
        out = net(params, images, self.heads)
        ce = jnp.mean(losses.cross_entropy(out["logits"], labels))
        balanced = jnp.mean(
            losses.balanced_softmax(out["balanced"], labels, self.warmup_counts)
        )
        terms = {"loss_ce": ce, "loss_balanced_ce": balanced}
        return ce + balanced, carry, terms

    def mixed_terms(self, out, targets, num_x, selection):
        """The conventional head's terms, and the balanced head's.

        Source: papers/sfa.md section 7, step 4.
        """
        terms, total = super().mixed_terms(out, targets, num_x, selection)
        prior = losses.log_prior(selection["counts"])
        ce, mse = mixmatch.terms(
            out["balanced"],
            targets,
            num_x,
            prior.astype(out["balanced"].dtype),
        )
        terms["loss_balanced_ce"] = ce
        if self.options.unlabelled_loss:
            terms["loss_balanced_mse"] = mse
        return terms, total + ce


class Moments(NamedTuple):
    """Running moments of the class centroids, one Gaussian a class.

    Attributes:
      first: float64[C, D] running mean of the centroids.
      second: float64[C, D] running mean of their squares.
      known: bool[C] classes that have had a centroid.
    """

    first: Array
    second: Array
    known: Array


def no_moments(num_classes: int, dimensions: int) -> Moments:
    """Moments before the first centroid."""
    zeros = np.zeros((num_classes, dimensions))
    return Moments(zeros, zeros, np.zeros(num_classes, bool))


def update_moments(
    moments: Moments, centroids: Array, found: Array, beta: float
) -> Moments:
    r"""Exponential running averages of centroids and squared centroids.

    .. math:: M \leftarrow \beta M + (1-\beta) c,\quad
       S \leftarrow \beta S + (1-\beta) c^2

    Args:
      moments: of the epochs before.
      centroids: [C, D] of this epoch.
      found: bool[C] classes with a centroid this epoch; others keep theirs.
      beta: weight of the past.  The first centroid of a class is taken whole.

    Returns:
      The new moments.

    Source: SFA section 3; papers/sfa.md section 6, step 4.
    """
    past = np.where(moments.known, beta, 0.0)[:, None]
    mix = np.where(found[:, None], 1 - past, 0.0)
    keep = 1 - mix
    return Moments(
        keep * moments.first + mix * centroids,
        keep * moments.second + mix * centroids**2,
        moments.known | found,
    )


def deviation(moments: Moments) -> Array:
    r"""Standard deviation :math:`\sqrt{\mathrm{clip}(S - M^2)}`, [C, D].

    Source: papers/sfa.md section 6, step 5.
    """
    variance = moments.second - moments.first**2
    return np.sqrt(np.clip(variance, 1e-30, 1e30))


def sample_centroids(moments: Moments, noise: Array, sampled: Array) -> Array:
    r"""Centroids :math:`M + \sigma \circ \varepsilon` of the sampled classes.

    Args:
      moments: means and standard deviations.
      noise: [C, D] standard normal draw.
      sampled: bool[C]; the other classes take their mean.

    Returns:
      float64[C, D].

    Source: papers/sfa.md section 6, step 6.
    """
    noise = np.where(sampled[:, None], noise, 0.0)
    return moments.first + deviation(moments) * noise
