"""Contrast of several views of every image, with or without labels."""

import jax
import jax.numpy as jnp

Array = jax.Array


def view_contrast(
    features: Array,
    temperature: float,
    base_temperature: float | None = None,
    labels: Array | None = None,
) -> Array:
    r"""Every view against all others; views of one image attract.

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

    Source: SimCLR (Chen et al. 2020) eq. 1; SupCon (Khosla et al. 2020) eq. 2;
    papers/unicon.md section 6.
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
