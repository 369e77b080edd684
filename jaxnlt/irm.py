"""H2E's pieces: invariant penalty, prior, instance weights, weighted mixup.

Pure functions.  B rows of a batch, N samples, C classes.

Source: Yi et al., "Identifying Hard Noise in Long-Tailed Sample
Distribution", ECCV 2022; papers/h2e.md.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, robust_losses
from jaxnlt.errors import UserError, logger

Array = jax.Array

FLAGGED_WEIGHT = 0.01  # of a sample whose label the identifier contradicts
LEAST_WEIGHT = 0.5  # of the least sure sample whose label it confirms
_FLOOR = 1e-12  # inside the logarithm of the prior


# --- the prior --------------------------------------------------------------


def class_prior(counts: np.ndarray) -> np.ndarray:
    r"""Class frequencies :math:`\pi_c = \max(n_c, 1) / \sum_k n_k`.

    Args:
      counts: int[C] samples a class, by their given labels.

    Returns:
      float64[C].  An empty class counts as one sample: of a zero prior the
      logarithm would be about -27.6, and its subtraction would hand every
      sample to the class that nobody has.

    Source: papers/h2e.md section 3; the clip as in `losses.log_prior`.
    """
    counts = np.asarray(counts, np.float64)
    empty = int((counts < 1).sum())
    if empty:
        logger.warning(
            "h2e: %d classes hold no samples; each counts as one sample in "
            "the class prior",
            empty,
        )
    return np.maximum(counts, 1) / max(counts.sum(), 1)


def log_prior(prior: Array | np.ndarray, exponents: Array | np.ndarray):
    r"""Adjustment :math:`a_c = \ln(\pi_c^{\tau_c} + 10^{-12})`.

    Args:
      prior: [C] class frequencies in [0, 1], as `class_prior` makes them.
      exponents: [C] tau; all ones is the plain log prior, zeros none.

    Returns:
      [C], to be subtracted from logits.  NumPy arrays give float64, JAX
      arrays their own dtype and a finite gradient in `exponents`, also at a
      prior of 0.

    Source: papers/h2e.md sections 3 and 4.
    """
    xp = np if isinstance(exponents, np.ndarray) else jnp
    if xp is np:
        exponents = exponents.astype(np.float64)
    prior = xp.asarray(prior, exponents.dtype)
    # 0 ** tau has no gradient in tau; the empty class is dealt with apart.
    powered = xp.where(prior > 0, prior, 1) ** exponents
    powered = xp.where(prior > 0, powered, xp.where(exponents == 0, 1, 0))
    return xp.log(powered + _FLOOR)


# --- the identifier ---------------------------------------------------------


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

    Source: papers/h2e.md section 3; Arjovsky et al. 2019 have one scale for
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

    Source: papers/h2e.md section 4.
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
    # A range within rounding is no range, as scikit-learn's scaler sees it.
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
      weights: [B], as `instance_weights` makes them.

    Returns:
      Scalar in nats.

    Source: papers/h2e.md section 5.
    """
    return robust_losses.weighted_mean(
        losses.cross_entropy(logits, labels), jnp.asarray(weights)
    )


# --- mixup weighted by scores -----------------------------------------------


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

    Source: papers/h2e.md sections 2 and 12.
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
    nearly all: the mixture re-balances the classes while it holds back noise.

    Args:
      scores: [B] of at least 0, as `class_scores` makes them.
      partner: int[B] permutation, the row that each row is mixed with.

    Returns:
      [B] share of the row itself and [B] of its partner, of sum 1; halves
      where both scores are 0.

    Source: papers/h2e.md section 2 (`mix_up_weight`).
    """
    scores = jnp.asarray(scores)
    both = scores + scores[partner]
    own = jnp.where(both > 0, scores / jnp.where(both > 0, both, 1), 0.5)
    return own, 1 - own


# --- rates ------------------------------------------------------------------


def cosine_rate(initial: float, epoch: int, epochs: int) -> float:
    r"""Step size :math:`\frac{l}{2}(1 + \cos(\pi e / E))` of both trainings.

    Args:
      initial: l.
      epoch: e of 0 .. E - 1, counted from the training's first.
      epochs: E.

    Returns:
      Step size of the epoch.

    Source: papers/h2e.md sections 2 and 5.
    """
    return initial / 2 * (1 + math.cos(math.pi * epoch / epochs))


def step_rate(
    initial: float, epoch: int, every: int = 5, factor: float = 0.9
) -> float:
    r"""Step size :math:`l f^{\lfloor e / k \rfloor}` of the identifier.

    Args:
      initial: l.
      epoch: e, counted from the identifier's first.
      every: k, epochs between two drops.
      factor: f of each drop.

    Returns:
      Step size of the epoch.

    Source: papers/h2e.md section 3.
    """
    return initial * factor ** (epoch // every)
