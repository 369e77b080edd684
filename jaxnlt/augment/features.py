"""Views of rows of features: noise and dropout in units of their deviation."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

#: Standard deviation of the noise, in those of each feature.
NOISE = 0.5
#: Probability that a feature is dropped.
DROPPED = 0.2


def jitter(
    key: Key[Array, ""], rows: Float[Array, "B D"]
) -> Float[Array, "B D"]:
    r"""Adds Gaussian noise of ``NOISE``, :math:`x + s \epsilon`.

    Args:
      key: JAX key.
      rows: [B, D], standardised.

    Returns:
      [B, D], dtype of ``rows``.
    """
    return rows + NOISE * jax.random.normal(key, rows.shape, rows.dtype)


def dropout(
    key: Key[Array, ""], rows: Float[Array, "B D"]
) -> Float[Array, "B D"]:
    """Puts features at their mean, 0, with probability ``DROPPED``.

    The others are not scaled: an absent feature is not made up for.

    Args:
      key: JAX key.
      rows: [B, D], standardised.

    Returns:
      [B, D], dtype of ``rows``.
    """
    kept = jax.random.bernoulli(key, 1 - DROPPED, rows.shape)
    return jnp.where(kept, rows, jnp.zeros_like(rows))
