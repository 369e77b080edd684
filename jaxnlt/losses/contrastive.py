"""Contrastive losses of unit feature rows, with or without labels."""

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int


def view_contrast(
    features: Float[Array, "n V D"],
    temperature: float,
    base_temperature: float | None = None,
    labels: Int[Array, "n"] | None = None,
) -> Float[Array, "V*n"]:
    r"""Contrast of every view with all others; views of one image attract.

    With :math:`s_{ij} = f_i \cdot f_j / \tau` over all n V rows,

    .. math:: L_i = -\frac{\tau}{\tau_0} \frac{1}{|P_i|} \sum_{j \in P_i}
       \Big(s_{ij} - \log \sum_{k \ne i} e^{s_{ik}}\Big)

    where :math:`P_i` holds the other views of the same image or, given labels,
    the other rows of the same label.

    Args:
      features: [n, V, D] unit rows, V > 1.
      temperature: tau.
      base_temperature: tau_0; None takes tau.
      labels: [n] integers, or None.

    Returns:
      [V n] losses, all first views first.

    Source: SimCLR (Chen et al. 2020), eq. 1; SupCon (Khosla et al. 2020),
      eq. 2; ``papers/unicon.md`` section 6.
    """
    images, views, _ = features.shape
    rows = jnp.concatenate(jnp.unstack(features, axis=1))
    names = jnp.arange(images) if labels is None else labels
    names = jnp.tile(names, views)
    other = ~jnp.eye(images * views, dtype=bool)
    positive = (names[:, None] == names) & other

    similarity = rows @ rows.T / temperature
    log_sum = jax.nn.logsumexp(similarity, axis=-1, where=other, keepdims=True)
    log_prob = similarity - log_sum
    mean = jnp.sum(jnp.where(positive, log_prob, 0), -1) / positive.sum(-1)
    return -mean * (temperature / (base_temperature or temperature))


def class_balanced_contrastive(
    features: Float[Array, "n D"],
    targets: Float[Array, "n C"],
    prototypes: Float[Array, "C D"],
    temperature: float,
) -> Float[Array, "n"]:
    r"""Balanced supervised contrast of each row with all rows and prototypes.

    With :math:`s_{ij} = z_i \cdot z_j/\tau`, affinity
    :math:`A_{ij} = t_i \cdot t_j` (:math:`A_{ii} = 0`) and :math:`n_c` the
    elements whose largest target is c,

    .. math:: L_i = -\frac{\sum_j A_{ij}(s_{ij} - \log d_i)}{\sum_j A_{ij}},
       \quad d_i = \sum_{j \ne i} \frac{e^{s_{ij}}}{n_{c(j)} - A_{ij}} .

    Dividing by the class size gives every class the same weight in the
    denominator.  A class without rows is represented by its prototype.

    Args:
      features: [n, D] unit rows.
      targets: [n, C] probabilities (one-hot rows give the supervised form); no
        gradient flows into them.
      prototypes: [C, D] unit rows, one a class.
      temperature: tau.

    Returns:
      [n] losses of the rows as anchors; prototypes are no anchors.

    Source: DaSC section 3.3 (SBCL); ``papers/dasc.md`` section 6.3.
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
    queries: Float[Array, "B D"],
    keys: Float[Array, "B D"],
    memory: Float[Array, "M D"],
    fill: int | Int[Array, ""],
    temperature: float,
    target: Int[Array, "B"] | None = None,
) -> Float[Array, "B"]:
    r"""Instance discrimination of a query's own key against a memory.

    .. math:: -\log \frac{e^{q_i k_i/\tau}}
       {e^{q_i k_i/\tau} + \sum_j e^{q_i m_j/\tau}}

    Args:
      queries: [B, D] unit rows, with gradient.
      keys: [B, D] unit rows of the other view; no gradient flows into them.
      memory: [M, D] unit rows, oldest first, of which the last ``fill`` are
        valid; no gradient flows into them.
      fill: scalar, how many memory rows are valid.
      temperature: tau.
      target: [B] column to pick, 0 the own key, i the i-th oldest valid memory
        row.  None means 0 for every row, which is InfoNCE; the released code
        of DaSC trains row i to pick column i.  A column past the valid rows
        gives 0.

    Returns:
      [B] losses in nats; zeros while the memory is empty.

    Source: DaSC section 3.4 (MIDL); ``papers/dasc.md`` section 6.4.
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
