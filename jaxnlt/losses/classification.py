"""Losses of a classifier's logits, class priors and means over a batch.

Pure functions; a loss gives one value a row unless its docstring says
otherwise, and the caller reduces them.  B rows, C classes.  Results have the
dtype of the floating-point inputs.
"""

from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Num

from jaxnlt.runtime.errors import logger

AnyArray = TypeVar("AnyArray", Array, np.ndarray)

# Keeps the logarithm of ``prior_adjustment`` finite.
_FLOOR = 1e-12


# --- class priors -----------------------------------------------------------


def class_prior(
    counts: Num[np.ndarray, "C"],
) -> Float[np.ndarray, "C"]:
    r"""Class frequencies :math:`\pi_c = \max(n_c, 1) / \sum_k n_k`.

    Args:
      counts: [C] samples a class, by their given labels.

    Returns:
      float64[C].  An empty class counts as one sample, with a warning:
      ``prior_adjustment`` of a prior of zero is about -27.6, and subtracting
      it would assign every sample to the empty class.

    Source: ``papers/h2e.md`` section 3; the clip is ours, as in ``log_prior``.
    """
    counts = np.asarray(counts, np.float64)
    empty = int((counts < 1).sum())
    if empty:
        logger.warning(
            "class prior: %d classes hold no samples; each counts as one "
            "sample",
            empty,
        )
    return np.maximum(counts, 1) / max(counts.sum(), 1)


def log_prior(counts: Num[Array | np.ndarray, "C"]) -> Float[Array, "C"]:
    r"""Log class prior :math:`\log(\max(n_c, 1) / \sum_k n_k)`.

    Args:
      counts: [C] samples a class, of any real or integer dtype.

    Returns:
      [C] log prior.  An empty class counts as one sample, because a prior of
      zero makes every loss on that class infinite.

    Source: Ren et al. 2020 (balanced softmax), eq. 4; the clip is ours.
    """
    counts = jnp.asarray(counts)
    if not jnp.issubdtype(counts.dtype, jnp.floating):
        counts = counts.astype(jnp.result_type(float))
    return jnp.log(jnp.maximum(counts, 1) / jnp.maximum(counts.sum(), 1))


def prior_adjustment(
    prior: Float[Array | np.ndarray, "C"], exponents: Float[AnyArray, "C"]
) -> Float[AnyArray, "C"]:
    r"""Adjustment :math:`a_c = \ln(\pi_c^{\tau_c} + 10^{-12})`.

    Args:
      prior: [C] class frequencies in [0, 1], as ``class_prior`` makes them.
      exponents: [C] tau; ones give the log prior, zeros give 0.

    Returns:
      [C], to be subtracted from logits.  NumPy arrays give float64; JAX arrays
      keep their dtype and have a finite gradient in ``exponents``, also at a
      prior of 0.

    Source: ``papers/h2e.md`` sections 3 and 4.
    """
    xp: Any = np if isinstance(exponents, np.ndarray) else jnp
    if xp is np:
        exponents = exponents.astype(np.float64)
    prior = xp.asarray(prior, exponents.dtype)
    # 0 ** tau has no gradient in tau, so a prior of 0 is replaced.
    powered = xp.where(prior > 0, prior, 1) ** exponents
    powered = xp.where(prior > 0, powered, xp.where(exponents == 0, 1, 0))
    return xp.log(powered + _FLOOR)


# --- cross-entropy ----------------------------------------------------------


def cross_entropy(
    logits: Float[Array, "B C"],
    targets: Int[Array, "B"] | Float[Array, "B C"],
) -> Float[Array, "B"]:
    r"""Cross-entropy :math:`-\sum_c t_c \log \mathrm{softmax}(z)_c`.

    Args:
      logits: [B, C].
      targets: [B] integer labels or [B, C] probabilities.

    Returns:
      [B] losses in nats.
    """
    if targets.ndim == logits.ndim:
        return optax.softmax_cross_entropy(logits, targets)
    return optax.softmax_cross_entropy_with_integer_labels(logits, targets)


