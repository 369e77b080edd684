"""PyTorch's distributions, drawn from the seed and the path alone."""

import types

import jax
import numpy as np
import pytest

from jaxnlt.models.initialise import initialise
from tests.models.reference import network


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
    "layer, name, fan_in",
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


def test_an_array_depends_on_the_seed_and_its_own_path_alone():
    alone = {"params": {"linear": SHAPES["params"]["linear"]}}
    same = {"kernel": shape(3, 3, 16, 200)}
    pair = initialise({"params": {"a": same, "b": same}}, 3, np.float32)
    first, again, other = (
        initialise(shapes, seed, np.float32)["params"]["linear"]["kernel"]
        for shapes, seed in ((alone, 3), (SHAPES, 3), (SHAPES, 4))
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.99
    a, b = (pair["params"][name]["kernel"] for name in "ab")
    assert (a != b).mean() > 0.99


@pytest.mark.parametrize(
    "name", ["resnet32", "resnet18", "resnet50", "vgg19_bn"]
)
def test_kernels_are_normal_by_fan_out(name):
    """Except those of heads; biases are 0, BatchNorm is as it was."""
    values = network(name, 32, (1, 2)).init(3, (32, 32, 3))["params"]
    kernels = [
        (path[-1].key, leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(
            values["backbone"]
        )
    ]
    for leaf_name, leaf in kernels:
        if leaf_name == "bias":
            assert (leaf == 0).all()
        elif leaf_name == "scale":
            assert (leaf == 1).all()
        elif leaf.size > 3000:
            *field, _, out = leaf.shape
            expected = np.sqrt(2 / (np.prod(field) * out)) if field else 0.01
            np.testing.assert_allclose(leaf.std(), expected, rtol=0.05)
            # A uniform draw ends at 1.7 deviations.
            assert np.abs(leaf).max() > 2.5 * expected
            assert leaf.dtype == np.float32
    head = values["logits"]
    bound = len(head["kernel"]) ** -0.5
    assert 0.9 * bound < np.abs(head["kernel"]).max() <= bound
    assert 0 < np.abs(head["bias"]).max() <= bound


@pytest.mark.parametrize(
    "name, blocks, size, path",
    [
        ("preact_resnet18", (1, 1), 8, "stage2_block1/conv2"),
        ("resnet18_small", (1, 1), 8, "stage2_block1/conv2"),
        ("inception_resnet_v2", (1, 1, 1), 75, "block17_1/branch1_1/conv"),
    ],
)
def test_kernels_that_stay_uniform(name, blocks, size, path):
    node = network(name, 16, blocks).init(3, (size, size, 3))
    node = node["params"]["backbone"]
    for part in path.split("/"):
        node = node[part]
    bound = 1 / np.sqrt(np.prod(node["kernel"].shape[:-1]))
    assert 0.95 * bound < np.abs(node["kernel"]).max() <= bound
