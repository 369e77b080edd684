"""The confident joint and the two rules that flag labels."""

import numpy as np
import pytest

from jaxnlt.auditing import flags, joint

# Four samples of class 0, three of class 1; the last of each is wrong.
PROBS = np.array(
    [[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.1, 0.9]]
    + [[0.3, 0.7], [0.1, 0.9], [0.8, 0.2]]
)
LABELS = np.array([0, 0, 0, 0, 1, 1, 1])


def test_the_confident_joint_by_hand():
    thresholds = joint.class_thresholds(PROBS, LABELS)
    np.testing.assert_allclose(thresholds, [0.6, 0.6])
    found = joint.confident_classes(PROBS, thresholds)
    assert found.tolist() == [0, 0, 0, 1, 1, 1, 0]
    np.testing.assert_allclose(
        joint.confident_joint(PROBS, LABELS), [[3, 1], [1, 2]]
    )


def test_the_most_probable_of_several_confident_classes_counts():
    found = joint.confident_classes(
        np.array([[0.5, 0.4, 0.1], [0.3, 0.3, 0.4]]), np.array([0.3, 0.4, 0.9])
    )
    assert found.tolist() == [0, 0]
    nobody = joint.confident_classes(np.array([[0.5, 0.5]]), np.ones(2))
    assert nobody.tolist() == [-1]


def test_rows_keep_their_counts_and_a_class_without_evidence_its_labels():
    probs = np.array([[0.2, 0.8, 0.0], [0.9, 0.1, 0.0], [0.5, 0.5, 0.0]])
    found = joint.confident_joint(probs, np.array([0, 0, 2]))
    np.testing.assert_allclose(found.sum(1), [2, 0, 1])
    assert found[2, 2] == 1 and np.isfinite(found).all()


def test_pruning_takes_the_largest_margins_of_each_pair():
    joint_of = np.array([[2.0, 2.4], [0.0, 3.0]])
    found = joint.prune(PROBS, LABELS, joint_of)
    assert np.flatnonzero(found).tolist() == [2, 3]


def clean(rng, counts=(60, 30, 10), sure=0.8):
    """Labels that are right, and what networks say of them."""
    labels = np.repeat(np.arange(3), counts)
    own = np.clip(rng.normal(sure, 0.1, len(labels)), 0.4, 0.99)
    probs = np.full((len(labels), 3), 1.0) * ((1 - own) / 2)[:, None]
    probs[np.arange(len(labels)), labels] = own
    return labels, probs


def test_rare_samples_that_look_like_a_large_class_are_left_alone():
    labels, probs = clean(np.random.default_rng(0))
    probs[-3:] = [0.5, 0.1, 0.4]
    assert not flags.learnt(probs, labels).any()


def test_wrong_labels_are_found_and_drag_unsure_ones_along():
    labels, probs = clean(np.random.default_rng(0))
    probs[-1] = [0.85, 0.05, 0.1]
    probs[-2] = [0.5, 0.1, 0.4]
    found = np.flatnonzero(flags.learnt(probs, labels))
    assert found.tolist() == [98, 99]
    assert flags.held_out(probs, labels)[-1]


def test_networks_that_have_learnt_nothing_flag_nothing():
    rng = np.random.default_rng(1)
    probs = rng.dirichlet(np.full(10, 500.0), 400)
    labels = rng.integers(0, 10, 400)
    assert (probs.argmax(-1) != labels).mean() > 0.8
    assert not flags.learnt(probs, labels).any()


@pytest.mark.parametrize("rule", [flags.learnt, flags.held_out])
def test_no_flag_is_the_most_probable_class(rule):
    rng = np.random.default_rng(2)
    probs = rng.dirichlet(np.ones(4), 300)
    labels = rng.integers(0, 4, 300)
    flagged = rule(probs, labels)
    assert (flags.margins(probs, labels)[flagged] < 0).all()


def test_a_share_and_its_interval():
    low, high = joint.share_interval(0.3, 100)
    np.testing.assert_allclose([low, high], [0.2189, 0.3958], atol=1e-4)
    assert joint.share_interval(0.0, 50)[0] == 0
    assert joint.share_interval(1.0, 50)[1] == 1


def test_the_joint_of_calibrated_probabilities():
    found = joint.noise_estimate(
        np.array([0, 0, 1, 1]),
        np.array([1, 1, 0, 0]),
        np.array([1.0, 0.5, 0.0, 1.0]),
        2,
    )
    np.testing.assert_allclose(found.joint, [[0.375, 0.125], [0.25, 0.25]])
    assert found.rate == 0.375 and found.low < 0.375 < found.high
