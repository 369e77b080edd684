"""Losses that H2E is compared with: active, passive, and of a whole batch.

Pure functions; B rows, C classes.  One value a row unless the docstring says
that the loss is of the batch.  Balanced softmax, LDAM, symmetric and
generalised cross-entropy are in `losses` and `robust_losses`.

Source: Ma et al., "Normalized Loss Functions for Deep Learning with Noisy
Labels", ICML 2020; papers/h2e.md section 11.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt.losses import classification, robust

Array = jax.Array

LOG_ZERO = math.log(1e-4)  # what stands for log 0
FLOOR = 1e-7  # least probability in the passive and generalised losses


def _clipped_probs(logits: Array) -> Array:
    return jnp.clip(jax.nn.softmax(logits), FLOOR, 1)


def _own(values: Array, labels: Array) -> Array:
    """The entry of each row's label, [B]."""
    return jnp.take_along_axis(values, labels[:, None], axis=-1)[:, 0]


# --- active -----------------------------------------------------------------


def normalised_cross_entropy(logits: Array, labels: Array) -> Array:
    r"""Cross-entropy over its sum, :math:`\ln p_y / \sum_k \ln p_k`.

    Args:
      logits: [B, C], C at least 2.
      labels: int[B].

    Returns:
      [B] losses in (0, 1).

    Source: Ma et al. 2020, eq. 5.
    """
    log_probs = jax.nn.log_softmax(logits)
    return _own(log_probs, labels) / log_probs.sum(-1)


def generalised_cross_entropy(logits: Array, labels: Array, q: float) -> Array:
    r"""Generalised cross-entropy :math:`(1 - \hat p_y^q) / q`, p of 1e-7 least.

    Args:
      logits: [B, C].
      labels: int[B].
      q: in (0, 1].

    Returns:
      [B] losses, without gradient where the probability is below 1e-7.

    Source: papers/h2e.md section 11.
    """
    unbounded = robust.generalised_cross_entropy(logits, labels, q)
    return jnp.minimum(unbounded, (1 - FLOOR**q) / q)


def normalised_generalised_cross_entropy(
    logits: Array, labels: Array, q: float
) -> Array:
    r"""Generalised CE over its sum, :math:`(1-\hat p_y^q)/(C-\sum\hat p_k^q)`.

    Args:
      logits: [B, C], C at least 2.
      labels: int[B].
      q: in (0, 1].

    Returns:
      [B] losses in [0, 1].

    Source: Ma et al. 2020, section 3.2; papers/h2e.md section 11.
    """
    powers = _clipped_probs(logits) ** q
    return (1 - _own(powers, labels)) / (logits.shape[-1] - powers.sum(-1))


def focal(
    logits: Array,
    labels: Array,
    gamma: float,
    class_alpha: Array | np.ndarray | None = None,
) -> Array:
    r"""Focal loss :math:`-\alpha_y (1-p_y)^\gamma \ln p_y`, factor detached.

    Unlike `robust.focal`, the power only weighs the row: no gradient
    flows through it.

    Args:
      logits: [B, C].
      labels: int[B].
      gamma: at least 0; 0 is cross-entropy.
      class_alpha: [C] weights of the classes, None for ones.

    Returns:
      [B] losses in nats.

    Source: Lin et al. 2017, eq. 5; papers/h2e.md section 11.
    """
    ce = classification.cross_entropy(logits, labels)
    factor = jax.lax.stop_gradient(-jnp.expm1(-ce)) ** gamma
    if class_alpha is not None:
        factor = factor * jnp.asarray(class_alpha, ce.dtype)[labels]
    return factor * ce


def normalised_focal(logits: Array, labels: Array, gamma: float) -> Array:
    r"""Focal loss over its sum over the classes, factors detached.

    .. math:: (1-p_y)^\gamma \ln p_y \big/ \sum_k (1-p_k)^\gamma \ln p_k

    Args:
      logits: [B, C], C at least 2.
      labels: int[B].
      gamma: at least 0; 0 is the normalised cross-entropy.

    Returns:
      [B] losses in [0, 1].

    Source: Ma et al. 2020, section 3.2; papers/h2e.md section 11.
    """
    log_probs = jax.nn.log_softmax(logits)
    factors = jax.lax.stop_gradient(-jnp.expm1(log_probs)) ** gamma
    terms = factors * log_probs
    return _own(terms, labels) / terms.sum(-1)


# --- passive ----------------------------------------------------------------


def reverse_cross_entropy(logits: Array, labels: Array) -> Array:
    r"""Reverse cross-entropy :math:`A \sum_{k \ne y} \hat p_k`.

    :math:`A = -\ln 10^{-4}`, and p of at least 1e-7.

    Args:
      logits: [B, C].
      labels: int[B].

    Returns:
      [B] losses.

    Source: Wang et al. 2019, eq. 5; papers/h2e.md section 11.
    """
    probs = _clipped_probs(logits)
    others = 1 - jax.nn.one_hot(labels, logits.shape[-1], dtype=probs.dtype)
    return -LOG_ZERO * (probs * others).sum(-1)


