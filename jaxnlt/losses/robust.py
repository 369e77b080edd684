"""Losses against wrong labels and long tails for training on given labels.

Pure functions; one value a row unless the docstring says that a loss is of the
batch.  B rows, C classes, F feature dimensions, N samples of the data set.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Num

from jaxnlt.losses import classification

# Stands for log 0 in the reverse cross-entropy.
LOG_ZERO = math.log(1e-4)
# Least probability in the passive losses and in generalised cross-entropies.
FLOOR = 1e-7


def _clipped_probs(
    logits: Float[Array, "B C"], low: float, high: float
) -> Float[Array, "B C"]:
    return jnp.clip(jax.nn.softmax(logits), low, high)


def _of_label(
    values: Float[Array, "B C"], labels: Int[Array, "B"]
) -> Float[Array, "B"]:
    """The entry of each row's label."""
    return jnp.take_along_axis(values, labels[:, None], axis=-1)[:, 0]


# --- active losses: of the label's probability alone ------------------------


def focal(
    logits: Float[Array, "B C"],
    labels: Int[Array, "B"],
    gamma: float,
    detached: bool = False,
) -> Float[Array, "B"]:
    r"""Focal loss :math:`-(1 - p_y)^\gamma \log p_y`.

    Args:
      logits: [B, C].
      labels: [B].
      gamma: at least 0; 0 is cross-entropy.
      detached: whether the power only weighs the row, without a gradient, as
        in the code of H2E.

    Returns:
      [B] losses in nats.

    Source: Lin et al. 2017, eq. 4; ``papers/h2e.md`` section 11.
    """
    ce = classification.cross_entropy(logits, labels)
    # 1 - p = -expm1(-ce), bounded away from 0, where the power has no gradient.
    rest = jnp.maximum(-jnp.expm1(-ce), jnp.finfo(ce.dtype).tiny)
    factor = rest**gamma
    return (jax.lax.stop_gradient(factor) if detached else factor) * ce


def generalised_cross_entropy(
    logits: Float[Array, "B C"],
    labels: Int[Array, "B"],
    q: float,
    floor: float = 0.0,
) -> Float[Array, "B"]:
    r"""Generalised cross-entropy :math:`(1 - \max(p_y, \epsilon)^q) / q`.

    Args:
      logits: [B, C].
      labels: [B].
      q: in (0, 1]; 1 is the mean absolute error, q to 0 cross-entropy.
      floor: epsilon, the probability below which there is no gradient; H2E's
        code has 1e-7.

    Returns:
      [B] losses.

    Source: Zhang, Sabuncu 2018, eq. 6; ``papers/h2e.md`` section 11.
    """
    ce = classification.cross_entropy(logits, labels)
    losses = -jnp.expm1(-q * ce) / q
    return jnp.minimum(losses, (1 - floor**q) / q) if floor else losses


def normalised_cross_entropy(
    logits: Float[Array, "B C"], labels: Int[Array, "B"]
) -> Float[Array, "B"]:
    r"""Cross-entropy over its sum, :math:`\ln p_y / \sum_k \ln p_k`.

    Args:
      logits: [B, C], C at least 2.
      labels: [B].

    Returns:
      [B] losses in (0, 1).

    Source: Ma et al. 2020, eq. 5; ``papers/h2e.md`` section 11.
    """
    log_probs = jax.nn.log_softmax(logits)
    return _of_label(log_probs, labels) / log_probs.sum(-1)


def normalised_generalised_cross_entropy(
    logits: Float[Array, "B C"], labels: Int[Array, "B"], q: float
) -> Float[Array, "B"]:
    r"""Generalised CE over its sum, :math:`(1-\hat p_y^q)/(C-\sum\hat p_k^q)`.

    Args:
      logits: [B, C], C at least 2.
      labels: [B].
      q: in (0, 1].

    Returns:
      [B] losses in [0, 1]; probabilities are at least 1e-7.

    Source: Ma et al. 2020, section 3.2; ``papers/h2e.md`` section 11.
    """
    powers = _clipped_probs(logits, FLOOR, 1) ** q
    return (1 - _of_label(powers, labels)) / (logits.shape[-1] - powers.sum(-1))


