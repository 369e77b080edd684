"""DivideMix's pieces on numbers small enough for the head."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.losses import mixmatch


def test_mean_probs_averages_probabilities_not_logits():
    logits = [jnp.asarray([[0.0, math.log(3)]]), jnp.asarray([[0.0, 0.0]])]
    np.testing.assert_allclose(
        mixmatch.mean_probs(logits), [[3 / 8, 5 / 8]], rtol=1e-6
    )


def test_mean_probs_has_no_gradient():
    grad = jax.grad(lambda z: mixmatch.mean_probs([z, z])[0, 0])(
        jnp.ones((1, 2))
    )
    np.testing.assert_array_equal(grad, np.zeros((1, 2)))


def test_refine_trusts_the_label_by_its_weight():
    refined = mixmatch.refine(
        jnp.asarray([0, 1, 1]),
        jnp.asarray([[0.2, 0.8], [0.6, 0.4], [0.6, 0.4]]),
        jnp.asarray([0.25, 1, 0]),
    )
    expected = [[0.25 + 0.75 * 0.2, 0.75 * 0.8], [0, 1], [0.6, 0.4]]
    np.testing.assert_allclose(refined, expected, rtol=1e-6)


def test_sharpen_raises_to_one_over_temperature():
    probs = jnp.asarray([[0.2, 0.8], [1.0, 0.0]])
    np.testing.assert_allclose(
        mixmatch.sharpen(probs, 0.5),
        [[0.04 / 0.68, 0.64 / 0.68], [1, 0]],
        rtol=1e-6,
    )
    np.testing.assert_allclose(mixmatch.sharpen(probs, 1.0), probs, rtol=1e-6)


def test_mixup_adds_the_partner():
    values = jnp.asarray([[0.0, 1.0], [10.0, 0.0], [100.0, 0.0]])
    mixed = mixmatch.mixup(values, 0.75, jnp.asarray([1, 2, 0]))
    np.testing.assert_allclose(mixed, [[2.5, 0.75], [32.5, 0], [75, 0.25]])
    images = jnp.stack([jnp.zeros((2, 2, 1)), jnp.ones((2, 2, 1))])
    swapped = mixmatch.mixup(images, 0.0, jnp.asarray([1, 0]))
    np.testing.assert_array_equal(swapped, images[::-1])


@pytest.mark.parametrize("drawn", [0.25, 0.75])
def test_mixup_draws_fold_keeps_a_row_near_itself(monkeypatch, drawn):
    def beta(key, a, b):
        assert a == b == 4.0
        return jnp.float32(drawn)  # one for the whole batch

    monkeypatch.setattr(jax.random, "beta", beta)
    key = jax.random.key(0)
    folded = mixmatch.mixup_draws(key, 4.0, 6)
    plain = mixmatch.mixup_draws(key, 4.0, 6, folded=False)
    assert folded.coefficient == 0.75
    assert plain.coefficient == drawn
    np.testing.assert_array_equal(np.sort(folded.permutation), np.arange(6))
    assert (folded.permutation != np.arange(6)).any()


def test_ramp_is_zero_before_and_one_after():
    epochs = jnp.asarray([0.0, 30, 34, 38.5, 46, 100])
    np.testing.assert_allclose(
        mixmatch.ramp(epochs, 30, 16), [0, 0, 0.25, 8.5 / 16, 1, 1]
    )


def test_terms_split_at_the_labelled_rows():
    logits = jnp.asarray([[0.0, math.log(3)]] * 2 + [[0.0, 0.0]] * 3)
    targets = jnp.asarray([[1.0, 0], [0, 1], [1, 0], [0.5, 0.5], [0.5, 0.5]])
    labelled, unlabelled = mixmatch.terms(logits, targets, 2)
    np.testing.assert_allclose(
        labelled, (math.log(4) + math.log(4 / 3)) / 2, rtol=1e-6
    )
    # Mean over three rows and two classes.
    np.testing.assert_allclose(unlabelled, 2 * 0.25 / 6, rtol=1e-6)


def test_terms_add_the_prior_to_both_sides():
    prior = jnp.log(jnp.asarray([0.25, 0.75]))
    labelled, unlabelled = mixmatch.terms(
        jnp.zeros((2, 2)), jnp.asarray([[1.0, 0], [0.25, 0.75]]), 1, prior
    )
    np.testing.assert_allclose(labelled, math.log(4), rtol=1e-6)
    np.testing.assert_allclose(unlabelled, 0, atol=1e-7)
