"""Layers with PyTorch's semantics that every network shares."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnlt.runtime.errors import UserError


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as in PyTorch.

    y = scale * (x - mean) / sqrt(var + epsilon) + bias.  In training mode mean
    and biased variance are those of the whole (global) batch, and the running
    ones move: running <- momentum * running + (1 - momentum) * batch, with the
    unbiased batch variance, n / (n - 1) times the biased one (Flax's own layer
    keeps the biased one).  Statistics are float32 under bfloat16 and float64
    under float64.

    Source: ``papers/preact_resnet18.md``, BatchNorm.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalises ``x``.

        Args:
          x: [B, F] or [B, H, W, C], floating point.
          train: use the batch's statistics and move the running ones.

        Returns:
          The normalised array, shape and dtype of ``x``.

        Raises:
          UserError: a training batch has a single value per channel, whose
            variance does not exist.
        """
        channels = (x.shape[-1],)
        dtype = jnp.promote_types(x.dtype, jnp.float32)
        scale = self.param("scale", nn.initializers.ones, channels, dtype)
        bias = self.param("bias", nn.initializers.zeros, channels, dtype)
        running_mean = self.variable(
            "batch_stats", "mean", jnp.zeros, channels, dtype
        )
        running_var = self.variable(
            "batch_stats", "var", jnp.ones, channels, dtype
        )
        wide = x.astype(dtype)
        if train:
            axes = tuple(range(x.ndim - 1))
            n = x.size // x.shape[-1]
            if n < 2:
                raise UserError(
                    f"BatchNorm: a training batch of shape {x.shape} has only "
                    "one value per channel; choose a batch size that leaves "
                    "no batch of one row"
                )
            mean = wide.mean(axes)
            # Two passes: E[x^2] - E[x]^2 cancels in float32 for large means.
            var = jnp.square(wide - mean).mean(axes)
            keep = self.momentum
            running_mean.value = keep * running_mean.value + (1 - keep) * mean
            running_var.value = keep * running_var.value + (1 - keep) * (
                var * (n / (n - 1))
            )
        else:
            mean, var = running_mean.value, running_var.value
        gain = scale * jax.lax.rsqrt(var + self.epsilon)
        return ((wide - mean) * gain + bias).astype(x.dtype)


def l2_normalise(x: jax.Array, epsilon: float = 1e-12) -> jax.Array:
    """Scales the last axis to unit length: x / max(||x||, epsilon).

    The maximum is taken below the root, so that the gradient of a zero row is
    finite.

    Args:
      x: [..., F].
      epsilon: smallest length that is divided by.

    Returns:
      [..., F], unit rows; a zero row stays zero.
    """
    square = jnp.sum(jnp.square(x), axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.maximum(square, epsilon**2))


def adaptive_mean(x: jax.Array, size: int) -> jax.Array:
    """Averages a map over size x size bins, as PyTorch's adaptive pooling.

    Of n rows, bin k covers floor(k n / size) to ceil((k + 1) n / size) - 1, so
    that bins overlap or repeat rows where size does not divide n.

    Args:
      x: [B, H, W, C].
      size: bins a side.

    Returns:
      [B, size, size, C].

    Source: ``papers/smr.md`` section 5.
    """
    return jnp.einsum(
        "ih,bhwc,jw->bijc",
        _bins(x.shape[1], size).astype(x.dtype),
        x,
        _bins(x.shape[2], size).astype(x.dtype),
        precision=jax.lax.Precision.HIGHEST,
    )


def _bins(n: int, size: int) -> np.ndarray:
    """Weight of every row in every bin, [size, n]; each bin's sum is 1."""
    k, row = np.arange(size)[:, None], np.arange(n)
    inside = (row >= k * n // size) & (row < -(-(k + 1) * n // size))
    return inside / inside.sum(axis=1, keepdims=True)
