"""Networks as callers see them: heads, statistics, dtypes, counts, errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxnlt import models
from jaxnlt.runtime.errors import UserError
from tests.models import reference

HEADS = ("logits", "balanced", "projection", "prototypes")
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
def tiny(heads=(*HEADS, "embedding"), **changes):
    net = models.build(
        config(**changes), 5, heads, bottleneck=True, projection_dim=6
    )
    return net, net.init(0, SHAPE)


# Operation by operation is slower than compiling.
@functools.partial(jax.jit, static_argnames=("net", "heads", "train"))
def apply(net, variables, images, heads, train=False):
    return net.apply(variables, images, heads, train)


def images(dtype=np.float32):
    return np.random.default_rng(0).normal(size=(4, *SHAPE)).astype(dtype)


def dtypes(tree):
    return {str(leaf.dtype) for leaf in jax.tree.leaves(tree)}


def moved(before, after):
    """Top-level parts whose statistics differ."""
    return {
        part
        for part in before
        if not jax.tree.all(
            jax.tree.map(np.array_equal, before[part], after[part])
        )
    }


# --- heads and statistics ---------------------------------------------------


def test_top_level_names():
    _, variables = tiny()
    statistics = {"backbone", "projector", "prototype_projector", "embedding"}
    assert set(variables["batch_stats"]) == statistics
    linear = {"bottleneck", "logits", "balanced"}
    assert set(variables["params"]) == statistics | linear


@pytest.mark.parametrize(
    "heads, parts",
    [
        (("features",), {"backbone"}),
        (("logits", "balanced"), {"backbone"}),
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
    outputs, stats = apply(net, variables, images(), heads, train=True)
    assert set(outputs) == set(heads)
    assert jax.tree.structure(stats) == jax.tree.structure(
        variables["batch_stats"]
    )
    assert moved(variables["batch_stats"], stats) == parts


def test_outputs_and_statistics_of_eval_mode():
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
    lengths = {k: np.linalg.norm(v, axis=1) for k, v in outputs.items()}
    np.testing.assert_allclose(lengths["projection"], 1, rtol=1e-5)
    np.testing.assert_allclose(lengths["prototypes"], 1, rtol=1e-5)
    assert (np.abs(lengths["embedding"] - 1) > 0.1).any()
    part, _ = net.apply(variables, images()[:1], ("logits", "projection"))
    for head, found in part.items():
        np.testing.assert_allclose(found, outputs[head][:1], atol=1e-6)


def test_features_follow_the_bottleneck():
    net, variables = tiny()
    outputs, _ = apply(net, variables, images(), ("features", "logits"))
    plain = models.build(config(), 5, ("logits",))
    pooled, _ = apply(
        plain,
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
    for given, name, found in (
        (pooled["features"], "bottleneck", outputs["features"]),
        (outputs["features"], "logits", outputs["logits"]),
    ):
        linear = variables["params"][name]
        expected = given @ linear["kernel"] + linear["bias"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_prototypes_are_made_of_the_classifiers_weights():
    net, variables = tiny()

    @jax.jit
    @jax.grad
    def gradient(params):
        outputs, _ = net.apply(
            variables | {"params": params}, None, ("prototypes",), train=True
        )
        return outputs["prototypes"][:, 0].sum()

    found = gradient(variables["params"])
    reached = {
        part
        for part, tree in found.items()
        if any(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(tree))
    }
    assert reached == {"logits", "prototype_projector"}
    assert np.abs(found["logits"]["kernel"]).max() > 0
    assert np.abs(found["logits"]["bias"]).max() == 0


# --- dtypes -----------------------------------------------------------------


def test_bfloat16_has_float32_variables_and_outputs():
    net, variables = tiny(dtype="bfloat16")
    full, _ = tiny()
    heads = net.module.held
    outputs, stats = apply(net, variables, images(), heads, train=True)
    exact, _ = apply(full, variables, images(), heads, train=True)
    assert dtypes((variables, outputs, stats)) == {"float32"}
    error = np.abs(outputs["logits"] - exact["logits"]).max()
    assert 0 < error < 0.1  # the backbone did compute in bfloat16


def test_float64():
    with jax.enable_x64(True):
        net, variables = tiny(dtype="float64")
    assert dtypes(variables) == {"float64"}
    with pytest.raises(UserError, match=r"config\.model\.dtype"):
        net.apply(variables, images(np.float64))
    with pytest.raises(UserError, match=r"config\.model\.dtype"):
        net.init(0, SHAPE)
    single, same = tiny()
    heads = net.module.held
    expected, _ = apply(single, same, images(), heads, train=True)
    with jax.enable_x64(True):
        given = images(np.float64)
        outputs, stats = apply(net, variables, given, heads, train=True)
    assert dtypes((outputs, stats)) == {"float64"}
    for head in heads:
        np.testing.assert_allclose(
            outputs[head], expected[head], rtol=1e-3, atol=1e-4
        )


# --- building ---------------------------------------------------------------


def test_init_is_a_function_of_the_seed_and_shared_between_head_sets():
    net, variables = tiny()
    again = net.init(0, SHAPE)
    assert jax.tree.all(jax.tree.map(np.array_equal, variables, again))
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
    net, variables = tiny()
    twin = models.build(config(), 5, net.module.held, True, 6)
    assert hash(net) == hash(twin) and net == twin
    apply(net, variables, images(), ("logits",))
    programs = apply._cache_size()
    apply(twin, variables, images(), ("logits",))
    assert apply._cache_size() == programs


@pytest.mark.parametrize(
    "name, size, heads, bottleneck, parameters, statistics, features",
    [
        ("preact_resnet18", 32, 1, False, 11_171_274, 6_912, 512),
        ("preact_resnet18", 32, HEADS, True, 12_097_748, 8_960, 512),
        ("preact_resnet18", 32, 2, False, 11_176_404, 6_912, 512),
        ("preact_resnet18", 32, 3, False, 11_237_194, 7_168, 512),
        ("resnet32", 32, 1, False, 466_906, 2_464, 64),
        ("resnet18", 224, 1, False, 11_181_642, 9_600, 512),
        ("resnet50", 224, 1, False, 23_528_522, 53_120, 2048),
        # The stem's kernel has 9 in place of 49 positions.
        ("resnet18_small", 32, 1, False, 11_173_962, 9_600, 512),
        ("vgg19_bn", 64, 1, False, 139_622_218, 11_008, 4096),
        ("inception_resnet_v2", 299, 1, False, 54_321_834, 60_544, 1536),
    ],
)
def test_published_counts(
    name, size, heads, bottleneck, parameters, statistics, features
):
    heads = {
        1: ("logits",),
        2: ("logits", "balanced"),
        3: ("logits", "embedding"),
    }.get(heads, heads)
    net = models.build(
        config(name=name, width=0, blocks=()), 10, heads, bottleneck
    )
    counts = reference.counts(net, size)
    assert counts == {"params": parameters, "batch_stats": statistics}
    assert net.module.backbone.feature_dim == features


@pytest.mark.parametrize(
    "name, size, blocks, dtype, parameter",
    [
        ("resnet32", 8, (1, 1), "bfloat16", "stage2_block1/shortcut"),
        ("resnet18", 16, (1, 1), "float32", "conv"),
        ("resnet50", 16, (1, 1), "bfloat16", "conv"),
        ("resnet18_small", 8, (1, 1), "float32", "conv"),
        ("vgg19_bn", 8, (1, 2), "bfloat16", "conv1_1"),
        pytest.param(
            "inception_resnet_v2",
            75,
            (1, 1, 1),
            "bfloat16",
            "stem1/conv",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_features_and_gradients(name, size, blocks, dtype, parameter):
    """All are finite and move; features follow a ReLU."""
    net = reference.network(name, 2, blocks, dtype=dtype)
    shape = (size, size, 3)
    values, x = net.init(0, shape), reference.images(4, *shape)

    @jax.jit
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        outputs, stats = net.apply(
            values | {"params": params},
            x,
            ("features", "logits"),
            train=True,
            key=jax.random.key(0),
        )
        return (outputs["logits"] ** 2).sum(), (outputs["features"], stats)

    (_, (features, stats)), grads = loss(values["params"])
    assert features.shape == (4, net.module.backbone.feature_dim)
    assert features.dtype == np.float32 and (features >= 0).all()
    for tree in (grads, stats):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
    assert all(
        (old != new).any()
        for old, new in zip(
            jax.tree.leaves(values["batch_stats"]),
            jax.tree.leaves(stats),
            strict=True,
        )
    )
    node = grads["backbone"]
    for part in parameter.split("/"):
        node = node[part]
    assert np.abs(node["kernel"]).max() > 0


def test_sizes():
    """The published ones are the default."""
    given = config(name="resnet32", width=0, blocks=())
    assert models.sizes(given) == (16, (5, 5, 5))
    assert models.sizes(config(name="resnet50", blocks=[1, 2])) == (4, (1, 2))


@pytest.mark.parametrize(
    "changes, field",
    [
        ({"name": "resnet9000"}, r"config\.model\.name"),
        ({"dtype": "float16"}, r"config\.model\.dtype"),
        ({"width": -1}, r"config\.model\.width"),
        ({"blocks": (1, 0)}, r"config\.model\.blocks"),
    ],
)
def test_wrong_fields_are_named(changes, field):
    with pytest.raises(UserError, match=f"^{field}: "):
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
