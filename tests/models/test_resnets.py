"""ResNet-18 on odd sizes against its table; golden files hold the others."""

import numpy as np

from jaxnlt.models.resnet import ResNet
from tests.models import reference
from tests.models.reference import DTYPES, bn_relu, conv, images, variables


def test_network_is_the_table():
    module = ResNet(width=4, blocks=(2, 1), **DTYPES)
    x = images(2, 33, 46, 1)
    given = variables(module, x)
    params, stats = given["params"], given["batch_stats"]
    y = conv(x, params["conv"]["kernel"], 2)
    y = reference.padded(bn_relu(y, params["bn"], stats["bn"]), 3, 3, -np.inf)
    y = reference.windows(y, 3, 3, 2).max((-2, -1))
    strides = {"stage1_block1": 1, "stage1_block2": 1, "stage2_block1": 2}
    for name, stride in strides.items():
        y = reference.basic(y, params[name], stats[name], stride)
    features = module.apply(given, x, train=False)
    assert features.shape == (2, module.feature_dim) == (2, 8)
    np.testing.assert_allclose(features, y.mean((1, 2)), rtol=1e-4, atol=1e-4)
