"""Per-example losses as pure functions; the caller reduces them.

Shapes: B rows, C classes, D feature dimensions, M memory rows.  Every result
has the dtype of its floating-point inputs.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

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


def class_balanced_contrastive(
    features: Array, targets: Array, prototypes: Array, temperature: float
) -> Array:
    r"""Balanced supervised contrast of each row with all rows and prototypes.

    With :math:`s_{ij} = z_i \cdot z_j/\tau`, affinity
    :math:`A_{ij} = t_i \cdot t_j` (:math:`A_{ii} = 0`) and :math:`n_c` the
    elements whose largest target is c,

    .. math:: L_i = -\frac{\sum_j A_{ij}(s_{ij} - \log d_i)}{\sum_j A_{ij}},
       \quad d_i = \sum_{j \ne i} \frac{e^{s_{ij}}}{n_{c(j)} - A_{ij}} .

    Dividing by the class size makes every class weigh the same in the
    denominator.  A class without rows is still there through its prototype.

    Args:
      features: [n, D] unit rows.
      targets: [n, C] probabilities (one-hot rows give the supervised form).
      prototypes: [C, D] unit rows, one a class.
      temperature: softmax temperature of the cosines.

    Returns:
      [n] losses of the rows as anchors; prototypes are no anchors.  No
      gradient flows into the targets.

    Source: DaSC section 3.3 (SBCL), both stages.
    """
    num_rows, num_classes = targets.shape
    dtype = features.dtype
    targets = jax.lax.stop_gradient(targets).astype(dtype)
    contrast = jnp.concatenate([features, prototypes])  # [n+C, D]
    affinity_to = jnp.concatenate([targets, jnp.eye(num_classes, dtype=dtype)])
    not_self = 1 - jnp.eye(num_rows, num_rows + num_classes, dtype=dtype)

    affinity = targets @ affinity_to.T * not_self  # [n, n+C]
    classes = jnp.argmax(affinity_to, axis=-1)
    class_size = jax.nn.one_hot(classes, num_classes, dtype=dtype).sum(0)
    divisor = class_size[classes] - affinity

    similarity = features @ contrast.T / temperature
    log_denominator = jax.nn.logsumexp(
        similarity, axis=-1, b=not_self / divisor, keepdims=True
    )
    log_prob = similarity - log_denominator
    return -(affinity * log_prob).sum(-1) / affinity.sum(-1)


def info_nce(
    queries: Array,
    keys: Array,
    memory: Array,
    fill: Array,
    temperature: float,
    target: Array | None = None,
) -> Array:
    r"""Instance discrimination of a query's own key against a memory.

    .. math:: -\log \frac{e^{q_i k_i/\tau}}
       {e^{q_i k_i/\tau} + \sum_j e^{q_i m_j/\tau}}

    Args:
      queries: [B, D] unit rows, with gradient.
      keys: [B, D] unit rows, the other view; no gradient flows into them.
      memory: [M, D] unit rows, oldest first, the last `fill` of them valid.
      fill: scalar integer, how many memory rows are valid.
      temperature: softmax temperature.
      target: [B] column to pick, 0 the own key, i the i-th oldest valid memory
        row.  None means 0 for every row, which is InfoNCE; DaSC's release
        trains row i to pick column i.  A column past the valid rows gives 0.

    Returns:
      [B] losses in nats; zeros while the memory is empty.

    Source: DaSC section 3.4 (MIDL).
    """
    keys, memory = jax.lax.stop_gradient((keys, memory))
    positive = jnp.sum(queries * keys, axis=-1, keepdims=True)
    logits = jnp.concatenate([positive, queries @ memory.T], axis=-1)
    logits = logits / temperature  # [B, 1+M]
    size = memory.shape[0]
    empty = size - fill
    column = jnp.arange(size + 1)
    valid = (column == 0) | (column > empty)
    logits = jnp.where(valid, logits, -jnp.inf)
    if target is None:
        target = jnp.zeros(queries.shape[0], jnp.int32)
    in_memory = target <= fill
    index = jnp.where(target > 0, target + empty, 0)
    index = jnp.where(in_memory, index, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, index)
    return jnp.where(in_memory & (fill > 0), losses, 0)


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
