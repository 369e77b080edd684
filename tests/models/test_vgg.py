"""VGG19-BN against its table, written in NumPy, and its dropout."""

import jax
import numpy as np
import pytest

from jaxnlt.models.layers import adaptive_mean
from jaxnlt.models.vgg import VGG
from jaxnlt.runtime.errors import UserError
from tests.models import reference
from tests.models.reference import DTYPES, bn_relu, conv, images, variables

SHAPE = (8, 8, 3)


def network(width=2, blocks=(1, 2)):
    return reference.network("vgg19_bn", width, blocks)


def adaptive(x, size=7):
    """PyTorch's bins, one after the other."""
    _, height, width, _ = x.shape
    rows = [
        [
            x[
                :,
                i * height // size : -(-(i + 1) * height // size),
                j * width // size : -(-(j + 1) * width // size),
            ].mean((1, 2))
            for j in range(size)
        ]
        for i in range(size)
    ]
    return np.array(rows).transpose(2, 0, 1, 3)


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 7), (10, 9), (14, 21)])
def test_adaptive_mean(shape):
    x = images(2, *shape, 3)
    y = adaptive_mean(x, 7)
    np.testing.assert_allclose(y, adaptive(x), rtol=1e-6, atol=1e-6)
    if shape == (7, 7):
        np.testing.assert_array_equal(y, x)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 13, 22, 1)])
def test_network_is_the_table(shape):
    module = VGG(width=2, blocks=(1, 2), **DTYPES)
    x = images(*shape)
    given = variables(module, x)
    params, stats = given["params"], given["batch_stats"]
    y = x
    for stage in (("1_1",), ("2_1", "2_2")):
        for layer in stage:
            weights, name = params[f"conv{layer}"], f"bn{layer}"
            y = conv(y, weights["kernel"]) + weights["bias"]
            y = bn_relu(y, params[name], stats[name])
        y = reference.windows(y, 2, 2, 2).max((-2, -1))
    y = adaptive(y).transpose(0, 3, 1, 2).reshape(2, -1)
    for layer in ("linear1", "linear2"):
        y = np.maximum(y @ params[layer]["kernel"] + params[layer]["bias"], 0)
    features = module.apply(given, x, train=False)
    assert features.shape == (2, module.feature_dim) == (2, 128)
    np.testing.assert_allclose(features, y, rtol=1e-4, atol=1e-4)


def test_linear_layers_do_not_depend_on_the_size_of_images():
    small, large = (network(0, ()).shapes((n, n, 3)) for n in (64, 224))
    assert jax.tree.map(np.shape, small) == jax.tree.map(np.shape, large)


def test_small_images_are_refused():
    net = network(2, (1, 1, 1, 1, 1))
    with pytest.raises(UserError, match=r"config\.model\.name: .* 32 pixels"):
        net.shapes((31, 40, 3))
    net.shapes((32, 32, 3))


def test_dropout_keeps_the_expectation_in_train_mode():
    """Rows that are alike differ by their masks alone."""
    net = network(2, (1,))
    values = net.init(0, SHAPE)
    for layer in ("linear1", "linear2"):
        weights = values["params"]["backbone"][layer]
        weights["kernel"][:] = 0
        weights["bias"][:] = 3
    x = images(64, *SHAPE)

    def features(train, key=None):
        return np.asarray(
            net.apply(values, x, ("features",), train, key)[0]["features"]
        )

    found = features(True, jax.random.key(0))
    assert set(np.unique(found)) == {0, 6}
    np.testing.assert_allclose(found.mean(), 3, rtol=0.05)
    # Every row has a mask of its own, and every key others.
    assert len(np.unique(found, axis=0)) == 64
    np.testing.assert_array_equal(found, features(True, jax.random.key(0)))
    assert (found != features(True, jax.random.key(1))).any()
    assert (features(False) == 3).all()
    with pytest.raises(ValueError, match="dropout in train mode needs a key"):
        features(True)


def test_every_call_of_a_step_drops_otherwise():
    net = network()
    values, x = net.init(0, SHAPE), images(4, *SHAPE)

    @jax.jit
    def step(key):
        apply = net.seeded(key)
        calls = [apply(values, x, ("features",), True) for _ in range(2)]
        calls += [apply(values, x, ("features",), False)]
        return [outputs["features"] for outputs, _ in calls]

    first, second, evaluated = step(jax.random.key(0))
    assert not np.array_equal(first, second)
    again = step(jax.random.key(0))
    jax.tree.map(
        np.testing.assert_array_equal, again, [first, second, evaluated]
    )
    assert not np.array_equal(step(jax.random.key(1))[0], first)
    plain, _ = net.apply(values, x, ("features",))
    np.testing.assert_allclose(evaluated, plain["features"], atol=1e-6)


def test_networks_without_dropout_have_one_apply():
    net = reference.network("resnet18")
    assert not net.drops
    assert net.seeded(jax.random.key(0)) == net.apply
