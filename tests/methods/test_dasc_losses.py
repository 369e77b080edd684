"""DaSC's targets, semi-supervised loss and the switches of both."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.losses import mixmatch
from jaxnlt.methods import dasc
from tests.methods import toy
from tests.methods.dasc_case import (
    MEMORY,
    OWN,
    PEER,
    SIZE,
    carry,
    make,
    project,
    semi_case,
    semi_loss,
    stacked,
    valid,
)


@pytest.fixture(scope="module")
def reference():
    return semi_loss(make())


# Targets ---------------------------------------------------------------------


def test_targets_use_the_conventional_heads_for_u_and_all_four_for_x():
    batch = semi_case()["batch"]
    x, u = batch.x, batch.u
    net = base.Net(toy.apply, [], PEER)
    targets_x, targets_u = make(sharpen_temperature=0.5).targets(
        net, OWN["params"], x, u
    )

    def probs(variables, images, head):
        out = toy.apply(variables, images, (head,), False)[0]
        return selection.softmax(out[head])

    def sharp(p):
        return p**2 / (p**2).sum(-1, keepdims=True)

    third = u.views[2]
    mean_u = (probs(OWN, third, "logits") + probs(PEER, third, "logits")) / 2
    np.testing.assert_allclose(targets_u, sharp(mean_u), rtol=1e-5)
    mean_x = np.mean(
        [
            probs(variables, x.views[2], head)
            for variables in (OWN, PEER)
            for head in dasc.BOTH_HEADS
        ],
        axis=0,
    )
    weights = np.array([[0.9], [0.6]])
    refined = weights * np.eye(3)[[0, 2]] + (1 - weights) * mean_x
    np.testing.assert_allclose(targets_x, sharp(refined), rtol=1e-5)


def test_targets_have_no_gradient():
    batch = semi_case()["batch"]

    def total(params):
        net = base.Net(toy.apply, [], PEER)
        targets = make().targets(net, params, batch.x, batch.u)
        return sum(jnp.sum(t**2) for t in targets)

    for grad in jax.tree.leaves(jax.grad(total)(OWN["params"])):
        np.testing.assert_array_equal(grad, np.zeros_like(grad))


def test_guesses_and_losses_each_move_the_statistics(reference):
    *_, passes = reference
    both = dasc.BOTH_HEADS
    assert passes == [
        (("logits",), SIZE),  # u, guessed
        (both, SIZE),  # x, guessed
        ((*both, "projection"), 4 * SIZE),  # mixed
        (("projection", "prototypes"), 4 * SIZE),  # un-mixed
    ]


# Semi-supervised loss --------------------------------------------------------


def test_semi_loss_is_the_weighted_sum_of_its_terms(reference):
    total, _, terms, _ = reference
    weights = {
        "loss_ce": 1,
        "loss_balanced_ce": 1,
        "loss_mse": terms["lambda_u"],
        "loss_balanced_mse": terms["lambda_u"],
        "loss_penalty": 1,
        "loss_contrast": 0.5,
        "loss_midl": 0.3,
    }
    assert set(terms) == {*weights, "lambda_u"}
    expected = sum(weight * terms[name] for name, weight in weights.items())
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert all(terms[name] != 0 for name in weights)


def test_ramp_counts_batches_of_the_released_epoch(reference):
    """Epoch 17 + batch 1 of 7 // 2 + 1, from epoch 15, over 8 epochs."""
    terms = reference[2]
    np.testing.assert_allclose(
        terms["lambda_u"], 25 * (17 + 1 / 4 - 15) / 8, rtol=1e-6
    )


def test_mixmatch_terms_are_those_of_the_mixed_batch(reference):
    terms = reference[2]
    images, targets = stacked()
    draws = semi_case()["draws"]
    mix = (draws.coefficient, draws.permutation)
    out = toy.apply(OWN, mixmatch.mixup(images, *mix), dasc.BOTH_HEADS, False)[
        0
    ]
    mixed = mixmatch.mixup(targets, *mix)
    prior = jnp.log(jnp.asarray([4, 2, 1]) / 7)
    plain = mixmatch.terms(out["logits"], mixed, 2 * SIZE)
    balanced = mixmatch.terms(out["balanced"], mixed, 2 * SIZE, prior)
    names = ("loss_ce", "loss_mse", "loss_balanced_ce", "loss_balanced_mse")
    for name, value in zip(names, (*plain, *balanced), strict=True):
        np.testing.assert_allclose(terms[name], value, rtol=1e-5)
    np.testing.assert_allclose(
        terms["loss_penalty"], losses.prior_penalty(out["logits"]), rtol=1e-5
    )


