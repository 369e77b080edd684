"""Losses against noise and long tails, against their closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import losses

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
LABELS = jnp.asarray([0, 3, 1, 2, 2, 0])
PROBS = np.asarray(jax.nn.softmax(LOGITS))
OWN = PROBS[np.arange(6), np.asarray(LABELS)]


def close(actual, expected, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


def test_focal():
    close(
        losses.focal(LOGITS, LABELS, 2.0),
        -((1 - OWN) ** 2) * np.log(OWN),
    )
    close(
        losses.focal(LOGITS, LABELS, 0.0),
        losses.cross_entropy(LOGITS, LABELS),
    )


def test_logit_adjustment():
    counts = np.array([10, 5, 2, 1])
    one = losses.logit_adjusted(LOGITS, LABELS, counts, 1.0)
    close(one, losses.balanced_softmax(LOGITS, LABELS, counts))
    none = losses.logit_adjusted(LOGITS, LABELS, counts, 0.0)
    close(none, losses.cross_entropy(LOGITS, LABELS))


def test_ldam():
    margins = losses.ldam_margins(np.array([16, 1, 0, 81]), 0.5)
    close(margins, [0.25, 0.5, 0.5, 0.5 / 3])
    z = np.asarray(LOGITS).copy()
    z[np.arange(6), LABELS] -= np.asarray(margins)[LABELS]
    close(
        losses.ldam(LOGITS, LABELS, margins, 3.0),
        losses.cross_entropy(jnp.asarray(3 * z), LABELS),
    )


def test_cosines_of_a_zero_row_have_a_gradient():
    features = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    kernel = jnp.asarray([[2.0, 0.0], [0.0, 5.0]])
    close(losses.cosines(features, kernel), [[0.6, 0.8], [0, 0]])
    grad = jax.grad(lambda f: losses.cosines(f, kernel)[:, 0].sum())
    assert np.isfinite(grad(features)).all()


def test_effective_weights():
    close(losses.effective_weights([5, 2, 9], 0.0), [1, 1, 1])
    weights = losses.effective_weights([1000, 10, 0], 0.99)
    close(weights.sum(), 3)
    close(weights[2] / weights[1], (1 - 0.99**10) / (1 - 0.99))


def test_weighted_mean():
    value = losses.weighted_mean(
        jnp.asarray([1.0, 4.0]), jnp.asarray([1.0, 3.0])
    )
    close(value, 13 / 4)


def test_generalised_cross_entropy():
    for q in (0.7, 1.0):
        close(
            losses.generalised_cross_entropy(LOGITS, LABELS, q),
            (1 - OWN**q) / q,
        )


def test_symmetric_cross_entropy():
    close(
        losses.symmetric_cross_entropy(LOGITS, LABELS, 0.1, 2.0, -4.0),
        -0.1 * np.log(OWN) + 8 * (1 - OWN),
    )


def test_elr_moves_a_sample_that_comes_twice_by_the_mean():
    running = jnp.full((5, 4), 0.25)
    index = jnp.asarray([1, 3, 1, 0, 2, 3])
    moved = losses.elr_update(running, index, LOGITS, 0.9)
    close(moved[4], running[4])
    mean = (PROBS[0] + PROBS[2]) / 2
    close(moved[1], 0.9 * 0.25 + 0.1 * mean, rtol=1e-3)
    close(moved[0], 0.9 * 0.25 + 0.1 * PROBS[3], rtol=1e-3)


def test_early_learning():
    targets = jnp.asarray(PROBS[::-1].copy())
    expected = np.log(1 - (PROBS * PROBS[::-1]).sum(-1))
    close(losses.early_learning(LOGITS, targets), expected)
    sure = jnp.asarray([[200.0, 0, 0, 0]])
    value, grad = jax.value_and_grad(
        lambda z: losses.early_learning(z, jnp.eye(4)[:1]).sum()
    )(sure)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_tau_normalised():
    kernel = jnp.asarray([[3.0, 0.0], [4.0, 0.0]])
    close(losses.tau_normalised(kernel, 1.0), [[0.6, 0], [0.8, 0]])
    close(losses.tau_normalised(kernel, 0.0), kernel)


@pytest.mark.parametrize(
    "loss",
    [
        lambda z: losses.focal(z, LABELS[:1], 0.5),
        lambda z: losses.generalised_cross_entropy(z, LABELS[:1], 0.7),
        lambda z: losses.symmetric_cross_entropy(z, LABELS[:1], 0.1, 1.0, -4.0),
    ],
)
@pytest.mark.parametrize("sign", [-200.0, 200.0])
def test_saturated_predictions_stay_finite(loss, sign):
    logits = jnp.asarray([[sign, 0.0, 0.0, 0.0]])
    value, grad = jax.value_and_grad(lambda z: loss(z).sum())(logits)
    assert np.isfinite(value) and np.isfinite(grad).all()