def normalised_focal(
    logits: Float[Array, "B C"], labels: Int[Array, "B"], gamma: float
) -> Float[Array, "B"]:
    r"""Focal loss over its sum over the classes, without gradient in powers.

    .. math:: (1-p_y)^\gamma \ln p_y \big/ \sum_k (1-p_k)^\gamma \ln p_k

    Args:
      logits: [B, C], C at least 2.
      labels: [B].
      gamma: at least 0; 0 is the normalised cross-entropy.

    Returns:
      [B] losses in [0, 1].

    Source: Ma et al. 2020, section 3.2; ``papers/h2e.md`` section 11.
    """
    log_probs = jax.nn.log_softmax(logits)
    factors = jax.lax.stop_gradient(-jnp.expm1(log_probs)) ** gamma
    terms = factors * log_probs
    return _of_label(terms, labels) / terms.sum(-1)


# --- passive losses: of the other classes' probabilities --------------------


def mean_absolute_error(
    logits: Float[Array, "B C"], labels: Int[Array, "B"]
) -> Float[Array, "B"]:
    r"""Mean absolute error :math:`1 - p_y`, half of the textbook's.

    Args:
      logits: [B, C].
      labels: [B].

    Returns:
      [B] losses in [0, 1].

    Source: Ghosh et al. 2017; ``papers/h2e.md`` section 11.
    """
    return -jnp.expm1(-classification.cross_entropy(logits, labels))


def reverse_cross_entropy(
    logits: Float[Array, "B C"], labels: Int[Array, "B"]
) -> Float[Array, "B"]:
    r"""Reverse cross-entropy :math:`-A \sum_{k \ne y} \hat p_k`.

    :math:`A = \ln 10^{-4}` stands for log 0.

    Args:
      logits: [B, C].
      labels: [B].

    Returns:
      [B] losses; probabilities are at least 1e-7.

    Source: Wang et al. 2019, eq. 5; ``papers/h2e.md`` section 11.
    """
    probs = _clipped_probs(logits, FLOOR, 1)
    others = 1 - jax.nn.one_hot(labels, logits.shape[-1], dtype=probs.dtype)
    return -LOG_ZERO * (probs * others).sum(-1)


# --- sums of an active and a passive loss -----------------------------------


def symmetric_cross_entropy(
    logits: Float[Array, "B C"],
    labels: Int[Array, "B"],
    forward: float,
    backward: float,
    log_zero: float,
) -> Float[Array, "B"]:
    r"""Cross-entropy both ways, :math:`\alpha\,CE - \beta A (1 - p_y)`.

    Args:
      logits: [B, C].
      labels: [B].
      forward: alpha.
      backward: beta, of the cross-entropy of the label under the prediction.
      log_zero: A < 0, stands for log 0.

    Returns:
      [B] losses.

    Source: Wang et al. 2019, eq. 7 and eq. 8.
    """
    ce = classification.cross_entropy(logits, labels)
    return forward * ce + backward * log_zero * jnp.expm1(-ce)


def active_passive(
    name: str,
    logits: Float[Array, "B C"],
    labels: Int[Array, "B"],
    weights: tuple[float, float] = (1.0, 1.0),
    q: float = 0.7,
    gamma: float = 0.5,
) -> Float[Array, "B"]:
    r"""A loss by its short name, or two of them, :math:`\alpha L_1+\beta L_2`.

    The short names are ``ce`` (cross-entropy), ``gce`` (generalised CE),
    ``mae`` (mean absolute error) and ``rce`` (reverse CE); their normalised
    forms ``nce``, ``ngce``, ``nmae`` and ``nrce``; and ``nfl`` (normalised
    focal).  ``nmae`` and ``nrce`` are ``mae`` and ``rce`` over constants.

    Args:
      name: a short name, or two joined by an underscore, such as ``nce_rce``.
      logits: [B, C], C at least 2.
      labels: [B].
      weights: alpha and beta of two losses; a single loss has the weight 1.
      q: exponent of ``gce`` and ``ngce``, in (0, 1].
      gamma: exponent of ``nfl``, at least 0.

    Returns:
      [B] losses.

    Raises:
      KeyError: an unknown short name.

    Source: Ma et al. 2020, eq. 8; ``papers/h2e.md`` section 11.
    """
    others = logits.shape[-1] - 1
    known = {
        "ce": lambda: classification.cross_entropy(logits, labels),
        "gce": lambda: generalised_cross_entropy(logits, labels, q, FLOOR),
        "mae": lambda: mean_absolute_error(logits, labels),
        "rce": lambda: reverse_cross_entropy(logits, labels),
        "nce": lambda: normalised_cross_entropy(logits, labels),
        "ngce": lambda: normalised_generalised_cross_entropy(logits, labels, q),
        "nmae": lambda: mean_absolute_error(logits, labels) / (2 * others),
        "nrce": lambda: (
            reverse_cross_entropy(logits, labels) / (-LOG_ZERO * others)
        ),
        "nfl": lambda: normalised_focal(logits, labels, gamma),
    }
    first, _, second = name.partition("_")
    if not second:
        return known[first]()
    return weights[0] * known[first]() + weights[1] * known[second]()


