"""Losses of plain training against noise and long tails, one value a row.

Pure functions; the caller reduces them.  B rows, C classes.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt.losses import classification

Array = jax.Array


def focal(logits: Array, labels: Array, gamma: float) -> Array:
    r"""Focal loss :math:`-(1 - p_y)^\gamma \log p_y`.

    Args:
      logits: [B, C].
      labels: [B] integers.
      gamma: at least 0; 0 is cross-entropy.

    Returns:
      [B] losses in nats.

    Source: Lin et al. 2017, eq. 4.
    """
    ce = classification.cross_entropy(logits, labels)
    # 1 - p = -expm1(-ce), kept off 0, where the power has no gradient.
    rest = jnp.maximum(-jnp.expm1(-ce), jnp.finfo(ce.dtype).tiny)
    return rest**gamma * ce


def logit_adjusted(
    logits: Array, labels: Array, counts: Array | np.ndarray, strength: float
) -> Array:
    r"""Cross-entropy of :math:`z + \tau \log(n / \sum n)`.

    Args:
      logits: [B, C].
      labels: [B] integers.
      counts: [C] samples a class; an empty one counts as 1.
      strength: tau; 1 is balanced softmax.

    Returns:
      [B] losses in nats.

    Source: Menon et al. 2021, eq. 10.
    """
    prior = classification.log_prior(counts).astype(logits.dtype)
    return classification.cross_entropy(logits + strength * prior, labels)


def ldam_margins(counts: Array | np.ndarray, largest: float) -> Array:
    r"""Margins :math:`m_k \propto n_k^{-1/4}`, the rarest class the largest.

    Args:
      counts: [C] samples a class; an empty one counts as 1.
      largest: margin of the rarest class.

    Returns:
      [C] margins.

    Source: Cao et al. 2019, eq. 13; papers/dividemix_rolt.md 4.3.
    """
    counts = jnp.maximum(jnp.asarray(counts, jnp.result_type(float)), 1)
    return largest * (counts.min() / counts) ** 0.25


def cosines(features: Array, kernel: Array) -> Array:
    r"""Cosine classifier :math:`f \cdot w_k / (\|f\| \|w_k\|)`.

    Args:
      features: [B, F].
      kernel: [F, C].

    Returns:
      [B, C]; zeros for a zero row.

    Source: papers/dividemix_rolt.md section 4.
    """
    return unit(features, -1) @ unit(kernel, 0)


def unit(values: Array, axis: int) -> Array:
    """Divides by the Euclidean norm along an axis, at least 1e-12.

    The gradient of a zero vector is that of the vector over 1e-12.
    """
    squares = jnp.sum(values**2, axis=axis, keepdims=True)
    positive = squares > 1e-24
    norm = jnp.sqrt(jnp.where(positive, squares, 1))
    return values / jnp.where(positive, norm, 1e-12)


def ldam(
    cosine_logits: Array, labels: Array, margins: Array, scale: float
) -> Array:
    r"""Cross-entropy of :math:`s (z - m_y e_y)`.

    Args:
      cosine_logits: [B, C] in [-1, 1].
      labels: [B] integers.
      margins: [C], as `ldam_margins` makes them.
      scale: s.

    Returns:
      [B] losses in nats.

    Source: Cao et al. 2019, eq. 12; papers/dividemix_rolt.md 4.3.
    """
    dtype = cosine_logits.dtype
    one_hot = jax.nn.one_hot(labels, cosine_logits.shape[-1], dtype=dtype)
    shifted = cosine_logits - one_hot * margins.astype(dtype)
    return classification.cross_entropy(scale * shifted, labels)


def effective_weights(counts: Array | np.ndarray, beta: float) -> np.ndarray:
    r"""Class weights :math:`\propto (1-\beta)/(1-\beta^{n_k})`, of sum C.

    Args:
      counts: [C] samples a class; an empty one counts as 1.
      beta: in [0, 1); 0 weighs all classes alike.

    Returns:
      float64[C].

    Source: Cui et al. 2019, eq. 2; papers/dividemix_rolt.md 4.3.
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1)
    weights = (1 - beta) / (1 - beta**counts)
    return weights * len(weights) / weights.sum()


