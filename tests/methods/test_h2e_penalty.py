"""H2E's pieces: edge cases, and the samplers of the environments."""

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


def close(actual, expected, rtol=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=1e-6)


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


def test_confidences_equal_up_to_rounding_are_equal():
    row = RNG.normal(size=12)
    logits = np.stack([RNG.permutation(row) for _ in range(40)])
    sums = np.exp(logits - row.max()).sum(1)
    assert len(np.unique(sums)) > 1  # by the order of the terms
    weights, _ = h2e.instance_weights(logits, logits.argmax(1))
    np.testing.assert_array_equal(weights, np.full(40, 0.5))


def test_no_agreeing_sample(caplog):
    with caplog.at_level(logging.WARNING, errors.logger.name):
        logits, labels = np.log([[0.7, 0.3], [0.9, 0.1]]), np.ones(2, int)
        weights, flagged = h2e.instance_weights(logits, labels)
    np.testing.assert_array_equal(weights, [0.01, 0.01])
    assert flagged.all()
    assert "confirms none of 2 labels" in caplog.text


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


def test_images_without_scores_share_alike():
    own, other = h2e.mixing_shares(jnp.zeros(2), jnp.asarray([1, 0]))
    close(own, [0.5, 0.5])
    close(other, [0.5, 0.5])


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


def test_no_class_of_weight_0_is_drawn():
    weights = np.array([0.0, 1.0, 0.0, 3.0, 0.0])
    uniform = np.array([0.0, 0.25, 0.2500001, 0.9999999])
    assert sampling.drawn_classes(weights, uniform).tolist() == [1, 1, 3, 3]


def test_class_aware_groups_skip_an_empty_class():
    rng = np.random.default_rng(3)
    rows = sampling.class_aware(np.arange(len(GIVEN)), GIVEN, 4, 7, 10, rng)
    assert rows.shape == (7, 10) and rows.dtype == np.int32
    order = GIVEN[rows.reshape(-1)[:64:4]].reshape(4, 4)
    assert (np.sort(order) == [0, 2, 3, 4]).all()
