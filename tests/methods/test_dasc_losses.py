"""DaSC's semi-supervised loss and its switches."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.methods import dasc
from tests.methods.dasc_case import (
    MEMORY,
    SIZE,
    make,
    project,
    semi_loss,
    stacked,
    valid,
)


@pytest.fixture(scope="module")
def reference():
    return semi_loss(make())


def test_guesses_and_losses_each_move_the_statistics(reference):
    *_, passes = reference
    both = dasc.BOTH_HEADS
    assert passes == [
        (("logits",), SIZE),  # u, guessed
        (both, SIZE),  # x, guessed
        ((*both, "projection"), 4 * SIZE),  # mixed
        (("projection", "prototypes"), 4 * SIZE),  # un-mixed
    ]


def test_ramp_counts_batches_of_the_released_epoch(reference):
    """Epoch 17 + batch 1 of 7 // 2 + 1, from epoch 15, over 8 epochs."""
    terms = reference[2]
    np.testing.assert_allclose(
        terms["lambda_u"], 25 * (17 + 1 / 4 - 15) / 8, rtol=1e-6
    )


def test_nothing_unlabelled_weighs_nothing(reference):
    total, _, terms, _ = semi_loss(make(), num_unlabelled=jnp.float32(0))
    lost = terms["lambda_u"] * (terms["loss_mse"] + terms["loss_balanced_mse"])
    np.testing.assert_allclose(total, reference[0] - lost, rtol=1e-5)


def test_emptied_class_keeps_the_loss_finite():
    total, *_ = semi_loss(make(), counts=jnp.asarray([6.0, 0, 1]))
    assert np.isfinite(total)


def test_without_confident_and_without_unsure_rows():
    for threshold, confident in ((1.0, False), (0.0, True)):
        made = make(confidence_threshold=threshold)
        total, _, terms, _ = semi_loss(made)
        assert (terms["loss_contrast"] > 0) == confident
        assert (terms["loss_midl"] == 0) == confident
        assert np.isfinite(total)


def test_confidence_is_strict_on_both_sides():
    above, below = dasc.confidence(np.array([0.8, 0.9, 0.95]), 0.9)
    assert above.tolist() == [False, False, True]
    assert below.tolist() == [True, False, False]


# Switches --------------------------------------------------------------------


@pytest.mark.parametrize(
    "switch, term, weight",
    [("prior_penalty", "loss_penalty", 1), ("midl", "loss_midl", 0.3)],
)
def test_a_term_is_switched_off(reference, switch, term, weight):
    total, after, terms, _ = semi_loss(make(**{switch: False}))
    assert term not in terms
    expected = reference[0] - weight * reference[2][term]
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert after.fill == (3 if switch == "midl" else MEMORY)


def test_contrast_switch():
    _, after, terms, passes = semi_loss(make(contrast=False, midl=False))
    assert not {"loss_contrast", "loss_midl"} & set(terms)
    assert len(passes) == 3 and after.fill == 3
    assert passes[-1] == (dasc.BOTH_HEADS, 4 * SIZE)


def test_midl_key_two_views_mixes_an_image_with_itself(reference):
    _, after, _, passes = semi_loss(make(midl_key="two_views"))
    images, _ = stacked()
    first, second = np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7])
    expected = project(0.7 * images[first] + 0.3 * images[second])
    np.testing.assert_allclose(
        valid(after)[-4:], expected, rtol=1e-4, atol=1e-6
    )
    assert passes == [*reference[3], (("projection",), 2 * SIZE)]


def test_memory_rows_low_confidence(reference):
    _, targets = stacked()
    keep = np.asarray(targets.max(-1) < 0.8)[np.array([2, 3, 6, 7])]
    assert 0 < keep.sum() < 4
    after = semi_loss(make(memory_rows="low_confidence"))[1]
    assert after.fill == min(MEMORY, 3 + keep.sum())
    np.testing.assert_array_equal(
        valid(after)[-keep.sum() :], valid(reference[1])[-4:][keep]
    )
