"""The semi-supervised step of the DivideMix family, piece by piece.

Guessing, refinement, sharpening, mixup, the two loss terms and the ramp are
separate pure functions of any batch size, with every random number an argument.

Shapes: B rows, Bx labelled and Bu unlabelled rows, C classes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxnlt.losses import classification

# A class that is never guessed is raised by no more than its share over this.
_LEAST = 1e-4


def mean_probs(logits: Sequence[Float[Array, "B C"]]) -> Float[Array, "B C"]:
    """Mean softmax over several predictions of the same rows.

    Args:
      logits: sequence of [B, C].

    Returns:
      [B, C] probabilities, without gradient.

    Source: DivideMix eq. 5 (co-guessing).
    """
    probs = jnp.stack([jax.nn.softmax(z) for z in logits])
    return jax.lax.stop_gradient(probs.mean(0))


def refine(
    labels: Int[Array, "B"],
    probs: Float[Array, "B C"],
    weights: Float[Array, "B"],
) -> Float[Array, "B C"]:
    r"""Label refinement :math:`w\,e_y + (1 - w)\,p`.

    Args:
      labels: [B] given integer labels.
      probs: [B, C] guessed probabilities.
      weights: [B] probability that the given label is right.

    Returns:
      [B, C] probabilities.

    Source: DivideMix eq. 3.
    """
    one_hot = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    weights = weights.astype(probs.dtype)[:, None]
    return weights * one_hot + (1 - weights) * probs


def sharpen(
    probs: Float[Array, "B C"], temperature: float
) -> Float[Array, "B C"]:
    r"""Sharpening :math:`p_c^{1/T} / \sum_k p_k^{1/T}`.

    Args:
      probs: [B, C] probabilities.
      temperature: T in (0, 1].

    Returns:
      [B, C] probabilities.

    Source: DivideMix eq. 4.
    """
    powered = probs ** (1 / temperature)
    return powered / powered.sum(-1, keepdims=True)


def mixup(
    values: Float[Array, "n ..."],
    coefficient: Float[Array, "..."] | float,
    permutation: Int[Array, "n"],
) -> Float[Array, "n ..."]:
    r"""Mixup :math:`l\,v + (1 - l)\,v_\pi` along the first axis.

    Args:
      values: [n, ...] images or targets.
      coefficient: scalar l.
      permutation: [n] partner of every row.

    Returns:
      [n, ...] in the dtype of ``values``.

    Source: Zhang et al. 2018, eq. 1; one coefficient for the whole batch.
    """
    own = jnp.asarray(coefficient, values.dtype)
    # Rows are gathered flat: chips exchange whole tiles, of which the sides of
    # a small image fill a quarter.
    rows = values.reshape(len(values), -1)
    partners = rows[permutation].reshape(values.shape)
    return own * values + (1 - own) * partners


class MixupDraws(NamedTuple):
    """The random numbers of one mixup.

    Attributes:
      coefficient: scalar share of a row itself.
      permutation: int [n] partner of every row.
    """

    coefficient: Float[Array, ""]
    permutation: Int[Array, "n"]


def mixup_draws(
    key: Array, alpha: float, rows: int, folded: bool = True
) -> MixupDraws:
    """Draws the coefficient and the partners of one mixup.

    Args:
      key: JAX key.
      alpha: parameter of the symmetric Beta distribution.
      rows: rows to be mixed.
      folded: whether the coefficient is max(l, 1 - l), so that a row stays
        nearer to itself than to its partner.
    """
    key_l, key_p = jax.random.split(key)
    coefficient = jax.random.beta(key_l, alpha, alpha)
    if folded:
        coefficient = jnp.maximum(coefficient, 1 - coefficient)
    return MixupDraws(coefficient, jax.random.permutation(key_p, rows))


def ramp(epoch: Array, start: float, length: float) -> Array:
    """Linear ramp from 0 at epoch ``start`` to 1 at ``start + length``.

    Args:
      epoch: scalar time in epochs, fractional within an epoch.
      start: epoch at which the ramp leaves 0.
      length: epochs until it reaches 1.

    Returns:
      Scalar in [0, 1].

    Source: DivideMix, linear_rampup.
    """
    return jnp.clip((epoch - start) / length, 0, 1)


class Terms(NamedTuple):
    """The two terms of a mixed batch, for one head.

    Attributes:
      ce: mean cross-entropy of the labelled rows.
      mse: mean squared error, over rows and classes, of the unlabelled rows.
    """

    ce: Float[Array, ""]
    mse: Float[Array, ""]


def terms(
    logits: Float[Array, "n C"],
    targets: Float[Array, "n C"],
    num_labelled: int,
    prior: Float[Array, "C"] | float = 0.0,
) -> Terms:
    """The loss terms of a mixed batch.

    Args:
      logits: [n, C], the labelled rows first.
      targets: [n, C] probabilities.
      num_labelled: how many rows come from the labelled side.
      prior: [C] log prior added to the logits, 0 for a plain head.

    Returns:
      Both terms, scalars.

    Source: DivideMix eq. 9 and 10; SFA and DaSC add the prior.
    """
    logits = logits + prior
    labelled = classification.cross_entropy(
        logits[:num_labelled], targets[:num_labelled]
    )
    unlabelled = classification.brier(
        logits[num_labelled:], targets[num_labelled:]
    )
    return Terms(jnp.mean(labelled), jnp.mean(unlabelled))


class GuessMean(NamedTuple):
    """Decayed sums over the guesses of the batches so far.

    Attributes:
      probs: [C] sum of the batches' mean probabilities.
      weight: scalar sum of their weights; 0 before the first batch.
    """

    probs: Any
    weight: Any


def no_guesses(to: str, num_classes: int, dtype: Any) -> Any:
    """The sums before the first batch, host arrays.

    Args:
      to: see ``align``; ``none`` keeps no sums, ().
      num_classes: C.
      dtype: of the sums.
    """
    if to == "none":
        return ()
    return GuessMean(np.zeros(num_classes, dtype), np.zeros((), dtype))


#: Guesses [B, C] -> the guesses to take, and what ``align`` keeps of them.
Align = Callable[[Array], tuple[Array, Any]]


def as_guessed(probs: Float[Array, "B C"]) -> tuple[Float[Array, "B C"], Any]:
    """Guesses that are not aligned."""
    return probs, ()


def align(
    probs: Float[Array, "B C"],
    to: str,
    counts: Float[Array, "C"],
    mean: Any,
    decay: float,
) -> tuple[Float[Array, "B C"], Any]:
    r"""Distribution alignment of guesses.

    .. math:: m \leftarrow d\,m + (1 - d)\,\bar p,\quad
       q_{ic} = \frac{p_{ic}\,\pi_c / m_c}{\sum_k p_{ik}\,\pi_k / m_k}

    where the first batches weigh no more than any other.

    Args:
      probs: [B, C] guesses.
      to: what pi is: ``uniform``, or ``estimated`` by ``counts``; ``none``
        leaves all as it is.
      counts: [C] class sizes of the trusted labels, behind ``estimated``.
      mean: ``GuessMean`` before the batch; anything with ``none``.
      decay: d.

    Returns:
      [B, C] probabilities, and the mean with this batch in it.

    Source: Berthelot et al., "ReMixMatch", ICLR 2020, section 3.1, there with
      the mean over the last 128 batches.
    """
    if to == "none":
        return probs, mean
    mean = GuessMean(
        decay * mean.probs + (1 - decay) * probs.mean(0),
        decay * mean.weight + (1 - decay),
    )
    target = jnp.full_like(mean.probs, 1 / probs.shape[-1])
    if to == "estimated":
        target = jnp.exp(classification.log_prior(counts)).astype(probs.dtype)
    usual = jnp.maximum(mean.probs / mean.weight, _LEAST)
    raised = probs * (target / usual)
    return raised / raised.sum(-1, keepdims=True), mean


def aligner(to: str, decay: float, counts: Array, mean: Any) -> Align:
    """``align`` with all but the guesses.

    Args:
      to: see ``align``, as all that follow.
      decay: d.
      counts: [C].
      mean: before the batch.
    """
    return lambda probs: align(probs, to, counts, mean, decay)


class Targets(NamedTuple):
    """Sharpened targets of both sides, without gradient.

    Attributes:
      labelled: [Bx, C] refined from the given labels.
      unlabelled: [Bu, C] guessed.
      mean: of the guesses so far, see ``align``; () where none is kept.
    """

    labelled: Float[Array, "Bx C"]
    unlabelled: Float[Array, "Bu C"]
    mean: Any = ()


class Mixed(NamedTuple):
    """A mixed batch, rows in the order x1, x2, u1, u2.

    Attributes:
      images: [2 Bx + 2 Bu, H, W, C].
      targets: [2 Bx + 2 Bu, classes].
      num_labelled: 2 Bx.
    """

    images: Float[Array, "n H W C"]
    targets: Float[Array, "n K"]
    num_labelled: int


def mixed_batch(
    x_views: Sequence[Array],
    u_views: Sequence[Array],
    targets: Targets,
    draws: MixupDraws,
) -> Mixed:
    """Mixes two views of both sides across the whole batch.

    Args:
      x_views: two [Bx, H, W, C] labelled views.
      u_views: two [Bu, H, W, C] unlabelled views.
      targets: of both sides.
      draws: coefficient and partners of 2 Bx + 2 Bu rows.

    Returns:
      The mixed batch.

    Source: DivideMix, algorithm 1, MixMatch.
    """
    images = jnp.concatenate([*x_views, *u_views])
    both = jnp.concatenate(
        [
            targets.labelled,
            targets.labelled,
            targets.unlabelled,
            targets.unlabelled,
        ]
    )
    return Mixed(
        mixup(images, draws.coefficient, draws.permutation),
        mixup(both, draws.coefficient, draws.permutation),
        2 * len(targets.labelled),
    )


def ramp_time(
    epoch: Array, step: Array, num_labelled: Array, batch_size: int
) -> Array:
    """Time in epochs as the ramp of the DivideMix family counts it.

    An epoch has ``num_labelled // batch_size + 1`` parts, one too many where
    the batch size divides.

    Args:
      epoch: scalar, whole epochs.
      step: scalar, steps of this epoch.
      num_labelled: scalar, labelled samples of the epoch.
      batch_size: labelled rows a step.

    Returns:
      Scalar.
    """
    return epoch + step / (num_labelled // batch_size + 1)
