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

INCEPTION = "inception_resnet_v2"
HEADS = ("logits", "balanced", "projection", "prototypes")
SHAPE = (8, 8, 3)


def config(name="preact_resnet18", width=4, blocks=(1, 1), dtype="float32"):
    return ConfigDict(
        {"name": name, "width": width, "blocks": blocks, "dtype": dtype}
    )


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


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


# --- heads and statistics ---------------------------------------------------


@pytest.mark.parametrize(
    "heads, parts",
    [
        (("features",), {"backbone"}),
        (("logits", "balanced"), {"backbone"}),
        (("embedding", "logits"), {"backbone", "embedding"}),
        (("prototypes",), {"prototype_projector"}),
        (("projection", "logits"), {"backbone", "projector"}),
    ],
)
def test_only_named_heads_run_and_move_statistics(heads, parts):
    net, variables = tiny()
    outputs, stats = apply(net, variables, images(), heads, train=True)
    assert set(outputs) == set(heads)
    before = variables["batch_stats"]
    assert jax.tree.structure(stats) == jax.tree.structure(before)
    assert {p for p in before if not same(before[p], stats[p])} == parts


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
    identity = {"kernel": np.eye(8, dtype="f4"), "bias": np.zeros(8, "f4")}
    params = variables["params"] | {"bottleneck": identity}
    through = variables | {"params": params}
    pooled, _ = apply(net, through, images(), ("features",))
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


# --- building ---------------------------------------------------------------


def test_init_is_a_function_of_the_seed_and_shared_between_head_sets():
    net, variables = tiny()
    assert same(variables, net.init(0, SHAPE))
    other = net.init(1, SHAPE)["params"]["logits"]["kernel"]
    assert (other != variables["params"]["logits"]["kernel"]).all()
    small = models.build(config(), 5, ("logits",)).init(0, SHAPE)
    np.testing.assert_array_equal(
        small["params"]["backbone"]["conv"]["kernel"],
        variables["params"]["backbone"]["conv"]["kernel"],
    )


def test_a_network_is_a_static_argument_of_jit():
    net, variables = tiny()
    twin = models.build(config(), 5, net.module.held, True, 6)
    assert hash(net) == hash(twin) and net == twin
    apply(net, variables, images(), ("logits",))
    programs = apply._cache_size()
    apply(twin, variables, images(), ("logits",))
    assert apply._cache_size() == programs


@pytest.mark.parametrize(
    "name, parameters, statistics, features",
    [
        ("preact_resnet18", 12_097_748, 8_960, 512),
        ("resnet18", 11_181_642, 9_600, 512),
        ("resnet50", 23_528_522, 53_120, 2048),
        # The stem's kernel has 9 in place of 49 positions.
        ("resnet18_small", 11_173_962, 9_600, 512),
    ],
)
def test_published_counts(name, parameters, statistics, features):
    """Golden files count VGG and Inception; one has all heads."""
    every = name == "preact_resnet18"
    heads = HEADS if every else ("logits",)
    net = models.build(config(name, 0, ()), 10, heads, bottleneck=every)
    counts = {
        kind: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for kind, tree in net.shapes((32, 32, 3)).items()
    }
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
            *(INCEPTION, 75, (1, 1, 1), "bfloat16", "stem1/conv"),
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
        given, heads = values | {"params": params}, ("features", "logits")
        outputs, stats = net.apply(given, x, heads, True, jax.random.key(0))
        return (outputs["logits"] ** 2).sum(), (outputs["features"], stats)

    (_, (features, stats)), grads = loss(values["params"])
    assert features.shape == (4, net.module.backbone.feature_dim)
    assert features.dtype == np.float32 and (features >= 0).all()
    for tree in (grads, stats):
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
    stood = jax.tree.map(np.array_equal, values["batch_stats"], stats)
    assert not any(jax.tree.leaves(stood))
    node = grads["backbone"]
    for part in parameter.split("/"):
        node = node[part]
    assert np.abs(node["kernel"]).max() > 0


def test_published_sizes_are_the_default():
    assert models.sizes(config("resnet32", 0, ())) == (16, (5, 5, 5))
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


def test_inception_refuses_wrong_sizes():
    with pytest.raises(UserError, match=r"config\.model\.blocks"):
        reference.network(INCEPTION, 2, (1, 1))
    with pytest.raises(UserError, match=r"config\.model\.name: .* 75 pixels"):
        reference.network(INCEPTION, 2, (1, 1, 1)).shapes((74, 80, 3))


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
