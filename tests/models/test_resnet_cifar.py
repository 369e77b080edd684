"""CIFAR ResNet against the table of the specification, written in numpy."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxnlt import models
from jaxnlt.models.resnet_cifar import ResNetCifar
from tests.models.test_preact_resnet import (
    DTYPES,
    bn_relu,
    conv,
    images,
    variables,
)


def network(width=16, blocks=(5, 5, 5), heads=("logits",), **changes):
    fields = {"name": "resnet32", "width": width, "blocks": blocks}
    config = ConfigDict(fields | {"dtype": "float32"} | changes)
    return models.build(config, 10, heads)


def bn(x, params, stats):
    y = (x - stats["mean"]) / np.sqrt(stats["var"] + 1e-5)
    return y * params["scale"] + params["bias"]


def block(x, params, stats, stride):
    y = conv(x, params["conv1"]["kernel"], stride)
    y = bn_relu(y, params["bn1"], stats["bn1"])
    y = bn(conv(y, params["conv2"]["kernel"]), params["bn2"], stats["bn2"])
    if "shortcut" in params:
        x = conv(x, params["shortcut"]["kernel"], stride)
        x = bn(x, params["shortcut_bn"], stats["shortcut_bn"])
    return np.maximum(y + x, 0)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 7, 10, 1)])
def test_network_is_the_table(shape):
    module = ResNetCifar(width=4, blocks=(2, 1), **DTYPES)
    x = images(*shape)
    given = variables(module, x)
    params, stats = given["params"], given["batch_stats"]
    assert "shortcut" not in params["stage1_block1"]
    y = bn_relu(conv(x, params["conv"]["kernel"]), params["bn"], stats["bn"])
    for name, stride in {
        "stage1_block1": 1,
        "stage1_block2": 1,
        "stage2_block1": 2,
    }.items():
        y = block(y, params[name], stats[name], stride)
    features = module.apply(given, x, train=False)
    assert features.shape == (2, module.feature_dim) == (2, 8)
    np.testing.assert_allclose(features, y.mean((1, 2)), rtol=1e-4, atol=1e-5)


def test_counts_of_the_published_network():
    net = network()
    shapes = net.shapes((32, 32, 3))
    leaves = jax.tree.leaves(shapes["params"]["backbone"])
    assert sum(np.prod(leaf.shape) for leaf in leaves) == 466_256
    assert net.module.backbone.feature_dim == 64
    convs = [leaf for leaf in leaves if len(leaf.shape) == 4]
    # 31 layers of 3x3 kernels, two shortcuts; the classifier is the 32nd.
    assert len(convs) == 33


def test_kernels_are_normal_by_fan_out():
    values = network().init(3, (32, 32, 3))
    stage = values["params"]["backbone"]["stage3_block2"]
    for name in ("conv1", "conv2"):
        kernel = stage[name]["kernel"]
        expected = np.sqrt(2 / (9 * kernel.shape[-1]))
        np.testing.assert_allclose(kernel.std(), expected, rtol=0.02)
        # A uniform draw ends at 1.7 deviations.
        assert np.abs(kernel).max() > 3 * expected
        assert kernel.dtype == np.float32
    assert (stage["conv1"]["kernel"] != stage["conv2"]["kernel"]).all()
    assert (stage["bn1"]["scale"] == 1).all()
    head = values["params"]["logits"]["kernel"]
    assert np.abs(head).max() <= 1 / np.sqrt(64)


def test_seed_and_path_decide_the_kernels():
    first, again, other = (
        network(4, (1, 1), heads).init(seed, (8, 8, 3))["params"]["backbone"]
        for seed, heads in ((1, ("logits",)), (1, ("balanced",)), (2, ()))
    )
    same = jax.tree.map(np.array_equal, first, again)
    assert jax.tree.all(same)
    name = "stage2_block1"
    assert not np.array_equal(
        first[name]["shortcut"]["kernel"], other[name]["shortcut"]["kernel"]
    )


def finite_gradients(net, side):
    """Gradients of a loss on images of such a side, all of them finite."""
    values = net.init(0, (side, side, 3))
    x = images(4, side, side, 3)

    @jax.jit
    def loss(params):
        outputs, stats = net.apply(
            values | {"params": params}, x, ("features", "logits"), train=True
        )
        return (outputs["logits"] ** 2).sum(), (outputs["features"], stats)

    (_, (features, stats)), grads = jax.value_and_grad(loss, has_aux=True)(
        values["params"]
    )
    assert features.dtype == np.float32 and (features >= 0).all()
    for tree in (grads, stats):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
    return grads["backbone"]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_features_and_gradients(dtype):
    grads = finite_gradients(network(4, (1, 1), ("logits",), dtype=dtype), 8)
    assert np.abs(grads["stage2_block1"]["shortcut"]["kernel"]).max() > 0


def test_several_heads_share_the_trunk():
    """As any method builds its network."""
    net = network(4, (1, 1), ("logits", "balanced"))
    values = net.init(0, (8, 8, 3))
    outputs, _ = net.apply(values, images(2, 8, 8, 3), ("logits", "balanced"))
    assert outputs["logits"].shape == outputs["balanced"].shape == (2, 10)
