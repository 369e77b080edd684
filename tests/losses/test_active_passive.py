"""The active-passive family against closed forms, and at its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import losses
from jaxnlt.losses import active_passive

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(2 * RNG.normal(size=(6, 4)), jnp.float32)
LABELS = jnp.asarray([0, 3, 1, 2, 2, 0])
PROBS = np.asarray(jax.nn.softmax(LOGITS), np.float64)
OWN = PROBS[np.arange(6), np.asarray(LABELS)]
CLASSES = 4
EVERY = [jnp.full(6, k) for k in range(CLASSES)]


def close(actual, expected, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize(
    "normalised, plain",
    [
        (active_passive.normalised_cross_entropy, losses.cross_entropy),
        (
            active_passive.normalised_reverse_cross_entropy,
            active_passive.reverse_cross_entropy,
        ),
        (
            lambda z, y: active_passive.normalised_focal(z, y, 0.5),
            lambda z, y: active_passive.focal(z, y, 0.5),
        ),
        (
            lambda z, y: active_passive.normalised_generalised_cross_entropy(
                z, y, 0.7
            ),
            lambda z, y: active_passive.generalised_cross_entropy(z, y, 0.7),
        ),
    ],
)
def test_a_normalised_loss_is_its_share_of_all_labels(normalised, plain):
    """Ma et al. 2020, eq. 4: L(y) over the sum of L(k) over all classes."""
    total = sum(plain(LOGITS, labels) for labels in EVERY)
    close(normalised(LOGITS, LABELS), plain(LOGITS, LABELS) / total)
    close(sum(normalised(LOGITS, labels) for labels in EVERY), np.ones(6))


def test_absolute_errors():
    close(active_passive.mean_absolute_error(LOGITS, LABELS), 1 - OWN)
    close(
        active_passive.normalised_mean_absolute_error(LOGITS, LABELS),
        (1 - OWN) / 6,
    )


def test_reverse_cross_entropy():
    reverse = active_passive.reverse_cross_entropy(LOGITS, LABELS)
    close(reverse, 9.21034037 * (1 - OWN))
    slip = active_passive.normalised_reverse_cross_entropy(
        LOGITS, LABELS, as_released=True
    )
    close(slip, 0.75 * reverse)
    # A probability below 1e-7 counts as 1e-7.
    sure = jnp.asarray([[60.0, 0.0, 0.0]])
    floor = active_passive.reverse_cross_entropy(sure, jnp.asarray([0]))
    np.testing.assert_allclose(floor, 2e-7 * 9.21034037, rtol=1e-4)


def test_generalised_cross_entropy_stops_at_the_floor():
    value = active_passive.generalised_cross_entropy(LOGITS, LABELS, 0.7)
    close(value, (1 - OWN**0.7) / 0.7)
    wrong = jnp.asarray([[60.0, 0.0]])
    value, grad = jax.value_and_grad(
        lambda z: active_passive.generalised_cross_entropy(
            z, jnp.asarray([1]), 0.7
        )[0]
    )(wrong)
    np.testing.assert_allclose(value, (1 - 1e-7**0.7) / 0.7, rtol=1e-6)
    np.testing.assert_array_equal(grad, np.zeros((1, 2)))


def test_focal_does_not_train_its_factor():
    alpha = np.array([0.1, 1.0, 2.0, 0.0])
    value = active_passive.focal(LOGITS, LABELS, 2.0, alpha)
    factor = alpha[np.asarray(LABELS)] * (1 - OWN) ** 2
    close(value, -factor * np.log(OWN))
    grad = jax.grad(
        lambda z: active_passive.focal(z, LABELS, 2.0, alpha).sum()
    )(LOGITS)
    plain = jax.grad(lambda z: losses.cross_entropy(z, LABELS).sum())(LOGITS)
    close(grad, factor[:, None] * plain)
    through = jax.grad(lambda z: active_passive.focal(z, LABELS, 2.0).sum())
    assert np.abs(through(LOGITS) - grad).max() > 0.1


def test_combined():
    value = active_passive.combined(LOGITS, LABELS, "nce", "rce", 10.0, 0.1)
    active = np.log(OWN) / np.log(PROBS).sum(1)
    close(value, 10 * active + 0.1 * 9.21034037 * (1 - OWN))
    value = active_passive.combined(
        LOGITS, LABELS, "ngce", "nfl", 1.0, 2.0, q=0.3, gamma=1.5
    )
    active = active_passive.normalised_generalised_cross_entropy(
        LOGITS, LABELS, 0.3
    )
    passive = active_passive.normalised_focal(LOGITS, LABELS, 1.5)
    close(value, active + 2 * passive)
    with pytest.raises(KeyError, match="nrce"):
        active_passive.combined(LOGITS, LABELS, "nrce", "mae", 1.0, 1.0)


def test_dmi():
    logits = jnp.asarray(RNG.normal(size=(12, 3)), jnp.float32)
    labels = np.arange(12) % 3
    probs = np.asarray(jax.nn.softmax(logits))
    joint = np.array([probs[labels == c].sum(0) for c in range(3)])
    expected = -np.log(abs(np.linalg.det(joint)) + 1e-3)
    close(active_passive.dmi(logits, jnp.asarray(labels)), expected, 1e-4)
    # A class without rows: no information, and no NaN.
    value, grad = jax.value_and_grad(active_passive.dmi)(
        logits, jnp.asarray(labels % 2)
    )
    np.testing.assert_allclose(value, -np.log(1e-3), rtol=1e-5)
    assert np.isfinite(grad).all()


def test_coteaching_exchanges_the_easy_rows():
    other = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
    own = np.asarray(losses.cross_entropy(LOGITS, LABELS))
    others = np.asarray(losses.cross_entropy(other, LABELS))
    first, second = active_passive.coteaching(LOGITS, other, LABELS, 0.5)
    close(first, own[np.argsort(others)[:3]].mean())
    close(second, others[np.argsort(own)[:3]].mean())
    slipped = active_passive.coteaching(LOGITS, other, LABELS, 0.5, True)
    close(slipped, np.array([first, second]) / 3)
    # Forgetting everything keeps one row: a mean of none would be NaN.
    first, _ = active_passive.coteaching(LOGITS, other, LABELS, 1.0)
    close(first, own[others.argmin()])


ROW_LOSSES = {
    **{
        name: lambda z, y, name=name: active_passive.combined(
            z, y, name, "rce", 1.0, 0.0
        )
        for name in ("gce", "mae", "nce", "nfl", "ngce", "rce")
    },
    "nmae": active_passive.normalised_mean_absolute_error,
    "nrce": active_passive.normalised_reverse_cross_entropy,
    "focal": lambda z, y: active_passive.focal(z, y, 0.5),
}


@pytest.mark.parametrize("name", ROW_LOSSES)
def test_saturated_and_even_predictions_stay_finite(name):
    logits = jnp.asarray([[-300.0, 0, 0], [300.0, 0, 0], [0, 0, 0]])
    labels = jnp.zeros(3, jnp.int32)
    values = ROW_LOSSES[name](logits, labels)
    grad = jax.grad(lambda z: ROW_LOSSES[name](z, labels).sum())(logits)
    assert values.shape == (3,) and values.dtype == jnp.float32
    assert np.isfinite(values).all() and np.isfinite(grad).all()
    # Wrong and sure costs most, right and sure least.
    assert values[0] > values[2] > values[1] >= 0