def weighted_mean(values: Array, weights: Array) -> Array:
    r""":math:`\sum w_i v_i / \sum w_i`, as PyTorch weighs classes.

    Args:
      values: [B].
      weights: [B], not all zero.

    Returns:
      Scalar.
    """
    weights = weights.astype(values.dtype)
    return jnp.sum(weights * values) / jnp.sum(weights)


def generalised_cross_entropy(logits: Array, labels: Array, q: float) -> Array:
    r"""Generalised cross-entropy :math:`(1 - p_y^q) / q`.

    Args:
      logits: [B, C].
      labels: [B] integers.
      q: in (0, 1]; 1 is the mean absolute error, q to 0 cross-entropy.

    Returns:
      [B] losses.

    Source: Zhang, Sabuncu 2018, eq. 6.
    """
    return -jnp.expm1(-q * classification.cross_entropy(logits, labels)) / q


def symmetric_cross_entropy(
    logits: Array,
    labels: Array,
    forward: float,
    backward: float,
    log_zero: float,
) -> Array:
    r"""Cross-entropy both ways, :math:`\alpha\,CE - \beta A (1 - p_y)`.

    Args:
      logits: [B, C].
      labels: [B] integers.
      forward: alpha.
      backward: beta, of the cross-entropy of the label under the prediction.
      log_zero: A < 0, what stands for log 0.

    Returns:
      [B] losses.

    Source: Wang et al. 2019, eq. 7 and 8.
    """
    ce = classification.cross_entropy(logits, labels)
    return forward * ce + backward * log_zero * jnp.expm1(-ce)


def elr_update(
    running: Array, index: Array, logits: Array, momentum: float
) -> Array:
    r"""Moves the running targets :math:`t \leftarrow \beta t + (1-\beta) p`.

    Args:
      running: [N, C] targets of all samples.
      index: [B] which samples the rows are; one that comes twice moves by the
        mean of its rows.
      logits: [B, C].
      momentum: beta.

    Returns:
      [N, C], without gradient.

    Source: Liu et al. 2020, eq. 9.
    """
    probs = jax.lax.stop_gradient(_clipped_probs(logits))
    probs = probs / probs.sum(-1, keepdims=True)
    times = jnp.zeros(len(running), probs.dtype).at[index].add(1)
    step = (1 - momentum) * (probs - running[index]) / times[index][:, None]
    return running.at[index].add(step.astype(running.dtype))


def early_learning(logits: Array, targets: Array) -> Array:
    r"""Early-learning regulariser :math:`\log(1 - \langle t, p \rangle)`.

    Args:
      logits: [B, C].
      targets: [B, C] running targets; no gradient flows into them.

    Returns:
      [B] values, at most 0.

    Source: Liu et al. 2020, eq. 6; probabilities clipped to [1e-4, 1 - 1e-4]
    as there, which keeps the logarithm finite.
    """
    targets = jax.lax.stop_gradient(targets).astype(logits.dtype)
    inner = jnp.sum(targets * _clipped_probs(logits), axis=-1)
    return jnp.log1p(-jnp.minimum(inner, 1 - 1e-4))


def _clipped_probs(logits: Array) -> Array:
    return jnp.clip(jax.nn.softmax(logits), 1e-4, 1 - 1e-4)


def tau_normalised(kernel: Array, tau: float) -> Array:
    r"""Class weights :math:`w_k / \|w_k\|^\tau`; a zero column stays zero.

    Args:
      kernel: [F, C].
      tau: 0 leaves them, 1 makes them unit vectors.

    Returns:
      [F, C].

    Source: Kang et al. 2020, eq. 4; papers/dividemix_rolt.md 4.4.
    """
    norm = jnp.linalg.norm(kernel, axis=0, keepdims=True)
    return kernel / jnp.where(norm > 0, norm, 1) ** tau
