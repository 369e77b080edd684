"""VGG19-BN: its pooling at any size, and its dropout."""

import itertools

import jax
import numpy as np
import pytest

from jaxnlt.models.layers import adaptive_mean
from jaxnlt.runtime.errors import UserError
from tests.models import reference
from tests.models.reference import images

SHAPE = (8, 8, 3)


def network(width=2, blocks=(1, 2)):
    return reference.network("vgg19_bn", width, blocks)


def adaptive(x, size=7):
    """PyTorch's bins, one after the other."""
    found = np.zeros((len(x), size, size, x.shape[-1]), x.dtype)
    for cell in itertools.product(range(size), range(size)):
        rows, columns = (
            slice(i * length // size, -(-(i + 1) * length // size))
            for i, length in zip(cell, x.shape[1:3], strict=True)
        )
        found[:, *cell] = x[:, rows, columns].mean((1, 2))
    return found


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 7), (10, 9), (14, 21)])
def test_adaptive_mean(shape):
    x = images(2, *shape, 3)
    y = adaptive_mean(x, 7)
    np.testing.assert_allclose(y, adaptive(x), rtol=1e-6, atol=1e-6)
    if shape == (7, 7):
        np.testing.assert_array_equal(y, x)


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
