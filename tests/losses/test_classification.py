"""Cross-entropies, penalties, priors and means against closed forms."""

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


def test_cross_entropy_takes_labels_and_probabilities():
    logits = jnp.asarray([[0.0, math.log(3)], [0.0, math.log(3)]])
    hard = losses.cross_entropy(logits, jnp.asarray([0, 1]))
    np.testing.assert_allclose(hard, np.log([4, 4 / 3]), rtol=1e-6)
    soft = losses.cross_entropy(logits, jnp.asarray([[1.0, 0], [0.25, 0.75]]))
    mixed = 0.25 * math.log(4) + 0.75 * math.log(4 / 3)
    np.testing.assert_allclose(soft, [math.log(4), mixed], rtol=1e-6)


def test_balanced_softmax_makes_the_rare_class_expensive():
    logits, counts = jnp.zeros((2, 2)), jnp.asarray([1, 3])
    value = losses.balanced_softmax(logits, jnp.asarray([0, 1]), counts)
    np.testing.assert_allclose(value, np.log([4, 4 / 3]), rtol=1e-6)
    grad = jax.jit(
        jax.grad(
            lambda z: losses.balanced_softmax(z, np.arange(2), counts).sum()
        )
    )(logits)
    np.testing.assert_allclose(grad, [[-0.75, 0.75], [0.25, -0.25]], rtol=1e-6)


def test_brier_averages_over_classes():
    targets = jnp.asarray([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25]])
    value = losses.brier(jnp.zeros((2, 4)), targets)
    np.testing.assert_allclose(value, [(9 + 3) / 16 / 4, 0], rtol=1e-6)


def test_prior_penalty_is_of_the_mean_prediction():
    # Each row is sure, the mean is uniform.
    sure = jnp.asarray([[30.0, 0.0], [0.0, 30.0]])
    assert abs(float(losses.prior_penalty(sure))) < 1e-6
    value = losses.prior_penalty(jnp.asarray([[0.0, math.log(3)]] * 2))
    expected = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert value > 0


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


def test_weighted_mean():
    value = losses.weighted_mean(
        jnp.asarray([1.0, 4.0]), jnp.asarray([1.0, 3.0])
    )
    np.testing.assert_allclose(value, 13 / 4)