# --- losses of a batch ------------------------------------------------------


def dmi(
    logits: Float[Array, "B C"], labels: Int[Array, "B"]
) -> Float[Array, ""]:
    r"""Determinant-based information :math:`-\ln(|\det(Y^T p)| + 10^{-3})`.

    Args:
      logits: [B, C].
      labels: [B]; Y holds their one-hot rows.

    Returns:
      Scalar of the batch; the matrix is not divided by B.

    Source: Xu et al. 2019, section 3; ``papers/h2e.md`` section 11.
    """
    probs = jax.nn.softmax(logits)
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=probs.dtype)
    determinant = jnp.linalg.det(one_hot.T @ probs)
    return -jnp.log(jnp.abs(determinant) + 1e-3)


def coteaching(
    logits_a: Float[Array, "B C"],
    logits_b: Float[Array, "B C"],
    labels: Int[Array, "B"],
    forget: float,
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    r"""Mean cross-entropy on the rows that the other network finds easiest.

    Each network learns from the :math:`m = \lfloor (1 - r) B \rfloor` rows of
    the smallest loss of the other network, at least one row.

    Args:
      logits_a: [B, C] of the first network.
      logits_b: [B, C] of the second network.
      labels: [B].
      forget: r in [0, 1].

    Returns:
      Two scalars of the batch, in nats; no gradient flows through the choice.
      The code of H2E divides them by m once more.

    Source: Han et al. 2018, algorithm 1; ``papers/h2e.md`` section 11.
    """
    kept = max(int((1 - forget) * len(labels)), 1)
    loss_a = classification.cross_entropy(logits_a, labels)
    loss_b = classification.cross_entropy(logits_b, labels)
    for_a, for_b = jnp.argsort(loss_b)[:kept], jnp.argsort(loss_a)[:kept]
    return loss_a[for_a].mean(), loss_b[for_b].mean()


# --- early-learning regularisation ------------------------------------------


def elr_update(
    running: Float[Array, "N C"],
    index: Int[Array, "B"],
    logits: Float[Array, "B C"],
    momentum: float,
) -> Float[Array, "N C"]:
    r"""Moves the running targets :math:`t \leftarrow \beta t + (1-\beta) p`.

    Args:
      running: [N, C] targets of all samples.
      index: [B] sample of each row; a sample that occurs twice moves by the
        mean of its rows.
      logits: [B, C].
      momentum: beta.

    Returns:
      [N, C], without gradient.

    Source: Liu et al. 2020, eq. 9.
    """
    probs = jax.lax.stop_gradient(_clipped_probs(logits, 1e-4, 1 - 1e-4))
    probs = probs / probs.sum(-1, keepdims=True)
    times = jnp.zeros(len(running), probs.dtype).at[index].add(1)
    step = (1 - momentum) * (probs - running[index]) / times[index][:, None]
    return running.at[index].add(step.astype(running.dtype))


def early_learning(
    logits: Float[Array, "B C"], targets: Float[Array, "B C"]
) -> Float[Array, "B"]:
    r"""Early-learning regulariser :math:`\log(1 - \langle t, p \rangle)`.

    Args:
      logits: [B, C].
      targets: [B, C] running targets; no gradient flows into them.

    Returns:
      [B] values, at most 0.

    Source: Liu et al. 2020, eq. 6; its code clips probabilities to [1e-4, 1 -
      1e-4], which keeps the logarithm finite.
    """
    targets = jax.lax.stop_gradient(targets).astype(logits.dtype)
    probs = _clipped_probs(logits, 1e-4, 1 - 1e-4)
    inner = jnp.sum(targets * probs, axis=-1)
    return jnp.log1p(-jnp.minimum(inner, 1 - 1e-4))


# --- long tails -------------------------------------------------------------


def logit_adjusted(
    logits: Float[Array, "B C"],
    labels: Int[Array, "B"],
    counts: Num[Array | np.ndarray, "C"],
    strength: float,
) -> Float[Array, "B"]:
    r"""Cross-entropy of :math:`z + \tau \log(n / \sum n)`.

    Args:
      logits: [B, C].
      labels: [B].
      counts: [C] samples a class; an empty one counts as 1.
      strength: tau; 1 is balanced softmax.

    Returns:
      [B] losses in nats.

    Source: Menon et al. 2021, eq. 10.
    """
    prior = classification.log_prior(counts).astype(logits.dtype)
    return classification.cross_entropy(logits + strength * prior, labels)


def effective_weights(
    counts: Num[Array | np.ndarray, "C"], beta: float
) -> Float[np.ndarray, "C"]:
    r"""Class weights :math:`\propto (1-\beta)/(1-\beta^{n_k})`, of sum C.

    Args:
      counts: [C] samples a class; an empty one counts as 1.
      beta: in [0, 1); 0 weighs all classes alike.

    Returns:
      float64[C].

    Source: Cui et al. 2019, eq. 2; ``papers/dividemix_rolt.md`` section 4.3.
    """
    counts = np.maximum(np.asarray(counts, np.float64), 1)
    weights = (1 - beta) / (1 - beta**counts)
    return weights * len(weights) / weights.sum()


def ldam_margins(
    counts: Num[Array | np.ndarray, "C"], largest: float
) -> Float[Array, "C"]:
    r"""Margins :math:`m_k \propto n_k^{-1/4}`, the rarest class the largest.

    Args:
      counts: [C] samples a class; an empty one counts as 1.
      largest: margin of the rarest class.

    Returns:
      [C] margins.

    Source: Cao et al. 2019, eq. 13; ``papers/dividemix_rolt.md`` section 4.3.
    """
    counts = jnp.maximum(jnp.asarray(counts, jnp.result_type(float)), 1)
    return largest * (counts.min() / counts) ** 0.25


def ldam(
    cosine_logits: Float[Array, "B C"],
    labels: Int[Array, "B"],
    margins: Float[Array, "C"],
    scale: float,
) -> Float[Array, "B"]:
    r"""Cross-entropy of :math:`s (z - m_y e_y)`.

    Args:
      cosine_logits: [B, C] in [-1, 1], as ``cosines`` makes them.
      labels: [B].
      margins: [C], as ``ldam_margins`` makes them.
      scale: s.

    Returns:
      [B] losses in nats.

    Source: Cao et al. 2019, eq. 12; ``papers/dividemix_rolt.md`` section 4.3.
    """
    dtype = cosine_logits.dtype
    one_hot = jax.nn.one_hot(labels, cosine_logits.shape[-1], dtype=dtype)
    shifted = cosine_logits - one_hot * margins.astype(dtype)
    return classification.cross_entropy(scale * shifted, labels)


# --- classifiers: cosines and rescaled weights ------------------------------


def unit(values: Float[Array, "..."], axis: int) -> Float[Array, "..."]:
    """Divides by the Euclidean norm along an axis, at least 1e-12.

    Args:
      values: of any shape.
      axis: along which the norm is taken.

    Returns:
      The shape of ``values``; the gradient of a zero vector is finite.
    """
    squares = jnp.sum(values**2, axis=axis, keepdims=True)
    positive = squares > 1e-24
    norm = jnp.sqrt(jnp.where(positive, squares, 1))
    return values / jnp.where(positive, norm, 1e-12)


def cosines(
    features: Float[Array, "B F"], kernel: Float[Array, "F C"]
) -> Float[Array, "B C"]:
    r"""Cosine classifier :math:`f \cdot w_k / (\|f\| \|w_k\|)`.

    Args:
      features: [B, F].
      kernel: [F, C].

    Returns:
      [B, C]; zeros for a zero row.

    Source: ``papers/dividemix_rolt.md`` section 4.
    """
    return unit(features, -1) @ unit(kernel, 0)


def tau_normalised(
    kernel: Float[Array, "F C"], tau: float
) -> Float[Array, "F C"]:
    r"""Class weights :math:`w_k / \|w_k\|^\tau`; a zero column stays zero.

    Args:
      kernel: [F, C].
      tau: 0 leaves them unchanged, 1 makes them unit vectors.

    Returns:
      [F, C].

    Source: Kang et al. 2020, eq. 4; ``papers/dividemix_rolt.md`` section 4.4.
    """
    norm = jnp.linalg.norm(kernel, axis=0, keepdims=True)
    return kernel / jnp.where(norm > 0, norm, 1) ** tau