def test_contrast_takes_plain_rows_and_confident_anchors(reference):
    images, targets = stacked()
    confident = np.asarray(targets.max(-1) > 0.8)
    assert confident.any() and not confident.all()
    out = toy.apply(OWN, images, ("projection", "prototypes"), False)[0]
    values = losses.class_balanced_contrastive(
        out["projection"], targets, out["prototypes"], 0.1
    )
    np.testing.assert_allclose(
        reference[2]["loss_contrast"], values[confident].mean(), rtol=1e-5
    )


def test_nothing_unlabelled_weighs_nothing(reference):
    total, _, terms, _ = semi_loss(make(), num_unlabelled=jnp.float32(0))
    lost = terms["lambda_u"] * (terms["loss_mse"] + terms["loss_balanced_mse"])
    np.testing.assert_allclose(total, reference[0] - lost, rtol=1e-5)


def test_emptied_class_keeps_the_loss_finite():
    total, *_ = semi_loss(make(), counts=jnp.asarray([6.0, 0, 1]))
    assert np.isfinite(total)


def test_without_confident_and_without_unsure_rows():
    total, _, terms, _ = semi_loss(make(confidence_threshold=1.0))
    assert terms["loss_contrast"] == 0 and terms["loss_midl"] > 0
    assert np.isfinite(total)
    total, _, terms, _ = semi_loss(make(confidence_threshold=0.0))
    assert terms["loss_contrast"] > 0 and terms["loss_midl"] == 0
    assert np.isfinite(total)


def test_confidence_is_strict_on_both_sides():
    above, below = dasc.confidence(np.array([0.8, 0.9, 0.95]), 0.9)
    assert above.tolist() == [False, False, True]
    assert below.tolist() == [True, False, False]


# Switches --------------------------------------------------------------------


def test_prior_penalty_switch(reference):
    total, _, terms, _ = semi_loss(make(prior_penalty=False))
    assert "loss_penalty" not in terms
    expected = reference[0] - reference[2]["loss_penalty"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_contrast_switch():
    total, after, terms, passes = semi_loss(make(contrast=False, midl=False))
    assert not {"loss_contrast", "loss_midl"} & set(terms)
    assert len(passes) == 3 and after.fill == 3
    assert passes[-1] == (dasc.BOTH_HEADS, 4 * SIZE)


def test_midl_switch(reference):
    total, after, terms, _ = semi_loss(make(midl=False))
    assert "loss_midl" not in terms and after.fill == 3
    expected = reference[0] - 0.3 * reference[2]["loss_midl"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@pytest.mark.parametrize("label", ["zero", "arange"])
def test_midl_label(label):
    images, targets = stacked()
    rows = project(images)
    first, second = np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7])
    memory = carry()
    expected = losses.info_nce(
        rows[first],
        rows[second],
        memory.rows,
        memory.fill,
        0.5,
        jnp.arange(4) * (label == "arange"),
    )
    unsure = np.asarray(targets.max(-1) < 0.8)[first]
    assert unsure[1:].any()
    value = semi_loss(make(midl_label=label))[2]["loss_midl"]
    np.testing.assert_allclose(value, expected[unsure].mean(), rtol=1e-5)


def test_midl_label_is_all_that_it_changes(reference):
    terms = semi_loss(make(midl_label="arange"))[2]
    changed = {name for name in terms if terms[name] != reference[2][name]}
    assert changed == {"loss_midl"}


def test_memory_takes_second_views_of_the_mixed_batch(reference):
    images, _ = stacked()
    draws = semi_case()["draws"]
    mixed = mixmatch.mixup(images, draws.coefficient, draws.permutation)
    rows = np.array([2, 3, 6, 7])
    expected = np.concatenate([valid(carry()), project(mixed)[rows]])
    np.testing.assert_allclose(
        valid(reference[1]), expected[-MEMORY:], rtol=1e-4, atol=1e-6
    )


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
