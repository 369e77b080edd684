"""Networks as callers see them: heads, statistics, dtypes, counts, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxnlt import models
from jaxnlt.runtime.errors import UserError

DASC = ("logits", "balanced", "projection", "prototypes")
SHAPE = (8, 8, 3)


def config(**changes):
    fields = {
        "name": "preact_resnet18",
        "width": 4,
        "blocks": (1, 1),
        "dtype": "float32",
    }
    return ConfigDict(fields | changes)


@functools.cache
def tiny(heads=(*DASC, "embedding"), **changes):
    net = models.build(
        config(**changes), 5, heads, bottleneck=True, projection_dim=6
    )
    return net, net.init(0, SHAPE)


def images(dtype=np.float32):
    return np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(dtype)


def moved(before, after):
    """Top-level parts whose statistics differ."""
    return {
        part
        for part in before
        if any(
            (x != y).any()
            for x, y in zip(
                jax.tree.leaves(before[part]),
                jax.tree.leaves(after[part]),
                strict=True,
            )
        )
    }


def test_top_level_names():
    _, variables = tiny()
    assert set(variables["params"]) == {
        "backbone",
        "bottleneck",
        "logits",
        "balanced",
        "projector",
        "prototype_projector",
        "embedding",
    }
    assert set(variables["batch_stats"]) == {
        "backbone",
        "projector",
        "prototype_projector",
        "embedding",
    }


@pytest.mark.parametrize(
    "heads,parts",
    [
        (("logits",), {"backbone"}),
        (("features",), {"backbone"}),
        (("logits", "balanced"), {"backbone"}),
        (("projection",), {"backbone", "projector"}),
        (("embedding", "logits"), {"backbone", "embedding"}),
        (("prototypes",), {"prototype_projector"}),
        (
            ("prototypes", "projection", "logits"),
            {"backbone", "projector", "prototype_projector"},
        ),
    ],
)
def test_only_named_heads_run_and_move_statistics(heads, parts):
    net, variables = tiny()
    outputs, stats = net.apply(variables, images(), heads, train=True)
    assert set(outputs) == set(heads)
    assert jax.tree.structure(stats) == jax.tree.structure(
        variables["batch_stats"]
    )
    assert moved(variables["batch_stats"], stats) == parts


def test_eval_mode_returns_the_given_statistics():
    net, variables = tiny()
    outputs, stats = net.apply(variables, images(), net.module.held)
    assert stats is variables["batch_stats"]
    sizes = {head: output.shape for head, output in outputs.items()}
    assert sizes == {
        "logits": (4, 5),
        "balanced": (4, 5),
        "projection": (4, 6),
        "prototypes": (5, 6),
        "embedding": (4, 6),
    }


def test_rows_are_independent_in_eval_mode():
    net, variables = tiny()
    heads = ("logits", "projection")
    whole, _ = net.apply(variables, images(), heads)
    part, _ = net.apply(variables, images()[:1], heads)
    for head in heads:
        np.testing.assert_allclose(part[head], whole[head][:1], atol=1e-6)


@pytest.mark.parametrize("train", [False, True])
def test_unit_rows(train):
    net, variables = tiny()
    heads = ("projection", "prototypes", "embedding")
    outputs, _ = net.apply(variables, images(), heads, train)
    lengths = {
        head: np.linalg.norm(output, axis=1) for head, output in outputs.items()
    }
    np.testing.assert_allclose(lengths["projection"], 1, rtol=1e-5)
    np.testing.assert_allclose(lengths["prototypes"], 1, rtol=1e-5)
    assert (np.abs(lengths["embedding"] - 1) > 0.1).any()


def test_features_follow_the_bottleneck():
    net, variables = tiny()
    outputs, _ = net.apply(variables, images(), ("features", "logits"))
    linear = variables["params"]["logits"]
    np.testing.assert_allclose(
        outputs["logits"],
        outputs["features"] @ linear["kernel"] + linear["bias"],
        rtol=1e-4,
        atol=1e-5,
    )
    plain = models.build(config(), 5, ("logits",))
    pooled, _ = plain.apply(
        {
            "params": {
                part: variables["params"][part]
                for part in ("backbone", "logits")
            },
            "batch_stats": {"backbone": variables["batch_stats"]["backbone"]},
        },
        images(),
        ("features",),
    )
    linear = variables["params"]["bottleneck"]
    np.testing.assert_allclose(
        outputs["features"],
        pooled["features"] @ linear["kernel"] + linear["bias"],
        rtol=1e-4,
        atol=1e-5,
    )


def test_prototypes_are_made_of_the_classifiers_weights():
    net, variables = tiny()

    def first(params):
        outputs, _ = net.apply(
            variables | {"params": params}, None, ("prototypes",), train=True
        )
        return outputs["prototypes"][:, 0].sum()

    gradient = jax.grad(first)(variables["params"])
    reached = {
        part
        for part, tree in gradient.items()
        if any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree))
    }
    assert reached == {"logits", "prototype_projector"}
    assert np.abs(gradient["logits"]["kernel"]).max() > 0
    assert np.abs(gradient["logits"]["bias"]).max() == 0


def test_bfloat16_has_float32_variables_and_outputs():
    net, variables = tiny(dtype="bfloat16")
    full, _ = tiny()
    assert {x.dtype for x in jax.tree.leaves(variables)} == {
        np.dtype("float32")
    }
    heads = net.module.held
    outputs, stats = net.apply(variables, images(), heads, train=True)
    exact, _ = full.apply(variables, images(), heads, train=True)
    assert {x.dtype for x in jax.tree.leaves((outputs, stats))} == {
        np.dtype("float32")
    }
    error = np.abs(outputs["logits"] - exact["logits"]).max()
    assert 0 < error < 0.1  # the backbone did compute in bfloat16


def test_float64():
    with jax.enable_x64(True):
        net, variables = tiny(dtype="float64")
    assert {x.dtype for x in jax.tree.leaves(variables)} == {
        np.dtype("float64")
    }
    with pytest.raises(UserError, match="config.model.dtype: .*X64"):
        net.apply(variables, images(np.float64))
    with pytest.raises(UserError, match="config.model.dtype: .*X64"):
        net.init(0, SHAPE)
    single, same = tiny()
    heads = net.module.held
    expected, _ = single.apply(same, images(), heads, train=True)
    with jax.enable_x64(True):
        outputs, stats = net.apply(
            variables, images(np.float64), heads, train=True
        )
        assert {x.dtype for x in jax.tree.leaves((outputs, stats))} == {
            np.dtype("float64")
        }
    for head in heads:
        np.testing.assert_allclose(
            outputs[head], expected[head], rtol=1e-3, atol=1e-4
        )


def test_init_is_a_function_of_the_seed_and_shared_between_head_sets():
    net, variables = tiny()
    again = net.init(0, SHAPE)
    assert all(
        np.array_equal(x, y)
        for x, y in zip(
            jax.tree.leaves(variables), jax.tree.leaves(again), strict=True
        )
    )
    other = net.init(1, SHAPE)["params"]["logits"]["kernel"]
    assert (other != variables["params"]["logits"]["kernel"]).all()
    small = models.build(config(), 5, ("logits",)).init(0, SHAPE)
    np.testing.assert_array_equal(
        small["params"]["backbone"]["conv"]["kernel"],
        variables["params"]["backbone"]["conv"]["kernel"],
    )
    # The logits layer is Linear(8 -> 5): its bias is drawn too.
    bias = variables["params"]["logits"]["bias"]
    assert (bias != 0).all() and np.abs(bias).max() <= 8**-0.5


def test_a_network_is_a_static_argument_of_jit():
    run = jax.jit(
        lambda net, variables, x: net.apply(variables, x)[0]["logits"],
        static_argnums=0,
    )
    net, variables = tiny()
    twin = models.build(config(), 5, net.module.held, True, 6)
    jitted = run(net, variables, images())
    run(twin, variables, images())
    assert run._cache_size() == 1
    eager, _ = net.apply(variables, images())
    np.testing.assert_allclose(jitted, eager["logits"], atol=1e-5)


@pytest.mark.parametrize(
    "classes,heads,bottleneck,parameters,statistics",
    [
        (10, ("logits",), False, 11_166_144 + 5_130, 6_912),
        (100, ("logits",), False, 11_166_144 + 51_300, 6_912),
        (10, DASC, True, 12_097_748, 6_912 + 2 * 2 * 512),
        (10, ("logits", "balanced"), False, 11_176_404, 6_912),
        (10, ("logits", "embedding"), False, 11_237_194, 7_168),
    ],
)
def test_published_counts(classes, heads, bottleneck, parameters, statistics):
    published = config(width=64, blocks=(2, 2, 2, 2))
    net = models.build(published, classes, heads, bottleneck)
    shapes = net.shapes((32, 32, 3))
    count = {
        part: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for part, tree in shapes.items()
    }
    assert count == {"params": parameters, "batch_stats": statistics}


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"name": "resnet9000"}, "config.model.name: .*preact_resnet18"),
        ({"dtype": "float16"}, "config.model.dtype: .*bfloat16"),
        ({"width": -1}, "config.model.width: "),
        ({"blocks": (1, 0)}, "config.model.blocks: "),
    ],
)
def test_wrong_fields_are_named(changes, message):
    with pytest.raises(UserError, match=message):
        models.build(config(**changes), 5, ("logits",))


def test_wrong_heads_are_named():
    with pytest.raises(ValueError, match="typo"):
        models.build(config(), 5, ("logits", "typo"))
    with pytest.raises(ValueError, match="logits"):
        models.build(config(), 5, ("prototypes",))
    net = models.build(config(), 5, ("logits",))
    variables = net.init(0, SHAPE)
    for heads in [("balanced",), ()]:
        with pytest.raises(ValueError, match="holds"):
            net.apply(variables, jnp.asarray(images()), heads)
    with pytest.raises(ValueError, match="need images"):
        net.apply(variables, None, ("logits",))
