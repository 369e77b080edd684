"""BatchNorm against PyTorch's formulas, and the safe l2 normalisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.models.layers import BatchNorm, l2_normalise
from jaxnlt.runtime.errors import UserError

SHAPES = [(5, 3), (2, 4, 3, 3)]


def variables(dtype=np.float32):
    return {
        "params": {
            "scale": np.array([1.5, -0.5, 2.0], dtype),
            "bias": np.array([0.1, 0.2, -0.3], dtype),
        },
        "batch_stats": {
            "mean": np.array([0.3, -1.0, 0.0], dtype),
            "var": np.array([0.5, 2.0, 1.0], dtype),
        },
    }


def images(shape, seed=0):
    return np.random.default_rng(seed).normal(2, 3, shape)


def train(x, dtype=np.float32):
    y, moved = BatchNorm().apply(
        variables(dtype), x, train=True, mutable=["batch_stats"]
    )
    return y, moved["batch_stats"]


@pytest.mark.parametrize("shape", SHAPES)
def test_train_mode_is_pytorchs(shape):
    x = images(shape)
    rows = x.reshape(-1, 3)
    given = variables(np.float64)
    mean, var = rows.mean(0), rows.var(0)  # var is the biased one
    y, stats = train(x.astype(np.float32))
    np.testing.assert_allclose(
        y,
        given["params"]["scale"] * (x - mean) / np.sqrt(var + 1e-5)
        + given["params"]["bias"],
        rtol=1e-4,
        atol=1e-5,
    )
    np.testing.assert_allclose(
        stats["mean"],
        0.9 * given["batch_stats"]["mean"] + 0.1 * mean,
        rtol=1e-5,
        atol=1e-6,
    )
    np.testing.assert_allclose(
        stats["var"],
        0.9 * given["batch_stats"]["var"] + 0.1 * rows.var(0, ddof=1),
        rtol=1e-5,
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_eval_mode_uses_the_running_statistics(shape):
    x = images(shape)
    given = variables(np.float64)
    y = BatchNorm().apply(variables(), x.astype(np.float32), train=False)
    np.testing.assert_allclose(
        y,
        given["params"]["scale"]
        * (x - given["batch_stats"]["mean"])
        / np.sqrt(given["batch_stats"]["var"] + 1e-5)
        + given["params"]["bias"],
        rtol=1e-4,
        atol=1e-5,
    )


def test_bfloat16_keeps_float32_statistics():
    # In bfloat16 a mean of 1000 ± 1 would be rounded to a multiple of 4.
    x = jnp.asarray(images((64, 3)) + 1000, jnp.bfloat16)
    y, stats = train(x)
    assert y.dtype == jnp.bfloat16
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(
        stats["mean"],
        0.9 * variables()["batch_stats"]["mean"] + 0.1 * exact.mean(0),
        rtol=1e-6,
    )


def test_float64_statistics_are_exact():
    x = images((5, 3))
    with jax.enable_x64(True):
        y, stats = train(x, np.float64)
        assert y.dtype == stats["mean"].dtype == stats["var"].dtype == "float64"
    np.testing.assert_allclose(
        stats["mean"],
        0.9 * variables(np.float64)["batch_stats"]["mean"] + 0.1 * x.mean(0),
        rtol=1e-14,
    )


def test_large_means_do_not_cancel():
    x = images((64, 3)).astype(np.float32) + np.float32(1e4)
    _, stats = train(x)
    expected = np.var(x.astype(np.float64), axis=0, ddof=1)
    np.testing.assert_allclose(
        stats["var"],
        0.9 * variables()["batch_stats"]["var"] + 0.1 * expected,
        rtol=1e-4,
    )


def test_one_value_per_channel_is_refused():
    with pytest.raises(UserError, match="BatchNorm: .*one value"):
        train(np.ones((1, 3), np.float32))
    assert BatchNorm().apply(
        variables(), np.ones((1, 3), np.float32), train=False
    ).shape == (1, 3)


def test_l2_normalise():
    x = np.array([[3.0, 4.0], [0.0, 0.0], [1e-13, 0.0]], np.float32)
    np.testing.assert_allclose(
        l2_normalise(x), [[0.6, 0.8], [0, 0], [0.1, 0]], rtol=1e-6
    )
    gradient = jax.grad(lambda x: l2_normalise(x)[:, 0].sum())(x)
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(
        gradient[0], [(1 - 0.36) / 5, -0.48 / 5], rtol=1e-5
    )
