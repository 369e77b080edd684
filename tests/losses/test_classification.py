"""Cross-entropies, penalties, priors and means beyond the golden files."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses


def test_log_prior_counts_an_empty_class_as_one_sample():
    expected = np.log([1 / 4, 1 / 4, 3 / 4])
    for dtype in (np.int64, np.float32):
        prior = losses.log_prior(np.array([0, 1, 3], dtype))
        np.testing.assert_allclose(prior, expected, rtol=1e-6)
    assert np.isfinite(losses.log_prior(np.zeros(3))).all()


def test_prior_penalty_survives_underflow():
    logits = jnp.asarray([[0.0, 200.0]] * 2)
    assert jax.nn.softmax(logits).min() == 0
    value, grad = jax.jit(jax.value_and_grad(losses.prior_penalty))(logits)
    np.testing.assert_allclose(value, 100 - math.log(2), rtol=1e-6)
    assert np.isfinite(grad).all()
    assert (grad[:, 0] < 0).all()  # the class of no prediction is raised


def test_masked_mean():
    values = jnp.asarray([1.0, 2.0, 6.0])
    mean = jax.jit(jax.value_and_grad(losses.masked_mean))
    value, grad = mean(values, jnp.asarray([True, False, True]))
    assert value == 3.5
    np.testing.assert_array_equal(grad, [0.5, 0, 0.5])
    value, grad = mean(values, jnp.zeros(3, bool))
    assert value == 0
    np.testing.assert_array_equal(grad, np.zeros(3))
