"""BatchNorm's one pass over a bfloat16 map."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.models.layers import normalise_batch


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
