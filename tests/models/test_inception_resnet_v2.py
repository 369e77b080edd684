"""Inception-ResNet-v2: the blocks in numpy, counts and sizes by the table."""

import jax
import numpy as np
import pytest
from flax import linen as nn
from ml_collections import ConfigDict

from jaxnlt import models
from jaxnlt.models import inception_resnet_v2
from jaxnlt.runtime.errors import UserError
from tests.models.test_preact_resnet import DTYPES, images, variables


def network(width=2, blocks=(1, 1, 1), heads=("logits",), **changes):
    fields = {"name": "inception_resnet_v2", "width": width, "blocks": blocks}
    config = ConfigDict(fields | {"dtype": "float32"} | changes)
    return models.build(config, 50, heads)


def unit(x, params, stats, stride=1):
    """relu(bn(conv(x))), padded by half the kernel unless it strides."""
    kernel = params["conv"]["kernel"]
    height, width = kernel.shape[:2]
    if stride == 1:
        sides = ((0, 0), (height // 2,) * 2, (width // 2,) * 2, (0, 0))
        x = np.pad(x, sides)
    windows = np.lib.stride_tricks.sliding_window_view(
        x, (height, width), axis=(1, 2)
    )
    y = np.einsum("bhwcij,ijco->bhwo", windows[:, ::stride, ::stride], kernel)
    y = (y - stats["bn"]["mean"]) / np.sqrt(stats["bn"]["var"] + 1e-3)
    return np.maximum(y * params["bn"]["scale"] + params["bn"]["bias"], 0)


def chain(x, given, names, strides=(1, 1, 1)):
    for name, stride in zip(names, strides, strict=False):
        x = unit(x, given["params"][name], given["batch_stats"][name], stride)
    return x


def made(module, x):
    given = variables(module, x)
    return given, module.apply(given, x, train=False)


@pytest.mark.parametrize("scale, last_relu", [(0.17, True), (1.0, False)])
def test_residual_block(scale, last_relu):
    x = images(2, 6, 5, 10)
    module = inception_resnet_v2.Residual(
        inception_resnet_v2.BLOCK_8,
        4,
        np.float32,
        np.float32,
        scale=scale,
        last_relu=last_relu,
    )
    given = variables(module, x)
    given["params"]["up"]["kernel"] -= 0.25  # of either sign
    found = module.apply(given, x, train=False)
    joined = np.concatenate(
        [
            chain(x, given, ["branch0_0"]),
            chain(x, given, ["branch1_0", "branch1_1", "branch1_2"]),
        ],
        -1,
    )
    up = given["params"]["up"]
    y = x + scale * (joined @ up["kernel"][0, 0] + up["bias"])
    y = np.maximum(y, 0) if last_relu else y
    assert (y < 0).any() != last_relu
    np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-4)
    # The second kernel slides along the width, the third along the height.
    kernels = [
        given["params"][f"branch1_{j}"]["conv"]["kernel"] for j in (1, 2)
    ]
    assert [k.shape[:2] for k in kernels] == [(1, 3), (3, 1)]


def test_average_pool_counts_what_lies_inside():
    x = images(2, 6, 5, 8)
    module = inception_resnet_v2.Mixed(
        inception_resnet_v2.MIXED_5B, 4, np.float32, np.float32
    )
    given, found = made(module, x)

    def padded_sum(values):
        values = np.pad(values, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(
            values, (3, 3), axis=(1, 2)
        )
        return windows.sum((-2, -1))

    counts = padded_sum(np.ones_like(x))
    assert set(np.unique(counts)) == {4, 6, 9}
    pooled = padded_sum(x) / counts
    joined = np.concatenate(
        [
            chain(x, given, ["branch0_0"]),
            chain(x, given, ["branch1_0", "branch1_1"]),
            chain(x, given, ["branch2_0", "branch2_1", "branch2_2"]),
            chain(pooled, given, ["branch3_1"]),
        ],
        -1,
    )
    np.testing.assert_allclose(found, joined, rtol=1e-4, atol=1e-4)


def test_reduction_is_not_padded():
    x = images(2, 8, 7, 6)
    module = inception_resnet_v2.Mixed(
        inception_resnet_v2.MIXED_6A, 4, np.float32, np.float32
    )
    given, found = made(module, x)
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    names = ["branch1_0", "branch1_1", "branch1_2"]
    joined = np.concatenate(
        [
            chain(x, given, ["branch0_0"], (2,)),
            chain(x, given, names, (1, 1, 2)),
            windows[:, ::2, ::2].max((-2, -1)),
        ],
        -1,
    )
    np.testing.assert_allclose(found, joined, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "classes, heads, parameters",
    [
        (50, ("logits",), 54_383_314),
        (50, ("logits", "balanced"), 54_460_164),
        (1000, ("logits",), 55_843_464),
    ],
)
def test_counts_of_the_published_network(classes, heads, parameters):
    config = {"name": "inception_resnet_v2", "width": 0, "blocks": ()}
    net = models.build(
        ConfigDict(config | {"dtype": "float32"}), classes, heads
    )
    shapes = net.shapes((299, 299, 3))
    counts = {
        part: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for part, tree in shapes.items()
    }
    assert counts == {"params": parameters, "batch_stats": 60_544}
    assert net.module.backbone.feature_dim == 1536
    leaves = jax.tree.leaves(shapes["batch_stats"])
    assert len(leaves) == 2 * 204


def test_sizes_and_parameters_of_every_stage():
    sizes, counts = {}, {}

    def record(call, args, kwargs, context):
        result = call(*args, **kwargs)
        module = context.module
        parts = (inception_resnet_v2.Unit, inception_resnet_v2.Mixed)
        outer = isinstance(module, parts) and len(module.path) == 1
        if outer and context.method_name == "__call__":
            sizes[module.name] = result.shape[1:]
        return result

    module = inception_resnet_v2.InceptionResNetV2(**DTYPES)
    with nn.intercept_methods(record):
        shapes = jax.eval_shape(
            lambda: module.init(
                jax.random.key(0), np.zeros((1, 299, 299, 3)), train=False
            )
        )
    for name, tree in shapes["params"].items():
        stage = name.split("_")[0] if name.startswith("block") else name
        stage = name if name == "block8_10" else stage
        leaves = jax.tree.leaves(tree)
        counts[stage] = counts.get(stage, 0) + sum(
            int(np.prod(leaf.shape)) for leaf in leaves
        )
    assert counts == {
        **{"stem1": 928, "stem2": 9_280, "stem3": 18_560, "stem4": 5_280},
        **{"stem5": 138_624, "mixed_5b": 268_320, "block35": 1_231_680},
        **{"mixed_6a": 2_664_960, "block17": 22_535_680},
        **{"mixed_7a": 3_880_960, "block8": 18_318_816},
        **{"block8_10": 2_035_424, "last": 3_197_952},
    }
    for name, size in {
        **{"stem1": (149, 149, 32), "stem3": (147, 147, 64)},
        **{"stem4": (73, 73, 80), "stem5": (71, 71, 192)},
        **{"mixed_5b": (35, 35, 320), "block35_10": (35, 35, 320)},
        **{"mixed_6a": (17, 17, 1088), "block17_20": (17, 17, 1088)},
        **{"mixed_7a": (8, 8, 2080), "block8_10": (8, 8, 2080)},
        "last": (8, 8, 1536),
    }.items():
        assert sizes[name] == size


def test_initial_values_are_pytorch_s():
    values = network(16).init(3, (75, 75, 3))["params"]["backbone"]
    kernel = values["block17_1"]["branch1_1"]["conv"]["kernel"]
    bound = 1 / np.sqrt(np.prod(kernel.shape[:-1]))
    assert 0.95 * bound < np.abs(kernel).max() <= bound
    up = values["block17_1"]["up"]
    bound = 1 / np.sqrt(up["kernel"].shape[2])
    assert 0 < np.abs(up["bias"]).max() <= bound


def test_wrong_sizes_are_refused():
    with pytest.raises(UserError, match="config.model.blocks: .*three stages"):
        network(2, (1, 1))
    with pytest.raises(UserError, match="at least 75 pixels"):
        network().shapes((74, 80, 3))


def test_train_mode_in_half_precision():
    net = network(dtype="bfloat16")
    values = net.init(0, (75, 75, 3))
    x = images(2, 75, 75, 3)
    outputs, stats = jax.jit(
        lambda: net.apply(values, x, ("features", "logits"), train=True)
    )()
    features = outputs["features"]
    assert features.shape == (2, net.module.backbone.feature_dim)
    assert features.dtype == np.float32 and (features >= 0).all()
    assert np.isfinite(outputs["logits"]).all()
    moved = [
        (old != new).any()
        for old, new in zip(
            jax.tree.leaves(values["batch_stats"]),
            jax.tree.leaves(stats),
            strict=True,
        )
    ]
    assert all(moved)


@pytest.mark.parametrize(
    "branches",
    [
        inception_resnet_v2.MIXED_5B,
        inception_resnet_v2.MIXED_6A,
        inception_resnet_v2.BLOCK_17,
    ],
)
def test_gradients(branches):
    module = inception_resnet_v2.Residual(branches, 2, np.float32, np.float32)
    if branches is inception_resnet_v2.MIXED_6A:
        module = inception_resnet_v2.Mixed(branches, 2, np.float32, np.float32)
    x = images(2, 5, 5, 4)
    given = variables(module, x)

    @jax.jit
    def loss(params, x):
        found, _ = module.apply(
            given | {"params": params}, x, train=True, mutable=["batch_stats"]
        )
        return (found**2).sum()

    grads = jax.grad(loss, argnums=(0, 1))(given["params"], x)
    for leaf in jax.tree.leaves(grads):
        assert np.isfinite(leaf).all() and np.abs(leaf).max() > 0
