"""Losses against noise and long tails, where no golden file has them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import losses

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(2 * RNG.normal(size=(6, 4)), jnp.float32)
LABELS = jnp.asarray([0, 3, 1, 2, 2, 0])
PROBS = np.asarray(jax.nn.softmax(LOGITS), np.float64)
OWN = PROBS[np.arange(6), np.asarray(LABELS)]
SHORT = ("ce", "gce", "mae", "rce", "nce", "ngce", "nmae", "nrce", "nfl")


def close(actual, expected, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


# --- against noise ----------------------------------------------------------


def test_focal_with_the_gradient_of_its_factor():
    def focal(z, detached):
        return losses.focal(z, LABELS, 2.0, detached).sum()

    (value, grad), (same, detached) = (
        jax.value_and_grad(focal)(LOGITS, detached) for detached in (0, 1)
    )
    assert value == same
    assert np.abs(grad - detached).max() > 0.1


def test_generalised_cross_entropy_has_a_floor():
    wrong, label = jnp.asarray([[60.0, 0.0]]), jnp.asarray([1])
    value, grad = jax.value_and_grad(
        lambda z: losses.generalised_cross_entropy(z, label, 0.7, 1e-7)[0]
    )(wrong)
    np.testing.assert_allclose(value, (1 - 1e-7**0.7) / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(grad, np.zeros((1, 2)))


def test_symmetric_cross_entropy():
    close(
        losses.symmetric_cross_entropy(LOGITS, LABELS, 0.1, 2.0, -4.0),
        -0.1 * np.log(OWN) + 8 * (1 - OWN),
    )


def test_normalised_reverse_cross_entropy():
    close(losses.active_passive("nrce", LOGITS, LABELS), (1 - OWN) / 3)


def test_an_unknown_loss_of_two_is_named():
    with pytest.raises(KeyError, match="nlnl"):
        losses.active_passive("nlnl_mae", LOGITS, LABELS)


@pytest.mark.parametrize("name", [*SHORT, "focal", "sce"])
def test_saturated_and_even_predictions_stay_finite(name):
    @jax.jit
    def loss(z, y):
        if name == "focal":
            return losses.focal(z, y, 0.5)
        if name == "sce":
            return losses.symmetric_cross_entropy(z, y, 0.1, 1.0, -4.0)
        return losses.active_passive(name, z, y)

    logits = jnp.asarray([[-300.0, 0, 0], [300.0, 0, 0], [0, 0, 0]])
    labels = jnp.zeros(3, jnp.int32)
    values = loss(logits, labels)
    grad = jax.grad(lambda z: loss(z, labels).sum())(logits)
    assert values.shape == (3,) and values.dtype == jnp.float32
    assert np.isfinite(values).all() and np.isfinite(grad).all()
    # A wrong and certain prediction costs most, a right and certain one least.
    assert values[0] > values[2] > values[1] >= 0


def test_dmi_of_a_class_without_rows_has_a_gradient():
    value, grad = jax.value_and_grad(losses.dmi)(LOGITS, LABELS % 2)
    np.testing.assert_allclose(value, -np.log(1e-3), rtol=1e-5)
    assert np.isfinite(grad).all()


def test_coteaching_that_forgets_everything_keeps_one_row():
    own = np.asarray(losses.cross_entropy(LOGITS, LABELS))
    others = np.asarray(losses.cross_entropy(LOGITS[::-1], LABELS))
    first, _ = losses.coteaching(LOGITS, LOGITS[::-1], LABELS, 1.0)
    close(first, own[others.argmin()])


# --- early-learning regularisation ------------------------------------------


def test_elr_moves_a_sample_that_comes_twice_by_the_mean():
    running = jnp.full((5, 4), 0.25)
    index = jnp.asarray([1, 3, 1, 0, 2, 3])
    moved = losses.elr_update(running, index, LOGITS, 0.9)
    close(moved[4], running[4])
    mean = (PROBS[0] + PROBS[2]) / 2
    close(moved[1], 0.9 * 0.25 + 0.1 * mean, rtol=1e-3)
    close(moved[0], 0.9 * 0.25 + 0.1 * PROBS[3], rtol=1e-3)


def test_early_learning():
    targets = jnp.asarray(PROBS[::-1].copy(), jnp.float32)
    expected = np.log(1 - (PROBS * PROBS[::-1]).sum(-1))
    close(losses.early_learning(LOGITS, targets), expected, 1e-3)
    sure = jnp.asarray([[200.0, 0, 0, 0]])
    value, grad = jax.value_and_grad(
        lambda z: losses.early_learning(z, jnp.eye(4)[:1]).sum()
    )(sure)
    assert np.isfinite(value) and np.isfinite(grad).all()


# --- long tails -------------------------------------------------------------


def test_logit_adjustment():
    counts = np.array([10, 5, 2, 1])
    one = losses.logit_adjusted(LOGITS, LABELS, counts, 1.0)
    close(one, losses.balanced_softmax(LOGITS, LABELS, counts))
    none = losses.logit_adjusted(LOGITS, LABELS, counts, 0.0)
    close(none, losses.cross_entropy(LOGITS, LABELS))


def test_an_empty_class_counts_as_one_sample():
    margins = losses.ldam_margins(np.array([16, 1, 0, 81]), 0.5)
    close(margins, [0.25, 0.5, 0.5, 0.5 / 3])
    weights = losses.effective_weights([1000, 10, 0], 0.99)
    close(weights.sum(), 3)
    close(weights[2] / weights[1], (1 - 0.99**10) / (1 - 0.99))


def test_cosines_of_a_zero_row_have_a_gradient():
    features = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    kernel = jnp.asarray([[2.0, 0.0], [0.0, 5.0]])
    close(losses.cosines(features, kernel), [[0.6, 0.8], [0, 0]])
    grad = jax.jit(jax.grad(lambda f: losses.cosines(f, kernel)[:, 0].sum()))
    assert np.isfinite(grad(features)).all()


def test_tau_normalisation_keeps_a_zero_column():
    kernel = jnp.asarray([[3.0, 0.0], [4.0, 0.0]])
    close(losses.tau_normalised(kernel, 1.0), [[0.6, 0], [0.8, 0]])
