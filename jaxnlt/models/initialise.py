"""PyTorch's and torchvision's initial values, drawn with numpy.

Only shapes come from Flax: compiling ``module.init`` of a ResNet-18 takes 13 s
on a CPU, evaluating its shapes a fraction of a second.
"""

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from flax import traverse_util

from jaxnlt.runtime.errors import UserError

#: Initial values that are not drawn, by the last part of their path.
CONSTANTS = {
    "scale": 1.0,
    "bias": 0.0,
    "mean": 0.0,
    "var": 1.0,
    "exponents": 1.0,
}
#: Standard deviation of the kernels of VGG's linear layers.
LINEAR_DEVIATION = 0.01


def initialise(shapes: Mapping, seed: int, dtype: Any) -> dict[str, Any]:
    """Draws values for a tree of shapes as PyTorch initialises its layers.

    Kernels and biases of convolutions and linear layers are uniform in
    (-1/sqrt(fan_in), 1/sqrt(fan_in)); BatchNorm scales and running variances
    are 1, offsets and running means 0, exponents of a prior 1.  Each array
    depends on the seed and its own path alone, so networks with different heads
    start with the same backbone.

    Args:
      shapes: nested dicts whose leaves have a ``shape``.
      seed: not negative.
      dtype: of every array.

    Returns:
      The same tree with numpy arrays.

    Raises:
      UserError: a parameter of another kind, in a user's own network.

    Source: ``papers/preact_resnet18.md``, Init.
    """
    return _fill(shapes, (), seed, np.dtype(dtype))


def _fill(
    node: Mapping, path: tuple[str, ...], seed: int, dtype: np.dtype
) -> dict[str, Any]:
    fan_in = math.prod(node["kernel"].shape[:-1]) if "kernel" in node else None
    values: dict[str, Any] = {}
    for name, child in node.items():
        place = (*path, name)
        if isinstance(child, Mapping):
            values[name] = _fill(child, place, seed, dtype)
        elif fan_in is None and name not in CONSTANTS:
            raise UserError(
                f"config.model.name: nothing is known of initial values of "
                f"{'/'.join(place)}; parameters are a kernel and a bias, or "
                f"one of {', '.join(CONSTANTS)}"
            )
        elif fan_in is None:
            values[name] = np.full(child.shape, CONSTANTS[name], dtype)
        else:
            bound = 1 / math.sqrt(fan_in)
            drawn = _rng(seed, place).uniform(-bound, bound, child.shape)
            values[name] = drawn.astype(dtype)
    return values


def normal_by_fan_out(params: Mapping, seed: int) -> dict[str, Any]:
    r"""Kernels from :math:`N(0, 2 / (k^2 C_{out}))`, all biases 0.

    Kernels of linear layers come from :math:`N(0, 0.01^2)`; BatchNorm scales
    stay as they are.

    Args:
      params: nested dicts of numpy arrays.
      seed: each kernel depends on it and on its own path alone.

    Returns:
      The same tree.

    Source: ``papers/smr.md`` section 5; ``papers/h2e.md`` section 8;
    ``papers/dividemix_rolt.md`` section 4.
    """

    def deviation(shape: tuple[int, ...]) -> float:
        *field, _, out = shape
        if not field:
            return LINEAR_DEVIATION
        return math.sqrt(2 / (math.prod(field) * out))

    values = traverse_util.flatten_dict(_normal(params, seed, deviation))
    for path, value in values.items():
        if path[-1] == "bias":
            values[path] = np.zeros_like(value)
    return traverse_util.unflatten_dict(values)


def normal_by_fan_in(params: Mapping, seed: int) -> dict[str, Any]:
    r"""Kernels from :math:`N(0, 2 / (k^2 C_{in}))`, those of heads too.

    Args:
      params: nested dicts of numpy arrays.
      seed: each kernel depends on it and on its own path alone.

    Returns:
      The same tree; biases and BatchNorm scales stay as they are.

    Source: He et al. 2015, eq. 10; ``papers/dividemix_rolt.md`` section 6.
    """
    return _normal(
        params, seed, lambda shape: math.sqrt(2 / math.prod(shape[:-1]))
    )


def _normal(
    params: Mapping, seed: int, deviation: Callable[[tuple[int, ...]], float]
) -> dict[str, Any]:
    """Draws every kernel anew, with a deviation that its shape decides."""
    values = traverse_util.flatten_dict(params)
    for path, value in values.items():
        if path[-1] == "kernel":
            normal = _rng(seed, path).normal(
                scale=deviation(value.shape), size=value.shape
            )
            values[path] = normal.astype(value.dtype)
    return traverse_util.unflatten_dict(values)


def _rng(seed: int, path: tuple[str, ...]) -> np.random.Generator:
    # A checksum, since Python's hash changes from run to run.
    return np.random.default_rng([seed, zlib.crc32("/".join(path).encode())])
