"""Losses against noise and long tails, against their closed forms."""

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


@pytest.mark.parametrize("detached", [False, True])
def test_focal(detached):
    def focal(z, gamma=2.0):
        return losses.focal(z, LABELS, gamma, detached)

    factor = (1 - OWN) ** 2
    close(focal(LOGITS), -factor * np.log(OWN))
    close(focal(LOGITS, 0.0), losses.cross_entropy(LOGITS, LABELS))
    grad = jax.grad(lambda z: focal(z).sum())(LOGITS)
    plain = jax.grad(lambda z: losses.cross_entropy(z, LABELS).sum())(LOGITS)
    gap = np.abs(grad - factor[:, None] * plain).max()
    assert gap < 1e-5 if detached else gap > 0.1


def test_generalised_cross_entropy():
    for q in (0.7, 1.0):
        value = losses.generalised_cross_entropy(LOGITS, LABELS, q)
        close(value, (1 - OWN**q) / q)
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


def test_mean_absolute_and_reverse_cross_entropy():
    close(losses.mean_absolute_error(LOGITS, LABELS), 1 - OWN)
    reverse = losses.reverse_cross_entropy(LOGITS, LABELS)
    close(reverse, 9.21034037 * (1 - OWN))
    # A probability below 1e-7 counts as 1e-7.
    sure = jnp.asarray([[60.0, 0.0, 0.0]])
    floor = losses.reverse_cross_entropy(sure, jnp.asarray([0]))
    np.testing.assert_allclose(floor, 2e-7 * 9.21034037, rtol=1e-4)


@pytest.mark.parametrize(
    "name, plain", [("nce", "ce"), ("nrce", "rce"), ("ngce", "gce")]
)
def test_a_normalised_loss_is_its_share_of_all_labels(name, plain):
    """Ma et al. 2020, eq. 4: L(y) over the sum of L(k) over all classes."""
    every = [jnp.full(6, k) for k in range(4)]
    total = sum(losses.active_passive(plain, LOGITS, y) for y in every)
    share = losses.active_passive(plain, LOGITS, LABELS) / total
    close(losses.active_passive(name, LOGITS, LABELS), share)


def test_normalised_focal_and_absolute_error():
    every = [losses.focal(LOGITS, jnp.full(6, k), 1.5, True) for k in range(4)]
    share = losses.focal(LOGITS, LABELS, 1.5, True) / sum(every)
    close(losses.normalised_focal(LOGITS, LABELS, 1.5), share)
    close(losses.active_passive("nmae", LOGITS, LABELS), (1 - OWN) / 6)


def test_two_losses_are_weighted():
    value = losses.active_passive("nce_rce", LOGITS, LABELS, (10.0, 0.1))
    active = np.log(OWN) / np.log(PROBS).sum(1)
    close(value, 10 * active + 0.1 * 9.21034037 * (1 - OWN))
    value = losses.active_passive(
        "ngce_nfl", LOGITS, LABELS, (1.0, 2.0), q=0.3, gamma=1.5
    )
    first = losses.normalised_generalised_cross_entropy(LOGITS, LABELS, 0.3)
    close(value, first + 2 * losses.normalised_focal(LOGITS, LABELS, 1.5))
    with pytest.raises(KeyError, match="nlnl"):
        losses.active_passive("nlnl_mae", LOGITS, LABELS)


@pytest.mark.parametrize("name", [*SHORT, "focal", "sce"])
def test_saturated_and_even_predictions_stay_finite(name):
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


# --- of a batch -------------------------------------------------------------


def test_dmi():
    logits = jnp.asarray(RNG.normal(size=(12, 3)), jnp.float32)
    labels = np.arange(12) % 3
    probs = np.asarray(jax.nn.softmax(logits))
    joint = np.array([probs[labels == c].sum(0) for c in range(3)])
    expected = -np.log(abs(np.linalg.det(joint)) + 1e-3)
    close(losses.dmi(logits, jnp.asarray(labels)), expected, 1e-4)
    # A class without rows: no information, and no NaN.
    value, grad = jax.value_and_grad(losses.dmi)(
        logits, jnp.asarray(labels % 2)
    )
    np.testing.assert_allclose(value, -np.log(1e-3), rtol=1e-5)
    assert np.isfinite(grad).all()


def test_coteaching_exchanges_the_easy_rows():
    other = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    own = np.asarray(losses.cross_entropy(LOGITS, LABELS))
    others = np.asarray(losses.cross_entropy(other, LABELS))
    first, second = losses.coteaching(LOGITS, other, LABELS, 0.5)
    close(first, own[np.argsort(others)[:3]].mean())
    close(second, others[np.argsort(own)[:3]].mean())
    # Forgetting everything keeps one row: a mean of none would be NaN.
    first, _ = losses.coteaching(LOGITS, other, LABELS, 1.0)
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


def test_ldam():
    margins = losses.ldam_margins(np.array([16, 1, 0, 81]), 0.5)
    close(margins, [0.25, 0.5, 0.5, 0.5 / 3])
    z = np.array(LOGITS)
    z[np.arange(6), LABELS] -= np.asarray(margins)[LABELS]
    close(
        losses.ldam(LOGITS, LABELS, margins, 3.0),
        losses.cross_entropy(jnp.asarray(3 * z), LABELS),
    )


def test_effective_weights():
    close(losses.effective_weights([5, 2, 9], 0.0), [1, 1, 1])
    weights = losses.effective_weights([1000, 10, 0], 0.99)
    close(weights.sum(), 3)
    close(weights[2] / weights[1], (1 - 0.99**10) / (1 - 0.99))


def test_cosines_of_a_zero_row_have_a_gradient():
    features = jnp.asarray([[3.0, 4.0], [0.0, 0.0]])
    kernel = jnp.asarray([[2.0, 0.0], [0.0, 5.0]])
    close(losses.cosines(features, kernel), [[0.6, 0.8], [0, 0]])
    grad = jax.grad(lambda f: losses.cosines(f, kernel)[:, 0].sum())
    assert np.isfinite(grad(features)).all()


def test_tau_normalised():
    kernel = jnp.asarray([[3.0, 0.0], [4.0, 0.0]])
    close(losses.tau_normalised(kernel, 1.0), [[0.6, 0], [0.8, 0]])
    close(losses.tau_normalised(kernel, 0.0), kernel)