def mixup_cross_entropy(
    logits: Float[Array, "B C"],
    labels: Int[Array, "B"],
    partners: Int[Array, "B"],
    coefficient: float | Float[Array, ""] | Float[Array, "B"],
) -> Float[Array, "B"]:
    r"""Cross-entropy of mixed rows, :math:`l\,H(y) + (1 - l)\,H(y_\pi)`.

    Args:
      logits: [B, C] of the mixed images.
      labels: [B] labels of the rows.
      partners: [B] labels of the rows they are mixed with.
      coefficient: l, one for the batch or [B].

    Returns:
      [B] losses in nats.

    Source: Zhang et al. 2018; ``papers/smr.md`` section 7.
    """
    own = cross_entropy(logits, labels)
    other = cross_entropy(logits, partners)
    coefficient = jnp.asarray(coefficient, logits.dtype)
    return coefficient * own + (1 - coefficient) * other


def balanced_softmax(
    logits: Float[Array, "B C"],
    targets: Int[Array, "B"] | Float[Array, "B C"],
    counts: Num[Array | np.ndarray, "C"],
) -> Float[Array, "B"]:
    r"""Cross-entropy of :math:`z + \log(n / \sum n)`.

    Args:
      logits: [B, C] of the balanced head.
      targets: [B] integer labels or [B, C] probabilities.
      counts: [C] samples a class; an empty one counts as 1.

    Returns:
      [B] losses in nats.

    Source: Ren et al. 2020, eq. 4; ``papers/dasc.md`` section 5.
    """
    return cross_entropy(
        logits + log_prior(counts).astype(logits.dtype), targets
    )


# --- squared error and penalties --------------------------------------------


def brier(
    logits: Float[Array, "B C"], targets: Float[Array, "B C"]
) -> Float[Array, "B"]:
    r"""Mean squared error of probabilities, :math:`\frac1C\sum_c (p_c-t_c)^2`.

    Args:
      logits: [B, C].
      targets: [B, C] probabilities.

    Returns:
      [B] losses.

    Source: DivideMix eq. 10; its code divides by C, the paper does not.
    """
    return jnp.mean((jax.nn.softmax(logits) - targets) ** 2, axis=-1)


def prior_penalty(logits: Float[Array, "B C"]) -> Float[Array, ""]:
    r"""Divergence of the uniform distribution from the mean prediction.

    .. math:: \sum_c \frac1C \log\frac{1/C}{\bar p_c},
       \quad \bar p = \frac1B \sum_i \mathrm{softmax}(z_i)

    Args:
      logits: [B, C].

    Returns:
      Scalar in nats, zero for a uniform mean prediction.  It is computed from
      log-probabilities and stays finite where a mean underflows.

    Source: DivideMix eq. 11.
    """
    rows, classes = logits.shape
    log_mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0)
    log_mean = log_mean - jnp.log(jnp.asarray(rows, logits.dtype))
    return -jnp.mean(log_mean) - jnp.log(jnp.asarray(classes, logits.dtype))


def negative_entropy(logits: Float[Array, "B C"]) -> Float[Array, "B"]:
    r"""Negative entropy :math:`\sum_c p_c \log p_c` of the prediction.

    Args:
      logits: [B, C].

    Returns:
      [B] values in nats, finite where a probability underflows.

    Source: DivideMix section 3.1 (confidence penalty for asymmetric noise).
    """
    log_probs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


# --- means over a batch -----------------------------------------------------


def masked_mean(
    values: Float[Array, "B"], mask: Bool[Array, "B"] | Num[Array, "B"]
) -> Float[Array, ""]:
    """Mean of the values where the mask holds.

    Args:
      values: [B].
      mask: [B] bool or 0/1.

    Returns:
      Scalar; 0, with zero gradient, if the mask is empty.
    """
    mask = mask.astype(values.dtype)
    return jnp.sum(values * mask) / jnp.maximum(mask.sum(), 1)


def weighted_mean(
    values: Float[Array, "B"], weights: Float[Array, "B"]
) -> Float[Array, ""]:
    r"""Weighted mean :math:`\sum w_i v_i / \sum w_i`.

    PyTorch's cross-entropy reduces by the same formula when it is given class
    weights.

    Args:
      values: [B].
      weights: [B], not all zero.

    Returns:
      Scalar.
    """
    weights = weights.astype(values.dtype)
    return jnp.sum(weights * values) / jnp.sum(weights)
