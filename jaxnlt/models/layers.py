"""Layers with PyTorch's semantics that every network shares."""

import contextlib
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxnlt.runtime.errors import UserError


def relu(x: jax.Array) -> jax.Array:
    """max(x, 0); the gradient at 0 is 0, a NaN stays.

    As a selection: XLA:CPU computes a maximum of a normalised map again
    wherever the map is read, but keeps the result of a selection.

    Args:
      x: floating point.

    Returns:
      Shape and dtype of ``x``.
    """
    return jnp.where(x <= 0, jnp.zeros((), x.dtype), x)


def convolve(
    images: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """A convolution, as a matrix product where the window outgrows the map.

    XLA exchanges map and kernel where the kernel is the larger one; on CPUs
    such a convolution is a plain loop, up to fifty times slower.  To be given
    to ``nn.Conv`` as its ``conv_general_dilated``.

    Args:
      images: [B, H, W, I].
      kernel: [h, w, I, O].
      strides: of both axes.
      padding: before and after both axes.
      **options: of ``jax.lax.conv_general_dilated``; dilations and groups must
        be 1.

    Returns:
      [B, H', W', O].
    """
    batch, *sizes, _ = images.shape
    windows = kernel.shape[:2]
    if math.prod(sizes) >= math.prod(windows):
        return jax.lax.conv_general_dilated(
            images, kernel, strides, padding, **options
        )
    axes = list(zip(sizes, windows, strides, padding, strict=True))
    outs = [(n + sum(pad) - k) // step + 1 for n, k, step, pad in axes]
    # Which tap connects an input to an output, axis by axis.
    taps = [
        np.arange(n)[:, None] + pad[0] - step * np.arange(out)
        for (n, _, step, pad), out in zip(axes, outs, strict=True)
    ]
    none = jnp.zeros_like(kernel[0, 0])
    pairs = [
        kernel[y, x] if 0 <= y < windows[0] and 0 <= x < windows[1] else none
        for y in taps[0].flat
        for x in taps[1].flat
    ]
    # [H, H', W, W', I, O] -> [H, W, I, H', W', O].
    matrix = jnp.stack(pairs).reshape(
        *taps[0].shape, *taps[1].shape, *none.shape
    )
    matrix = matrix.transpose(0, 2, 4, 1, 3, 5)
    product = jnp.dot(
        images.reshape(batch, -1),
        matrix.reshape(images[0].size, -1),
        precision=options.get("precision"),
    )
    return product.reshape(batch, *outs, -1)


class Statistics(NamedTuple):
    """Of a training batch, for each channel; no gradient flows through them.

    Attributes:
      mean: [C].
      var: [C], biased.
    """

    mean: jax.Array
    var: jax.Array


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, Statistics]:
    r"""Normalises by the batch's own statistics, over all axes but the last.

    .. math:: y = \gamma (x - \mu) / \sqrt{\sigma^2 + \epsilon} + \beta

    The derivative is written out: with :math:`d = x - \mu`, the inverse
    deviation r and a gradient g of y, its two sums
    :math:`\sum g` and :math:`\sum g d` make all three gradients,

    .. math:: g_x = \gamma r (g - \overline{g} - d\, r^2\, \overline{g d}),

    where automatic differentiation takes five.

    Args:
      x: [..., C]; statistics are float32 where it is bfloat16.
      scale: [C].
      bias: [C].
      epsilon: added to the variance.

    Returns:
      [..., C] in the dtype of ``x``, and the statistics.

    Source: Ioffe and Szegedy 2015, section 3.
    """
    return _normalise_batch(x, scale, bias, epsilon)[0]


_Residuals = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


def _normalise_batch(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[tuple[jax.Array, Statistics], _Residuals]:
    axes = tuple(range(x.ndim - 1))
    wide = x.astype(scale.dtype)
    mean = wide.mean(axes)
    if x.dtype == scale.dtype:
        # Two passes: E[x^2] - E[x]^2 cancels in float32 for large means.
        var = jnp.square(wide - mean).mean(axes)
    else:
        # Where it would cancel, bfloat16 has already rounded the deviations
        # away; one pass can end the convolution that makes the map, and chips
        # exchange both sums at once.
        square = jnp.square(wide).mean(axes)
        var = jnp.maximum(square - jnp.square(mean), 0)
    inverse = jax.lax.rsqrt(var + epsilon)
    y = (wide - mean) * (scale * inverse) + bias
    return (y.astype(x.dtype), Statistics(mean, var)), (x, mean, inverse, scale)


def _normalise_batch_gradient(
    epsilon: float,
    residuals: _Residuals,
    gradients: tuple[jax.Array, Statistics],
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = residuals
    axes = tuple(range(x.ndim - 1))
    n = x.size // x.shape[-1]
    wide = x.astype(scale.dtype)
    gradient = gradients[0].astype(scale.dtype)
    total = gradient.sum(axes)
    # Not (gradient * (wide - mean)).sum(): XLA:CPU would keep wide - mean of
    # every layer from the forward pass on, half as much memory again.
    along = (gradient * wide).sum(axes) - mean * total
    pull = (wide - mean) * (jnp.square(inverse) * along / n)
    x_gradient = (scale * inverse) * (gradient - total / n - pull)
    return x_gradient.astype(x.dtype), inverse * along, total


normalise_batch.defvjp(_normalise_batch, _normalise_batch_gradient)


def normalise_groups(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float, size: int
) -> tuple[jax.Array, Statistics]:
    """``normalise_batch`` of consecutive groups, each by its own statistics.

    What PyTorch's DataParallel computes with B / size devices, on any number of
    devices.

    Args:
      x: [B, ..., C].
      scale: [C].
      bias: [C].
      epsilon: added to the variance.
      size: rows of a group; the last one has what is left.

    Returns:
      [B, ..., C] in the dtype of ``x``, and the statistics of the first group,
      which are those that DataParallel keeps.

    Source: ``papers/h2e.md`` section 2.
    """
    batch = x.shape[0]
    if size >= batch:
        return normalise_batch(x, scale, bias, epsilon)
    whole = batch - batch % size
    groups = x[:whole].reshape(-1, size, *x.shape[1:])
    y, found = jax.vmap(lambda g: normalise_batch(g, scale, bias, epsilon))(
        groups
    )
    y = y.reshape(whole, *x.shape[1:])
    if whole < batch:
        rest, _ = normalise_batch(x[whole:], scale, bias, epsilon)
        y = jnp.concatenate([y, rest])
    return y, Statistics(found.mean[0], found.var[0])


class BatchNorm(nn.Module):
    """Batch normalisation over all axes but the last, as in PyTorch.

    y = scale * (x - mean) / sqrt(var + epsilon) + bias.  In training mode mean
    and biased variance are those of the whole (global) batch, and the running
    ones move: running <- momentum * running + (1 - momentum) * batch, with the
    unbiased batch variance, n / (n - 1) times the biased one (Flax's own layer
    keeps the biased one).  Within ``grouped`` each group of rows has its own.
    Statistics are float32 under bfloat16 and float64 under float64.

    Source: ``papers/preact_resnet18.md``, BatchNorm.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5

    @nn.compact
    def __call__(
        self, x: jax.Array, train: bool, size: int | None = None
    ) -> jax.Array:
        """Normalises ``x``.

        Args:
          x: [B, F] or [B, H, W, C], floating point.
          train: use the batch's statistics and move the running ones.
          size: rows that have statistics of their own; None is the batch.

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
        if not train:
            gain = scale * jax.lax.rsqrt(running_var.value + self.epsilon)
            y = (x.astype(dtype) - running_mean.value) * gain + bias
            return y.astype(x.dtype)
        rows = len(x) if size is None else min(size, len(x))
        n = math.prod(x.shape[1:-1]) * rows
        if n < 2:
            raise UserError(
                f"BatchNorm: a training batch of shape {x.shape} has only "
                "one value per channel; choose a batch size that leaves "
                "no batch of one row"
            )
        y, batch = normalise_groups(x, scale, bias, self.epsilon, rows)
        keep = self.momentum
        running_mean.value = keep * running_mean.value + (1 - keep) * batch.mean
        running_var.value = keep * running_var.value + (1 - keep) * (
            batch.var * (n / (n - 1))
        )
        return y


def grouped(
    size: int, spared: str = ""
) -> contextlib.AbstractContextManager[Any]:
    """Lets every ``BatchNorm`` that is called within take groups of rows.

    Args:
      size: rows of a group, see ``normalise_groups``; 0 is the batch.
      spared: name of a module whose rows are no images and stay together.

    Returns:
      The context manager.
    """
    if not size:
        return contextlib.nullcontext()

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: Any
    ) -> Any:
        module = context.module
        if isinstance(module, BatchNorm) and spared not in module.path:
            kwargs = {**kwargs, "size": size}
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)


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