def normalised_reverse_cross_entropy(
    logits: Array, labels: Array, as_released: bool = False
) -> Array:
    r"""Reverse cross-entropy over its sum, :math:`RCE / (A (C - 1))`.

    Args:
      logits: [B, C], C at least 2.
      labels: int[B].
      as_released: multiply by (C - 1) / 4 instead, a slip of the authors.

    Returns:
      [B] losses.

    Source: Ma et al. 2020, section 3.2; papers/h2e.md section 11.
    """
    reverse = reverse_cross_entropy(logits, labels)
    others = logits.shape[-1] - 1
    if as_released:
        return reverse * (others / 4)
    return reverse / (-LOG_ZERO * others)


def mean_absolute_error(logits: Array, labels: Array) -> Array:
    r"""Mean absolute error :math:`1 - p_y`, half of the textbook's.

    Args:
      logits: [B, C].
      labels: int[B].

    Returns:
      [B] losses in [0, 1].

    Source: Ghosh et al. 2017; papers/h2e.md section 11.
    """
    return -jnp.expm1(-classification.cross_entropy(logits, labels))


def normalised_mean_absolute_error(logits: Array, labels: Array) -> Array:
    r"""Mean absolute error over its sum, :math:`(1 - p_y) / (2 (C - 1))`.

    Args:
      logits: [B, C], C at least 2.
      labels: int[B].

    Returns:
      [B] losses.

    Source: Ma et al. 2020, section 3.2; papers/h2e.md section 11.
    """
    others = logits.shape[-1] - 1
    return mean_absolute_error(logits, labels) / (2 * others)


# --- sums of two ------------------------------------------------------------


def combined(
    logits: Array,
    labels: Array,
    first: str,
    second: str,
    alpha: float,
    beta: float,
    q: float = 0.7,
    gamma: float = 0.5,
) -> Array:
    r"""Two losses, :math:`\alpha L_1 + \beta L_2`, such as NCE+RCE.

    Args:
      logits: [B, C].
      labels: int[B].
      first: ce, gce, mae, nce, nfl, ngce or rce; the active loss as a rule.
      second: one of the same; the passive loss as a rule.
      alpha: weight of the first.
      beta: weight of the second.
      q: exponent of gce and ngce.
      gamma: of nfl.

    Returns:
      [B] losses.

    Raises:
      KeyError: no such loss.

    Source: Ma et al. 2020, eq. 8; papers/h2e.md section 11.
    """
    terms: dict[str, Callable[[Array, Array], Array]] = {
        "ce": classification.cross_entropy,
        "gce": functools.partial(generalised_cross_entropy, q=q),
        "mae": mean_absolute_error,
        "nce": normalised_cross_entropy,
        "nfl": functools.partial(normalised_focal, gamma=gamma),
        "ngce": functools.partial(normalised_generalised_cross_entropy, q=q),
        "rce": reverse_cross_entropy,
    }
    own, other = terms[first](logits, labels), terms[second](logits, labels)
    return alpha * own + beta * other


# --- of a whole batch -------------------------------------------------------


def dmi(logits: Array, labels: Array) -> Array:
    r"""Determinant-based information :math:`-\ln(|\det(Y^T p)| + 10^{-3})`.

    Args:
      logits: [B, C].
      labels: int[B], Y their one-hot rows.

    Returns:
      Scalar of the batch; the matrix is not divided by B.

    Source: Xu et al. 2019, section 3; papers/h2e.md section 11.
    """
    probs = jax.nn.softmax(logits)
    one_hot = jax.nn.one_hot(labels, logits.shape[-1], dtype=probs.dtype)
    determinant = jnp.linalg.det(one_hot.T @ probs)
    return -jnp.log(jnp.abs(determinant) + 1e-3)


def coteaching(
    logits_a: Array,
    logits_b: Array,
    labels: Array,
    forget: float,
    as_released: bool = False,
) -> tuple[Array, Array]:
    r"""Mean cross-entropy on what the other network finds easiest.

    Each network learns from the :math:`m = \lfloor (1 - r) B \rfloor` rows of
    the smallest loss of the other one, at least one row.

    Args:
      logits_a: [B, C] of the first network.
      logits_b: [B, C] of the second network.
      labels: int[B].
      forget: r in [0, 1].
      as_released: divide by m a second time, a slip of the authors.

    Returns:
      Two scalars of the batch, in nats; no gradient flows through the choice.

    Source: Han et al. 2018, algorithm 1; papers/h2e.md section 11.
    """
    kept = max(int((1 - forget) * len(labels)), 1)
    loss_a = classification.cross_entropy(logits_a, labels)
    loss_b = classification.cross_entropy(logits_b, labels)
    for_a, for_b = jnp.argsort(loss_b)[:kept], jnp.argsort(loss_a)[:kept]
    scale = 1 / kept if as_released else 1.0
    return loss_a[for_a].mean() * scale, loss_b[for_b].mean() * scale
