"""PreAct ResNet against the table of the specification, written in numpy."""

import jax
import numpy as np
import pytest

from jaxnlt.models.initialise import initialise
from jaxnlt.models.preact_resnet import PreActBlock, PreActResNet

DTYPES = {"dtype": np.float32, "param_dtype": np.float32}


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


def images(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def conv(x, kernel, stride=1):
    """Cross-correlation; 3x3 kernels pad one pixel on every side."""
    size = kernel.shape[0]
    pad = size // 2
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    patches = np.lib.stride_tricks.sliding_window_view(
        x, (size, size), axis=(1, 2)
    )
    return np.einsum(
        "bhwcij,ijco->bhwo", patches[:, ::stride, ::stride], kernel
    )


def bn_relu(x, params, stats):
    y = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return np.maximum(y * params["scale"] + params["bias"], 0)


def block(x, params, stats, stride):
    a = bn_relu(x, params["bn1"], stats["bn1"])
    y = conv(a, params["conv1"]["kernel"], stride)
    y = conv(bn_relu(y, params["bn2"], stats["bn2"]), params["conv2"]["kernel"])
    if "shortcut" in params:
        return y + conv(a, params["shortcut"]["kernel"], stride)
    return y + a


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 10, 1)])
def test_network_is_the_table(shape):
    module = PreActResNet(width=4, blocks=(2, 1), **DTYPES)
    x = images(*shape)
    given = variables(module, x)
    params, stats = given["params"], given["batch_stats"]
    y = conv(x, params["conv"]["kernel"])
    y = bn_relu(y, params["bn"], stats["bn"])
    for name, stride in {
        "stage1_block1": 1,
        "stage1_block2": 1,
        "stage2_block1": 2,
    }.items():
        y = block(y, params[name], stats[name], stride)
    features = module.apply(given, x, train=False)
    assert features.shape == (2, module.feature_dim) == (2, 8)
    np.testing.assert_allclose(features, y.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_identity_shortcut_carries_the_activated_input():
    module = PreActBlock(features=4, stride=1, **DTYPES)
    x = images(2, 8, 8, 4)
    given = variables(module, x)
    assert "shortcut" not in given["params"]
    given["params"]["conv2"]["kernel"][:] = 0
    a = bn_relu(x, given["params"]["bn1"], given["batch_stats"]["bn1"])
    assert (a >= 0).all() and (x < 0).any()
    np.testing.assert_allclose(
        module.apply(given, x, train=False), a, rtol=1e-4, atol=1e-5
    )


def test_features_can_be_negative():
    module = PreActResNet(width=4, blocks=(1,), **DTYPES)
    x = images(2, 8, 8, 3)
    given = variables(module, x)
    given["params"]["stage1_block1"]["conv2"]["kernel"][:] = -1
    assert (np.asarray(module.apply(given, x, train=False)) < 0).any()
