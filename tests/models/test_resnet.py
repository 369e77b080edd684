"""ResNets for large images against the tables, written in numpy."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxnlt import models
from jaxnlt.models.resnet import BottleneckResNet, ResNet
from jaxnlt.runtime.errors import UserError
from tests.models.test_preact_resnet import (
    DTYPES,
    bn_relu,
    conv,
    images,
    variables,
)
from tests.models.test_resnet_cifar import block as basic
from tests.models.test_resnet_cifar import bn, finite_gradients


def network(name, width=0, blocks=(), heads=("logits",), **changes):
    fields = {"name": name, "width": width, "blocks": blocks}
    config = ConfigDict(fields | {"dtype": "float32"} | changes)
    return models.build(config, 14, heads)


def max_pool(x):
    """3x3, stride 2, one pixel of minus infinity around."""
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    return windows[:, ::2, ::2].max((-2, -1))


def bottleneck(x, params, stats, stride):
    y = conv(x, params["conv1"]["kernel"])
    y = bn_relu(y, params["bn1"], stats["bn1"])
    y = conv(y, params["conv2"]["kernel"], stride)  # v1.5
    y = bn_relu(y, params["bn2"], stats["bn2"])
    y = bn(conv(y, params["conv3"]["kernel"]), params["bn3"], stats["bn3"])
    if "shortcut" in params:
        x = conv(x, params["shortcut"]["kernel"], stride)
        x = bn(x, params["shortcut_bn"], stats["shortcut_bn"])
    return np.maximum(y + x, 0)


@pytest.mark.parametrize("shape", [(2, 32, 32, 3), (2, 33, 46, 1)])
@pytest.mark.parametrize(
    "kind, block, expansion",
    [(ResNet, basic, 1), (BottleneckResNet, bottleneck, 4)],
)
def test_network_is_the_table(kind, block, expansion, shape):
    module = kind(width=4, blocks=(2, 1), **DTYPES)
    x = images(*shape)
    given = variables(module, x)
    params, stats = given["params"], given["batch_stats"]
    # A bottleneck widens the first stage, too.
    first = params["stage1_block1"]
    assert ("shortcut" in first) == (expansion == 4)
    y = conv(x, params["conv"]["kernel"], 2)
    y = max_pool(bn_relu(y, params["bn"], stats["bn"]))
    for name, stride in {
        "stage1_block1": 1,
        "stage1_block2": 1,
        "stage2_block1": 2,
    }.items():
        y = block(y, params[name], stats[name], stride)
    features = module.apply(given, x, train=False)
    assert features.shape == (2, module.feature_dim) == (2, 8 * expansion)
    np.testing.assert_allclose(features, y.mean((1, 2)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "name, size, parameters, statistics, features",
    [
        ("resnet18", 224, 11_176_512 + 513 * 14, 9_600, 512),
        ("resnet50", 224, 23_536_718, 53_120, 2048),
        # The stem's kernel has 9 in place of 49 positions.
        ("resnet18_small", 32, 11_168_832 + 513 * 14, 9_600, 512),
    ],
)
def test_counts_of_the_published_networks(
    name, size, parameters, statistics, features
):
    net = network(name)
    shapes = net.shapes((size, size, 3))
    counts = {
        part: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for part, tree in shapes.items()
    }
    assert counts == {"params": parameters, "batch_stats": statistics}
    assert net.module.backbone.feature_dim == features


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_kernels_are_normal_by_fan_out(name):
    values = network(name, 32, (1, 2)).init(3, (32, 32, 3))["params"]
    backbone = values["backbone"]
    for kernel in (
        backbone["stage2_block2"]["conv2"]["kernel"],
        backbone["stage2_block1"]["shortcut"]["kernel"],
    ):
        *field, _, out = kernel.shape
        expected = np.sqrt(2 / (np.prod(field) * out))
        np.testing.assert_allclose(kernel.std(), expected, rtol=0.05)
        # A uniform draw ends at 1.7 deviations.
        assert np.abs(kernel).max() > 2.5 * expected
        assert kernel.dtype == np.float32
    scales = backbone["stage2_block2"]["bn2"]
    assert (scales["scale"] == 1).all() and (scales["bias"] == 0).all()
    head = values["logits"]
    bound = len(head["kernel"]) ** -0.5
    assert 0.9 * bound < np.abs(head["kernel"]).max() <= bound
    assert 0 < np.abs(head["bias"]).max() <= bound


def test_dasc_s_small_network_has_pytorch_s_kernels():
    """RoLT's trunk, another initialisation."""
    small = network("resnet18_small", 8, (1, 1)).init(3, (8, 8, 3))["params"]
    rolt = network("resnet32", 8, (1, 1)).init(3, (8, 8, 3))["params"]
    assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, rolt)
    kernel = small["backbone"]["stage2_block1"]["conv2"]["kernel"]
    bound = 1 / np.sqrt(9 * 16)
    assert 0.95 * bound < np.abs(kernel).max() <= bound


def test_the_published_size_is_the_default():
    for name, blocks in {
        "resnet18": (2, 2, 2, 2),
        "resnet50": (3, 4, 6, 3),
        "resnet32": (5, 5, 5),
    }.items():
        width = 16 if name == "resnet32" else 64
        config = ConfigDict({"name": name, "width": 0, "blocks": ()})
        assert models.sizes(config) == (width, blocks)
        config.update(width=4, blocks=[1, 2])
        assert models.sizes(config) == (4, (1, 2))
        config.blocks = (1, 0)
        with pytest.raises(UserError, match="config.model.blocks"):
            models.sizes(config)


@pytest.mark.parametrize(
    "name, dtype",
    [
        ("resnet18", "float32"),
        ("resnet50", "bfloat16"),
        ("resnet18_small", "float32"),
    ],
)
def test_features_and_gradients(name, dtype):
    net = network(name, 4, (1, 1), ("logits", "balanced"), dtype=dtype)
    assert np.abs(finite_gradients(net, 16)["conv"]["kernel"]).max() > 0
