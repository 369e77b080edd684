"""Inception-ResNet-v2: its blocks in NumPy, counts and sizes by the table."""

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxnlt.models import inception_resnet_v2
from jaxnlt.runtime.errors import UserError
from tests.models import reference
from tests.models.reference import DTYPES, bn_relu, conv, images, variables

NAME = "inception_resnet_v2"


def chain(x, given, *names, last_stride=1):
    """Units relu(bn(conv(x))) after one another; one that strides is bare."""
    for name in names:
        params, stats = given["params"][name], given["batch_stats"][name]
        stride = last_stride if name == names[-1] else 1
        y = conv(x, params["conv"]["kernel"], stride, pad=stride == 1)
        x = bn_relu(y, params["bn"], stats["bn"], 1e-3)
    return x


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


def made(branches, x):
    module = inception_resnet_v2.Mixed(branches, 4, **DTYPES)
    given = variables(module, x)
    return given, module.apply(given, x, train=False)


@pytest.mark.parametrize("scale, last_relu", [(0.17, True), (1.0, False)])
def test_residual_block(scale, last_relu):
    x = images(2, 6, 5, 10)
    module = inception_resnet_v2.Residual(
        inception_resnet_v2.BLOCK_8,
        4,
        scale=scale,
        last_relu=last_relu,
        **DTYPES,
    )
    given = variables(module, x)
    given["params"]["up"]["kernel"] -= 0.25  # of either sign
    branches = [
        chain(x, given, "branch0_0"),
        chain(x, given, "branch1_0", "branch1_1", "branch1_2"),
    ]
    up = given["params"]["up"]
    joined = np.concatenate(branches, -1)
    y = x + scale * (joined @ up["kernel"][0, 0] + up["bias"])
    y = np.maximum(y, 0) if last_relu else y
    assert (y < 0).any() != last_relu
    close(module.apply(given, x, train=False), y)
    # The second kernel slides along the width, the third along the height.
    kernels = [
        given["params"][f"branch1_{j}"]["conv"]["kernel"] for j in (1, 2)
    ]
    assert [k.shape[:2] for k in kernels] == [(1, 3), (3, 1)]


def test_average_pool_counts_the_pixels_inside():
    x = images(2, 6, 5, 8)
    given, found = made(inception_resnet_v2.MIXED_5B, x)

    def sums(values):
        padded = reference.padded(values, 3, 3)
        return reference.windows(padded, 3, 3, 1).sum((-2, -1))

    pixels = sums(np.ones_like(x))
    assert set(np.unique(pixels)) == {4, 6, 9}
    branches = [
        chain(x, given, "branch0_0"),
        chain(x, given, "branch1_0", "branch1_1"),
        chain(x, given, "branch2_0", "branch2_1", "branch2_2"),
        chain(sums(x) / pixels, given, "branch3_1"),
    ]
    close(found, np.concatenate(branches, -1))


def test_reduction_is_not_padded():
    x = images(2, 8, 7, 6)
    given, found = made(inception_resnet_v2.MIXED_6A, x)
    names = ("branch1_0", "branch1_1", "branch1_2")
    branches = [
        chain(x, given, "branch0_0", last_stride=2),
        chain(x, given, *names, last_stride=2),
        reference.windows(x, 3, 3, 2).max((-2, -1)),
    ]
    close(found, np.concatenate(branches, -1))


COUNTS = {
    "stem1": 928,
    "stem2": 9_280,
    "stem3": 18_560,
    "stem4": 5_280,
    "stem5": 138_624,
    "mixed_5b": 268_320,
    "block35": 1_231_680,
    "mixed_6a": 2_664_960,
    "block17": 22_535_680,
    "mixed_7a": 3_880_960,
    "block8": 18_318_816,
    "block8_10": 2_035_424,
    "last": 3_197_952,
}
SIZES = {
    "stem1": (149, 149, 32),
    "stem3": (147, 147, 64),
    "stem4": (73, 73, 80),
    "stem5": (71, 71, 192),
    "mixed_5b": (35, 35, 320),
    "block35_10": (35, 35, 320),
    "mixed_6a": (17, 17, 1088),
    "block17_20": (17, 17, 1088),
    "mixed_7a": (8, 8, 2080),
    "block8_10": (8, 8, 2080),
    "last": (8, 8, 1536),
}


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
    assert counts == COUNTS
    assert SIZES.items() <= sizes.items()


def test_wrong_sizes_are_refused():
    with pytest.raises(UserError, match=r"config\.model\.blocks"):
        reference.network(NAME, 2, (1, 1))
    with pytest.raises(UserError, match=r"config\.model\.name: .* 75 pixels"):
        reference.network(NAME, 2, (1, 1, 1)).shapes((74, 80, 3))
