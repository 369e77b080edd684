"""The ResNet-32 of RoLT+: shortcuts without parameters, normal kernels."""

import jax
import numpy as np

from jaxnlt.models.resnet_cifar import PaddedBlock
from tests.models.reference import (
    DTYPES,
    bn,
    bn_relu,
    conv,
    images,
    network,
    variables,
)


def test_a_block_by_hand():
    module = PaddedBlock(features=8, stride=2, **DTYPES)
    x = images(2, 5, 4, 4)
    given = variables(module, x)
    params, stats = given["params"], given["batch_stats"]
    y = conv(x, params["conv1"]["kernel"], 2)
    y = bn_relu(y, params["bn1"], stats["bn1"])
    y = bn(conv(y, params["conv2"]["kernel"]), params["bn2"], stats["bn2"])
    y[..., 2:6] += x[:, ::2, ::2]
    found = jax.jit(lambda v, x: module.apply(v, x, train=False))(given, x)
    np.testing.assert_allclose(found, np.maximum(y, 0), rtol=1e-4, atol=1e-5)


def test_size_and_initial_values():
    made = network("resnet32_a", 0, ()).init(3, (32, 32, 3))["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(made)) == 464_154
    kernels = [
        made["backbone"]["stage2_block1"]["conv1"]["kernel"],  # 16 -> 32
        made["logits"]["kernel"],
    ]
    for kernel in kernels:
        expected = np.sqrt(2 / np.prod(kernel.shape[:-1]))
        np.testing.assert_allclose(kernel.std(), expected, rtol=0.1)
        # A uniform draw ends at 1.7 deviations.
        assert np.abs(kernel).max() > 2.2 * expected
    assert 0 < np.abs(made["logits"]["bias"]).max() <= 1 / 8
