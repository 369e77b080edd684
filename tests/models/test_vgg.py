"""VGG19-BN against the table, written in numpy, and its dropout."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxnlt import models
from jaxnlt.models.layers import adaptive_mean
from jaxnlt.models.vgg import VGG
from jaxnlt.runtime.errors import UserError
from tests.models.test_preact_resnet import (
    DTYPES,
    bn_relu,
    conv,
    images,
    variables,
)

SHAPE = (8, 8, 3)


def network(width=2, blocks=(1, 2), heads=("logits",), **changes):
    fields = {"name": "vgg19_bn", "width": width, "blocks": blocks}
    config = ConfigDict(fields | {"dtype": "float32"} | changes)
    return models.build(config, 10, heads)


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


@pytest.mark.parametrize(
    "shape", [(1, 1), (2, 2), (2, 3), (7, 7), (10, 9), (14, 21), (5, 16)]
)
def test_adaptive_mean(shape):
    x = images(2, *shape, 3)
    y = adaptive_mean(x, 7)
    np.testing.assert_allclose(y, adaptive(x), rtol=1e-6, atol=1e-6)
    if shape == (7, 7):
        np.testing.assert_array_equal(y, x)


def test_two_by_two_map():
    """Rows 0, 0 and 1 alike, 1, 1 where the specification says so."""
    x = np.array([[1.0, 2.0], [3.0, 6.0]])[None, :, :, None]
    y = adaptive_mean(x, 7)[0, :, :, 0]
    halves = [0, 0, 0, 0.5, 1, 1, 1]
    expected = [[1 + a + 2 * b + 2 * a * b for a in halves] for b in halves]
    np.testing.assert_allclose(y, expected, rtol=1e-6)


@pytest.mark.parametrize("shape", [(2, 8, 8, 3), (2, 13, 22, 1)])
def test_network_is_the_table(shape):
    module = VGG(width=2, blocks=(1, 2), **DTYPES)
    x = images(*shape)
    given = variables(module, x)
    params, stats = given["params"], given["batch_stats"]
    y = x
    for stage in (("1_1",), ("2_1", "2_2")):
        for layer in stage:
            weights = params[f"conv{layer}"]
            y = conv(y, weights["kernel"]) + weights["bias"]
            name = f"bn{layer}"
            y = bn_relu(y, params[name], stats[name])
        rows, columns = y.shape[1] // 2 * 2, y.shape[2] // 2 * 2
        y = y[:, :rows, :columns]
        y = np.maximum(y[:, ::2], y[:, 1::2])
        y = np.maximum(y[:, :, ::2], y[:, :, 1::2])
    y = adaptive(y).transpose(0, 3, 1, 2).reshape(2, -1)
    for layer in ("linear1", "linear2"):
        y = np.maximum(y @ params[layer]["kernel"] + params[layer]["bias"], 0)
    features = module.apply(given, x, train=False)
    assert features.shape == (2, module.feature_dim) == (2, 128)
    np.testing.assert_allclose(features, y, rtol=1e-4, atol=1e-4)


def test_counts_of_the_published_network():
    net = network(0, ())
    shapes = net.shapes((64, 64, 3))
    counts = {
        part: sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(tree))
        for part, tree in shapes.items()
    }
    assert counts == {"params": 139_622_218, "batch_stats": 11_008}
    assert net.module.backbone.feature_dim == 4096
    # The first linear layer reads 7x7 bins whatever the images' size.
    larger = net.shapes((224, 224, 3))
    assert jax.tree.map(np.shape, larger) == jax.tree.map(np.shape, shapes)


def test_initial_values_are_torchvision_s():
    values = network(16, (1, 1)).init(3, SHAPE)["params"]
    backbone, head = values["backbone"], values["logits"]
    for name, expected in {
        "conv2_1": np.sqrt(2 / (9 * 32)),
        "linear1": 0.01,
        "linear2": 0.01,
    }.items():
        kernel = backbone[name]["kernel"]
        np.testing.assert_allclose(kernel.std(), expected, rtol=0.05)
        assert np.abs(kernel).max() > 3 * expected
        assert (backbone[name]["bias"] == 0).all()
    assert (backbone["bn1_1"]["scale"] == 1).all()
    bound = 1 / np.sqrt(64 * 16)
    assert 0.95 * bound < np.abs(head["kernel"]).max() <= bound
    assert 0 < np.abs(head["bias"]).max() <= bound


def test_small_images_are_refused():
    with pytest.raises(UserError, match="vgg19_bn needs .* at least 32 pix"):
        network(2, (1, 1, 1, 1, 1)).shapes((31, 40, 3))
    network(2, (1, 1, 1, 1, 1)).shapes((32, 32, 3))


def test_dropout_halves_and_doubles_in_train_mode_only():
    net = network(4)
    values, x = net.init(0, SHAPE), images(16, *SHAPE)

    def features(train, key=None):
        return np.asarray(
            net.apply(values, x, ("features",), train, key)[0]["features"]
        )

    np.testing.assert_array_equal(features(False), features(False))
    a, b = (features(True, jax.random.key(k)) for k in (0, 1))
    np.testing.assert_array_equal(a, features(True, jax.random.key(0)))
    assert not np.array_equal(a, b)
    # Of the last layer's outputs half are positive, of those half are kept.
    assert 0.15 < (a > 0).mean() < 0.35
    with pytest.raises(ValueError, match="dropout in train mode needs a key"):
        features(True)


def test_dropout_keeps_the_expectation():
    """Rows that are alike differ by their masks alone."""
    net = network(2, (1,))
    values = net.init(0, SHAPE)
    for layer in ("linear1", "linear2"):
        weights = values["params"]["backbone"][layer]
        weights["kernel"][:] = 0
        weights["bias"][:] = 3
    x = images(64, *SHAPE)
    outputs, _ = net.apply(values, x, ("features",), True, jax.random.key(0))
    found = np.asarray(outputs["features"])
    assert set(np.unique(found)) == {0, 6}
    np.testing.assert_allclose(found.mean(), 3, rtol=0.05)
    # Every row has a mask of its own.
    assert len(np.unique(found, axis=0)) == 64


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
    config = {"name": "resnet18", "width": 2, "blocks": (1,)}
    net = models.build(
        ConfigDict(config | {"dtype": "float32"}), 10, ("logits",)
    )
    assert not net.drops
    assert net.seeded(jax.random.key(0)) == net.apply


def test_features_and_gradients():
    net = network(dtype="bfloat16")
    values, x = net.init(0, SHAPE), images(4, *SHAPE)

    @jax.jit
    def loss(params):
        outputs, stats = net.apply(
            values | {"params": params},
            x,
            ("features", "logits"),
            train=True,
            key=jax.random.key(0),
        )
        return (outputs["logits"] ** 2).sum(), (outputs["features"], stats)

    (_, (features, stats)), grads = jax.value_and_grad(loss, has_aux=True)(
        values["params"]
    )
    assert features.dtype == np.float32 and (features >= 0).all()
    for tree in (grads, stats):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
    assert np.abs(grads["backbone"]["conv1_1"]["kernel"]).max() > 0
