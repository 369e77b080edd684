"""H2E's pieces: closed forms, edge cases, samplers of the environments."""

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import losses
from jaxnlt.data import sampling
from jaxnlt.methods import h2e
from jaxnlt.runtime import errors
from jaxnlt.runtime.errors import UserError

RNG = np.random.default_rng(0)
LOGITS = jnp.asarray(RNG.normal(size=(6, 4)), jnp.float32)
LABELS = jnp.asarray([0, 3, 1, 2, 2, 0])


def close(actual, expected, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


def test_penalty_is_the_squared_gradient_of_the_scales():
    def risk(scales):
        return losses.cross_entropy(LOGITS * scales, LABELS).mean()

    slope = jax.grad(risk)(jnp.ones(4))
    close(h2e.penalty(LOGITS, LABELS), (slope**2).sum())
    # One scale a class, not one for all.
    assert abs(h2e.penalty(LOGITS, LABELS) - slope.sum() ** 2) > 1e-3
    value, grad = jax.value_and_grad(h2e.penalty)(jnp.zeros((3, 4)), LABELS[:3])
    assert value == 0
    np.testing.assert_array_equal(grad, np.zeros((3, 4)))


def test_log_prior():
    prior = np.array([0.5, 0.3, 0.2])
    tau = np.array([1.0, 0.0, 2.5])
    close(losses.prior_adjustment(prior, tau), tau * np.log(prior))
    assert losses.prior_adjustment(prior, tau).dtype == np.float64
    on_device = losses.prior_adjustment(prior, jnp.asarray(tau, jnp.float32))
    assert on_device.dtype == jnp.float32
    close(on_device, tau * np.log(prior))
    grad = jax.grad(lambda t: losses.prior_adjustment(prior, t).sum())(
        jnp.asarray(tau, jnp.float32)
    )
    close(grad, np.log(prior))


def test_a_prior_of_zero_has_a_value_and_a_gradient():
    prior, tau = np.array([1.0, 0.0, 0.0]), np.array([1.0, 1.0, 0.0])
    close(losses.prior_adjustment(prior, tau), [0, np.log(1e-12), 0])
    # An exponent that trains may become negative.
    for exponents in (tau, -tau):
        grad = jax.grad(lambda t: losses.prior_adjustment(prior, t).sum())(
            jnp.asarray(exponents, jnp.float32)
        )
        assert np.isfinite(grad).all()


def test_an_empty_class_counts_as_one_sample(caplog):
    with caplog.at_level(logging.WARNING, errors.logger.name):
        prior = losses.class_prior(np.array([6, 0, 3]))
    close(prior, [6 / 9, 1 / 9, 3 / 9])
    assert "1 classes hold no samples" in caplog.text
    close(losses.class_prior(np.array([0, 0])), [1, 1])
    # So that nobody is predicted to be in it for the want of a prior.
    logits = np.array([[3.0, 0.0, 1.0]])
    adjusted = logits - losses.prior_adjustment(prior, np.ones(3))
    assert adjusted.argmax() != 1


def weights_of(confidences, agree):
    """Weights of rows with the given confidence in class 0 of two."""
    p = np.asarray(confidences)
    logits = np.log(np.stack([p, 1 - p], 1))
    labels = np.where(agree, 0, 1)
    return h2e.instance_weights(logits, labels)


def test_weights_map_all_agreeing_confidences_at_once():
    weights, flagged = weights_of([0.6, 0.7, 0.9, 0.8], [1, 1, 1, 0])
    close(weights, [0.5, 0.5 + 0.5 / 3, 1, 0.01])
    assert weights[0] == 0.5 and weights[2] == 1 and weights[3] == 0.01
    assert flagged.tolist() == [False, False, False, True]
    assert weights.dtype == np.float64 and flagged.dtype == bool
    # Over the whole data: a class of low confidence gets low weights only.
    logits = np.array([[1.0, 0, 0], [1.2, 0, 0], [0, 5.0, 0], [0, 6.0, 0]])
    weights, _ = h2e.instance_weights(logits, np.array([0, 0, 1, 1]))
    assert (weights[:2] < 0.6).all() and (weights[2:] > 0.98).all()


@pytest.mark.parametrize("confidences", [[0.7], [0.7, 0.7, 0.7]])
def test_equal_confidences_weigh_a_half(confidences):
    weights, flagged = weights_of(confidences, [1] * len(confidences))
    np.testing.assert_array_equal(weights, np.full(len(confidences), 0.5))
    assert not flagged.any()


def test_confidences_equal_up_to_rounding_are_equal():
    row = RNG.normal(size=12)
    logits = np.stack([RNG.permutation(row) for _ in range(40)])
    sums = np.exp(logits - row.max()).sum(1)
    assert len(np.unique(sums)) > 1  # by the order of the terms
    weights, _ = h2e.instance_weights(logits, logits.argmax(1))
    np.testing.assert_array_equal(weights, np.full(40, 0.5))


def test_no_agreeing_sample(caplog):
    with caplog.at_level(logging.WARNING, errors.logger.name):
        weights, flagged = weights_of([0.7, 0.9], [0, 0])
    np.testing.assert_array_equal(weights, [0.01, 0.01])
    assert flagged.all()
    assert "confirms none of 2 labels" in caplog.text


def test_weights_of_huge_logits():
    logits = np.array([[4000.0, 0], [2000.0, 1990.0], [0, 4000.0]])
    weights, _ = h2e.instance_weights(logits, np.array([0, 0, 0]))
    close(weights, [1, 0.5, 0.01])


def test_a_flagged_batch_weighs_as_much_as_any():
    ce = np.asarray(losses.cross_entropy(LOGITS, LABELS))
    weights = np.array([1, 0.5, 0.01, 0.7, 0.01, 0.6])
    value = h2e.normalised_weighted_ce(LOGITS, LABELS, weights)
    close(value, (weights * ce).sum() / weights.sum())
    flagged = h2e.normalised_weighted_ce(LOGITS, LABELS, np.full(6, 0.01))
    close(flagged, ce.mean())


def test_class_scores_sum_to_one_in_their_class(caplog):
    labels = np.array([0, 0, 0, 2, 2, 3])
    scores = np.array([1.0, 2.0, 1.0, 0.0, 0.0, 0.3])
    with caplog.at_level(logging.WARNING, errors.logger.name):
        found = h2e.class_scores(labels, scores)
    close(found, [0.25, 0.5, 0.25, 0.5, 0.5, 1])
    assert "1 classes have scores of 0 only" in caplog.text
    for wrong in (-0.1, np.nan, np.inf):
        with pytest.raises(UserError, match="1 are not"):
            h2e.class_scores(labels, np.where(labels == 3, wrong, scores))


def test_mixing_shares():
    scores = jnp.asarray([1.0, 3.0, 0.0, 0.0])
    own, other = h2e.mixing_shares(scores, jnp.asarray([1, 0, 3, 2]))
    close(own, [0.25, 0.75, 0.5, 0.5])
    close(own + other, np.ones(4))
    # A tail image keeps nearly all beside a head image.
    head, tail = 1 / 1000, 1 / 50
    own, _ = h2e.mixing_shares(jnp.asarray([head, tail]), jnp.asarray([1, 0]))
    close(own, [1 / 21, 20 / 21])


def test_rates():
    rates = [h2e.cosine_rate(0.2, epoch, 180) for epoch in (0, 90, 179)]
    close(rates, [0.2, 0.1, 0.2 * np.sin(np.pi / 360) ** 2])
    rates = [h2e.step_rate(0.001, epoch) for epoch in (0, 4, 5, 14)]
    close(rates, [0.001, 0.001, 0.0009, 0.00081], 1e-12)


# --- environments -----------------------------------------------------------

GIVEN = np.repeat(np.arange(5), (60, 0, 30, 9, 1))


def test_environments_draw_classes_by_their_exponent():
    rng = np.random.default_rng(0)
    index = np.flatnonzero(GIVEN != 3)
    inverse = np.array([1 / 60, 0, 1 / 30, 0, 1])
    expected = {
        -1.0: inverse / inverse.sum(),
        0.0: np.array([1, 0, 1, 0, 1]) / 3,
        1.0: np.array([60, 0, 30, 0, 1]) / 91,
    }
    for exponent, share in expected.items():
        rows = sampling.independent(index, GIVEN, exponent, 50, 400, rng)
        assert rows.shape == (50, 400) and rows.dtype == np.int32
        assert np.isin(rows, index).all()
        found = np.bincount(GIVEN[rows.reshape(-1)], minlength=5) / rows.size
        np.testing.assert_allclose(found, share, atol=0.02)
    # Within a class every row is as likely as any other.
    rows = sampling.independent(index, GIVEN, 0.0, 60, 600, rng).reshape(-1)
    times = np.bincount(rows, minlength=len(GIVEN))[GIVEN == 2]
    np.testing.assert_allclose(times / times.mean(), 1, atol=0.2)


def test_reversed_quota():
    counts = np.bincount(GIVEN)
    rng = np.random.default_rng(0)
    exponent = sampling.EXPONENTS["reversed"]
    quota = sampling.class_quota(counts, exponent, 1000, rng)
    inverse = np.array([1 / 60, 0, 1 / 30, 1 / 9, 1])
    assert np.abs(quota - 1000 * inverse / inverse.sum()).max() <= 1


def test_drawn_classes_at_the_steps():
    weights = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    uniform = np.array([0.0, 0.25, 0.2500001, 0.9999999])
    drawn = sampling.drawn_classes(weights, uniform)
    assert drawn.tolist() == [1, 1, 3, 3]


def test_class_aware_groups():
    rng = np.random.default_rng(3)
    rows = sampling.class_aware(np.arange(len(GIVEN)), GIVEN, 4, 7, 10, rng)
    assert rows.shape == (7, 10) and rows.dtype == np.int32
    flat = rows.reshape(-1)
    classes = GIVEN[flat[:68]].reshape(-1, 4)
    assert (classes == classes[:, :1]).all()
    order = classes[:, 0]
    assert (np.sort(order[:16].reshape(4, 4)) == [0, 2, 3, 4]).all()
    times = np.bincount(flat, minlength=len(GIVEN))
    for c in (0, 2, 3):
        assert np.ptp(times[c == GIVEN]) <= 1
