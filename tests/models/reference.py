"""Small networks, and layers and a block in NumPy to compare them with."""

import jax
import numpy as np
from ml_collections import ConfigDict

from jaxnlt import models
from jaxnlt.models.initialise import initialise

DTYPES = {"dtype": np.float32, "param_dtype": np.float32}


def network(name, width=4, blocks=(1, 1), heads=("logits",), **changes):
    """A network of ten classes in float32; width 0 is the published one."""
    fields = {"name": name, "width": width, "blocks": blocks}
    config = ConfigDict(fields | {"dtype": "float32"} | changes)
    return models.build(config, 10, heads)


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def variables(module, x):
    """Random values everywhere, statistics included."""
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), x, train=False)
    )
    rng = np.random.default_rng(1)
    return jax.tree.map(
        lambda v: (v + rng.uniform(0, 0.5, v.shape)).astype(np.float32),
        initialise(shapes, 0, np.float32),
    )


def windows(x, height, width, stride):
    """Windows of the two middle axes, [B, H', W', C, height, width]."""
    found = np.lib.stride_tricks.sliding_window_view(
        x, (height, width), axis=(1, 2)
    )
    return found[:, ::stride, ::stride]


def padded(x, height, width, value=0.0):
    """Half of the window added on every side."""
    sides = ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0))
    return np.pad(x, sides, constant_values=value)


def conv(x, kernel, stride=1):
    """Cross-correlation, padded by half of the kernel."""
    size = kernel.shape[:2]
    found = windows(padded(x, *size), *size, stride)
    return np.einsum("bhwcij,ijco->bhwo", found, kernel)


def bn(x, params, stats):
    y = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return y * params["scale"] + params["bias"]


def bn_relu(x, params, stats):
    return np.maximum(bn(x, params, stats), 0)


def basic(x, params, stats, stride):
    """The post-activation block of two convolutions."""
    y = conv(x, params["conv1"]["kernel"], stride)
    y = bn_relu(y, params["bn1"], stats["bn1"])
    y = bn(conv(y, params["conv2"]["kernel"]), params["bn2"], stats["bn2"])
    if "shortcut" in params:
        x = conv(x, params["shortcut"]["kernel"], stride)
        x = bn(x, params["shortcut_bn"], stats["shortcut_bn"])
    return np.maximum(y + x, 0)
