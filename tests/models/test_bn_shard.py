"""Batch normalisation over groups of a batch: `config.model.bn_shard`."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import command_line
from jaxnlt.config import base as config_lib
from jaxnlt.models.layers import BatchNorm, grouped, normalise_groups
from jaxnlt.runtime.errors import UserError
from tests import runs
from tests.models.reference import network
from tests.runtime import jobs

EPSILON = 1e-5


def rows(count, *shape):
    return np.random.default_rng(0).normal(2, 3, (count, *shape))


def formula(x, scale, bias, size):
    """Every group apart, by NumPy's functions alone."""
    parts = []
    for start in range(0, len(x), size):
        part = x[start : start + size]
        axes = tuple(range(x.ndim - 1))
        centred = part - part.mean(axes)
        deviation = jnp.sqrt(jnp.square(centred).mean(axes) + EPSILON)
        parts.append(scale * centred / deviation + bias)
    return jnp.concatenate(parts)


@pytest.mark.parametrize("size", [4, 5, 12])
def test_values_and_gradients_are_those_of_separate_batches(size):
    with jax.enable_x64(True):
        x, pull = rows(12, 2, 2, 3), rows(12, 2, 2, 3)[::-1]
        scale, bias = np.array([1.5, -0.5, 2.0]), np.array([0.1, 0.2, -0.3])
        grouped_rows = functools.partial(
            normalise_groups, epsilon=EPSILON, size=size
        )

        def with_gradients(function):
            def both(*given):
                y, back = jax.vjp(function, *given)
                return y, *back(jnp.asarray(pull))

            return jax.jit(both)(x, scale, bias)

        found = with_gradients(lambda *given: grouped_rows(*given)[0])
        wanted = with_gradients(functools.partial(formula, size=size))
        for own, autodiff in zip(found, wanted, strict=True):
            np.testing.assert_allclose(own, autodiff, rtol=1e-9, atol=1e-11)


def test_running_statistics_are_those_of_the_first_group():
    x = rows(12, 3).astype(np.float32)
    given = {
        "params": {"scale": np.ones(3), "bias": np.zeros(3)},
        "batch_stats": {"mean": np.zeros(3), "var": np.ones(3)},
    }
    given = jax.tree.map(np.float32, given)
    with grouped(4):
        _, after = jax.jit(
            lambda v, x: BatchNorm().apply(
                v, x, train=True, mutable=["batch_stats"]
            )
        )(given, x)
        plain = jax.jit(lambda v, x: BatchNorm().apply(v, x, train=False))(
            given, x
        )
    stats, first = after["batch_stats"], x[:4]
    np.testing.assert_allclose(stats["mean"], 0.1 * first.mean(0), rtol=1e-5)
    variance = 0.9 + 0.1 * first.var(0, ddof=1)
    np.testing.assert_allclose(stats["var"], variance, rtol=1e-5)
    np.testing.assert_allclose(plain, x, rtol=1e-5)


def lowered(shard, heads=("logits",), train=True):
    made = network("resnet18_small", 4, (1,), heads, bn_shard=shard)
    variables = made.init(0, (4, 4, 3))
    apply = jax.jit(lambda v, x: made.apply(v, x, heads, train))
    return apply.lower(variables, np.zeros((6, 4, 4, 3), np.float32)).as_text()


def test_the_usual_program_stays():
    usual = lowered(0)
    assert lowered(6) == lowered(64) == usual
    assert lowered(2) != usual
    assert lowered(2, train=False) == lowered(0, train=False)


def test_prototypes_are_no_images():
    """Their rows are the classes."""
    heads = ("logits", "prototypes")
    made = network("mlp", 4, (1,), heads, bn_shard=3)
    variables = made.init(0, (5,))
    found = [
        net.apply(variables, None, ("prototypes",), True)[0]["prototypes"]
        for net in (made, network("mlp", 4, (1,), heads))
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("shard", [1, 5, -1])
def test_shards_without_a_variance_are_refused(shard):
    config = runs.tiny("h2e", **{"model.bn_shard": shard})
    with pytest.raises(UserError, match="^config.model.bn_shard: "):
        config_lib.check(config)


def test_h2e_as_released_has_the_shards_of_four_gpus():
    def shard(arg):
        model = command_line.load_config("h2e", arg).model
        return model.bn_shard

    assert shard("imagenet_nlt,as_released") == 128
    assert shard("imagenet_nlt") == shard("cifar10,as_released") == 0


DEVICES = """
import jax, numpy as np
from jaxnlt.runtime import sharding
from tests.models.reference import network
images = np.random.default_rng(0).normal(size=(32, 6, 6, 3))

def step_on(count, made, variables):
    mesh = jax.make_mesh(
        (count,), ("data",), devices=jax.devices()[:count],
        axis_types=(jax.sharding.AxisType.Auto,),
    )
    all_of, rows = sharding.replicated(mesh), sharding.batched(mesh)
    def loss(params, stats, x):
        given = {"params": params, "batch_stats": stats}
        out, moved = made.apply(given, x, train=True)
        return (out["logits"] ** 2).mean(), moved
    step = jax.jit(
        jax.value_and_grad(loss, has_aux=True),
        in_shardings=(all_of, all_of, rows), out_shardings=all_of,
    )
    tree = step(variables["params"], variables["batch_stats"], images)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]

for size in (2, 12):  # of half a device, and such that cross devices
    made = network("resnet18_small", 4, (1,), dtype="float64", bn_shard=size)
    variables = made.init(0, (6, 6, 3))
    pair = [step_on(count, made, variables) for count in (1, 8)]
    print(max(np.abs(a - b).max() for a, b in zip(*pair)))
"""


@pytest.mark.slow
def test_the_number_of_devices_does_not_matter():
    job = jobs.Job("-c", DEVICES, devices=8, more={"JAX_ENABLE_X64": "1"})
    ((status, stdout, stderr),) = job.finish()
    assert status == 0, stderr
    differences = [float(line) for line in stdout.split()]
    assert len(differences) == 2 and max(differences) < 1e-10
