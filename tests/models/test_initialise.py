"""PyTorch's distributions, drawn from the seed and the path alone."""

import types

import numpy as np
import pytest

from jaxnlt.models.initialise import initialise


def shape(*sizes):
    return types.SimpleNamespace(shape=sizes)


SHAPES = {
    "params": {
        "conv": {"kernel": shape(3, 3, 16, 200)},
        "linear": {"kernel": shape(25, 800), "bias": shape(800)},
        "bn": {"scale": shape(7), "bias": shape(7)},
    },
    "batch_stats": {"bn": {"mean": shape(7), "var": shape(7)}},
}


@pytest.mark.parametrize(
    "layer,name,fan_in",
    [("conv", "kernel", 144), ("linear", "kernel", 25), ("linear", "bias", 25)],
)
def test_uniform_within_one_over_root_fan_in(layer, name, fan_in):
    values = initialise(SHAPES, 3, np.float32)["params"][layer][name]
    bound = fan_in**-0.5
    assert values.dtype == np.float32
    assert np.abs(values).max() <= np.float32(bound)
    assert np.abs(values).max() > 0.98 * bound
    np.testing.assert_allclose(values.mean(), 0, atol=0.08 * bound)
    np.testing.assert_allclose(values.std(), bound / 3**0.5, rtol=0.05)


def test_constants():
    tree = initialise(SHAPES, 3, np.float64)
    for values, constant in [
        (tree["params"]["bn"]["scale"], 1),
        (tree["params"]["bn"]["bias"], 0),
        (tree["batch_stats"]["bn"]["mean"], 0),
        (tree["batch_stats"]["bn"]["var"], 1),
    ]:
        assert values.dtype == np.float64
        np.testing.assert_array_equal(values, np.full(7, constant))


def test_same_seed_same_bits_other_seed_other_values():
    def kernel(seed):
        return initialise(SHAPES, seed, np.float32)["params"]["conv"]["kernel"]

    np.testing.assert_array_equal(kernel(3), kernel(3))
    assert (kernel(3) != kernel(4)).mean() > 0.99


def test_an_array_depends_on_its_own_path_alone():
    alone = {"params": {"linear": SHAPES["params"]["linear"]}}
    same = {"kernel": shape(3, 3, 16, 200)}
    pair = initialise({"params": {"a": same, "b": same}}, 3, np.float32)
    np.testing.assert_array_equal(
        initialise(alone, 3, np.float32)["params"]["linear"]["kernel"],
        initialise(SHAPES, 3, np.float32)["params"]["linear"]["kernel"],
    )
    a, b = (pair["params"][name]["kernel"] for name in "ab")
    assert (a != b).mean() > 0.99
