"""Every ResNet against its table, written in NumPy."""

import numpy as np
import pytest

from jaxnlt.models.preact_resnet import PreActBlock, PreActResNet
from jaxnlt.models.resnet import BottleneckResNet, ResNet
from jaxnlt.models.resnet_cifar import ResNetCifar
from tests.models import reference
from tests.models.reference import DTYPES, bn_relu, conv, images, variables

BLOCKS = {"stage1_block1": 1, "stage1_block2": 1, "stage2_block1": 2}


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize(
    "kind, block, expansion",
    [
        (PreActResNet, reference.preact, 1),
        (ResNetCifar, reference.basic, 1),
        (ResNet, reference.basic, 1),
        (BottleneckResNet, reference.bottleneck, 4),
    ],
)
def test_network_is_the_table(kind, block, expansion, grey):
    module = kind(width=4, blocks=(2, 1), **DTYPES)
    large = issubclass(kind, ResNet)
    x = images(2, *((33, 46, 1) if grey else (32, 32, 3)))
    x = x if large else x[:, ::4, ::4]
    given = variables(module, x)
    params, stats = given["params"], given["batch_stats"]
    # A bottleneck widens the first stage, too.
    assert ("shortcut" in params["stage1_block1"]) == (expansion == 4)
    y = conv(x, params["conv"]["kernel"], 2 if large else 1)
    y = bn_relu(y, params["bn"], stats["bn"])
    if large:
        y = reference.padded(y, 3, 3, -np.inf)
        y = reference.windows(y, 3, 3, 2).max((-2, -1))
    for name, stride in BLOCKS.items():
        y = block(y, params[name], stats[name], stride)
    features = module.apply(given, x, train=False)
    assert features.shape == (2, module.feature_dim) == (2, 8 * expansion)
    np.testing.assert_allclose(features, y.mean((1, 2)), rtol=1e-4, atol=1e-4)


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


def test_pre_activation_features_can_be_negative():
    module = PreActResNet(width=4, blocks=(1,), **DTYPES)
    x = images(2, 8, 8, 3)
    given = variables(module, x)
    given["params"]["stage1_block1"]["conv2"]["kernel"][:] = -1
    assert (np.asarray(module.apply(given, x, train=False)) < 0).any()
