"""Per-example losses as pure functions; the caller reduces them.

Shapes: B rows, C classes, D feature dimensions, M memory rows.  Every result
has the dtype of its floating-point inputs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnlt.runtime.errors import logger

Array = jax.Array


def log_prior(counts: Array | np.ndarray) -> Array:
    r"""Log class prior :math:`\log(\max(n_c, 1) / \sum_k n_k)`.

    Args:
      counts: [C] samples a class, any real or integer dtype.

    Returns:
      [C] log prior.  An empty class counts as one sample, for a prior of zero
      would make every loss on that class infinite.

    Source: balanced softmax, Ren et al. 2020, eq. 4; the clip is ours.
    """
    counts = jnp.asarray(counts)
    if not jnp.issubdtype(counts.dtype, jnp.floating):
        counts = counts.astype(jnp.result_type(float))
    return jnp.log(jnp.maximum(counts, 1) / jnp.maximum(counts.sum(), 1))


def cross_entropy(logits: Array, targets: Array) -> Array:
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
    logits: Array, labels: Array, partners: Array, coefficient: Array
) -> Array:
    r"""Cross-entropy of mixed rows, :math:`l\,H(y) + (1 - l)\,H(y_\pi)`.

    Args:
      logits: [B, C] of the mixed images.
      labels: int[B] labels of the rows.
      partners: int[B] labels of the rows they are mixed with.
      coefficient: scalar l.

    Returns:
      [B] losses in nats.

    Source: Zhang et al. 2018; SMR (papers/smr.md section 7).
    """
    own = cross_entropy(logits, labels)
    other = cross_entropy(logits, partners)
    coefficient = jnp.asarray(coefficient, logits.dtype)
    return coefficient * own + (1 - coefficient) * other


def balanced_softmax(
    logits: Array, targets: Array, counts: Array | np.ndarray
) -> Array:
    r"""Cross-entropy of :math:`z + \log(n / \sum n)`.

    Args:
      logits: [B, C] of the balanced head.
      targets: [B] integer labels or [B, C] probabilities.
      counts: [C] samples a class.

    Returns:
      [B] losses in nats.

    Source: Ren et al. 2020, eq. 4; DaSC section 3.
    """
    return cross_entropy(
        logits + log_prior(counts).astype(logits.dtype), targets
    )


def brier(logits: Array, targets: Array) -> Array:
    r"""Mean squared error of probabilities, :math:`\frac1C\sum_c (p_c-t_c)^2`.

    Args:
      logits: [B, C].
      targets: [B, C] probabilities.

    Returns:
      [B] losses, averaged over classes as all of DivideMix's kin do.

    Source: DivideMix eq. 10 (its code divides by C, the paper does not).
    """
    return jnp.mean((jax.nn.softmax(logits) - targets) ** 2, axis=-1)


def prior_penalty(logits: Array) -> Array:
    r"""Pulls the mean prediction to uniform.

    :math:`\sum_c \frac1C \log\frac{1/C}{\bar p_c}`, :math:`\bar p` the mean
    softmax over the rows.

    Args:
      logits: [B, C].

    Returns:
      Scalar in nats, zero for a uniform mean prediction.  Computed from
      log-probabilities, so it stays finite where a mean underflows.

    Source: DivideMix eq. 11.
    """
    rows, classes = logits.shape
    log_mean = jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0)
    log_mean = log_mean - jnp.log(jnp.asarray(rows, logits.dtype))
    return -jnp.mean(log_mean) - jnp.log(jnp.asarray(classes, logits.dtype))


def negative_entropy(logits: Array) -> Array:
    r"""Negative entropy :math:`\sum_c p_c \log p_c` of the prediction.

    Args:
      logits: [B, C].

    Returns:
      [B] values in nats, finite where a probability underflows.

    Source: DivideMix section 3.1 (confidence penalty against asymmetric noise).
    """
    log_probs = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)


def masked_mean(values: Array, mask: Array) -> Array:
    """Mean of the values where the mask holds; 0, with zero gradient, if none.

    Args:
      values: [B].
      mask: [B] bool or 0/1.

    Returns:
      Scalar.
    """
    mask = mask.astype(values.dtype)
    return jnp.sum(values * mask) / jnp.maximum(mask.sum(), 1)


_FLOOR = 1e-12  # inside the logarithm of the prior


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


def prior_adjustment(prior: Array | np.ndarray, exponents: Array | np.ndarray):
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
