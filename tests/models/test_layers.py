"""BatchNorm's precision, and the safe l2 normalisation."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.models.layers import (
    BatchNorm,
    convolve,
    l2_normalise,
    normalise_batch,
    relu,
)
from jaxnlt.runtime.errors import UserError


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


def images(shape):
    return np.random.default_rng(0).normal(2, 3, shape)


def train(x, dtype=np.float32):
    y, after = BatchNorm().apply(
        variables(dtype), x, train=True, mutable=["batch_stats"]
    )
    return y, after["batch_stats"]


def moved(x):
    """Running statistics after a batch of rows in float64."""
    before = variables(np.float64)["batch_stats"]
    found = {"mean": x.mean(0), "var": x.var(0, ddof=1)}
    return {k: 0.9 * before[k] + 0.1 * found[k] for k in found}


def test_bfloat16_keeps_float32_statistics():
    # In bfloat16 a mean of 1000 ± 1 would be rounded to a multiple of 4.
    x = jnp.asarray(images((64, 3)) + 1000, jnp.bfloat16)
    y, stats = train(x)
    assert y.dtype == jnp.bfloat16
    assert stats["mean"].dtype == stats["var"].dtype == jnp.float32
    exact = moved(np.asarray(x, np.float64))
    np.testing.assert_allclose(stats["mean"], exact["mean"], rtol=1e-6)


def test_float64_statistics_are_exact():
    x = images((5, 3))
    with jax.enable_x64(True):
        y, stats = train(x, np.float64)
        assert y.dtype == stats["mean"].dtype == stats["var"].dtype == "float64"
    np.testing.assert_allclose(stats["mean"], moved(x)["mean"], rtol=1e-14)


def test_large_means_do_not_cancel():
    x = images((64, 3)).astype(np.float32) + np.float32(1e4)
    _, stats = train(x)
    exact = moved(x.astype(np.float64))
    np.testing.assert_allclose(stats["var"], exact["var"], rtol=1e-4)


def test_one_value_per_channel_is_refused():
    x = np.ones((1, 3), np.float32)
    with pytest.raises(UserError, match="BatchNorm: .*one value"):
        train(x)
    BatchNorm().apply(variables(), x, train=False)


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


def test_gradient_of_batch_norm_is_that_of_its_formula():
    def formula(x, scale, bias):
        centred = x - x.mean((0, 1, 2))
        var = jnp.square(centred).mean((0, 1, 2))
        return scale * centred / jnp.sqrt(var + 1e-5) + bias

    def layer(x, scale, bias):
        return normalise_batch(x, scale, bias, 1e-5)[0]

    params = variables(np.float64)["params"]
    with jax.enable_x64(True):
        x, pull = images((4, 3, 2, 3)), images((4, 3, 2, 3))
        found, wanted = (
            jax.vjp(f, x, params["scale"], params["bias"])[1](pull)
            for f in (layer, formula)
        )
    for own, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-9, atol=1e-12)


def test_bfloat16_gradients_come_from_float32_sums():
    x = jnp.asarray(images((512, 3)), jnp.bfloat16)
    params = variables()["params"]

    def total(x, scale, bias):
        return normalise_batch(x, scale, bias, 1e-5)[0].sum(dtype=jnp.float32)

    found = jax.grad(total, (0, 1, 2))(x, params["scale"], params["bias"])
    assert found[0].dtype == jnp.bfloat16
    assert found[2].dtype == jnp.float32
    # A sum of bfloat16 ones would end at 256.
    np.testing.assert_array_equal(found[2], 512)


def test_relu_at_its_edges():
    x = jnp.array([-2.0, -0.0, 0.0, 3.0, jnp.nan, jnp.inf])
    np.testing.assert_array_equal(relu(x), jnp.maximum(x, 0))
    slopes = jax.vmap(jax.grad(relu))(x)
    np.testing.assert_array_equal(slopes[:4], [0, 0, 0, 1])


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("sizes", [(1, 1), (2, 2), (2, 3), (4, 1), (3, 3)])
def test_small_maps_are_convolved_as_large_ones(sizes, stride):
    rng = np.random.default_rng(0)
    options = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}

    def gradients(conv):
        def out(x, kernel):
            pads = ((1, 1), (1, 1))
            return conv(x, kernel, (stride, stride), pads, **options)

        y, pull = jax.vjp(out, x, kernel)
        return y, *pull(jnp.cos(y))

    with jax.enable_x64(True):
        x = jnp.asarray(rng.normal(size=(5, *sizes, 3)))
        kernel = jnp.asarray(rng.normal(size=(3, 3, 3, 4)))
        found = gradients(convolve)
        wanted = gradients(jax.lax.conv_general_dilated)
    for own, other in zip(found, wanted, strict=True):
        np.testing.assert_allclose(own, other, rtol=1e-12, atol=1e-12)


def test_no_convolution_is_larger_than_its_map():
    def lowered(size):
        shapes = jnp.ones((2, size, size, 3)), jnp.ones((3, 3, 3, 4))
        conv = functools.partial(
            convolve,
            strides=(1, 1),
            padding=((1, 1), (1, 1)),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jax.jit(conv).lower(*shapes).as_text()

    assert "convolution" in lowered(3)
    assert "convolution" not in lowered(2)
