"""BatchNorm's passes over a map, their rounding and what they keep."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.models.layers import normalise_batch, relu


@pytest.mark.parametrize(("mean", "rtol"), [(0, 1e-5), (3, 1e-4), (100, 0.02)])
def test_the_variance_of_bfloat16_maps(mean, rtol):
    x = np.random.default_rng(0).normal(mean, 1, (64, 8, 8, 3))
    x = jnp.asarray(x, jnp.bfloat16)
    y, found = normalise_batch(x, jnp.ones(3), jnp.zeros(3), 1e-5)
    wanted = np.asarray(x, np.float64)
    np.testing.assert_allclose(found.var, wanted.var((0, 1, 2)), rtol=rtol)
    wanted = (wanted - wanted.mean((0, 1, 2))) / wanted.std((0, 1, 2))
    np.testing.assert_allclose(y.astype(float), wanted, rtol=0.03, atol=0.02)


def test_a_constant_map_has_no_negative_variance():
    x = jnp.full((7, 5, 5, 2), 0.1, jnp.bfloat16)
    y, found = normalise_batch(x, jnp.ones(2), jnp.zeros(2), 1e-5)
    assert (found.var >= 0).all() and (abs(y.astype(float)) < 0.01).all()


@pytest.mark.parametrize("mean", [0, 3, 100])
def test_gradients_survive_means_of_many_deviations(mean):
    rng = np.random.default_rng(0)
    x, pull = rng.normal(mean, 1, (16384, 3)), rng.normal(size=(16384, 3))

    def gradients(dtype):
        def layer(x, scale, bias):
            return normalise_batch(x, scale, bias, 1e-5)[0]

        # The same rounded values on both sides.
        values = [np.float32(x), np.ones(3), np.zeros(3)]
        back = jax.vjp(layer, *(jnp.asarray(v, dtype) for v in values))[1]
        return back(jnp.asarray(np.float32(pull), dtype))

    found = gradients(np.float32)
    with jax.enable_x64(True):
        wanted = gradients(np.float64)
    for own, other in zip(found, wanted, strict=True):
        own, other = np.asarray(own), np.asarray(other)
        error = np.linalg.norm(own - other) / np.linalg.norm(other)
        assert error < 1e-6 * (1 + mean), error


def test_a_layer_keeps_two_maps_for_its_gradient():
    """Its input and what ReLU makes of it, not the centred input as well."""
    layers, x = 8, jnp.ones((8, 16, 16, 16))

    def loss(kernels, x):
        for kernel in kernels:
            x = jnp.einsum("bhwi,io->bhwo", x, kernel)
            y, _ = normalise_batch(x, jnp.ones(16), jnp.zeros(16), 1e-5)
            x = relu(y)
        return x.sum()

    program = jax.jit(jax.grad(loss)).lower(jnp.ones((layers, 16, 16)), x)
    memory = program.compile().memory_analysis()
    if memory is None:
        pytest.skip("XLA tells no memory here")
    assert memory.temp_size_in_bytes < 2.6 * layers * x.nbytes
