"""Class-uniform selection at its edges."""

import numpy as np
import pytest

from jaxnlt.methods import unicon

LABELS = np.array([0, 0, 0, 1, 1, 3, 0, 0])
SCORES = np.array([0.5, 0.1, 0.3, 0.9, 0.2, 0.7, 0.0, 0.6])


def test_disagreement_goes_from_nought_to_one():
    logits = 50.0 * np.eye(3)
    got = unicon.disagreement([logits] * 2, np.array([0, 1, 0]), "2")
    np.testing.assert_allclose(got, [0, 0, 1], atol=1e-8)
    nats = unicon.disagreement([logits], np.array([1, 1, 2]), "e")
    np.testing.assert_allclose(nats, [np.log(2), 0, 0], atol=1e-8)


def test_small_classes_give_all_they_have():
    call = (SCORES, LABELS, 4, 1.0)
    got = unicon.select_uniform(*call, False)
    np.testing.assert_array_equal(got, [6, 1, 4, 3, 5])
    released = unicon.select_uniform(*call, True)
    np.testing.assert_array_equal(released, [6, 1, 4, 3, 5, 5, 0, 0])


def test_nothing_is_shared_out():
    got = unicon.select_uniform(SCORES, LABELS, 4, 0.0, False)
    assert len(got) == 0
    assert unicon.unlabelled_batch(64, 0.0, True) == 128


@pytest.mark.parametrize(
    "share, expected", [(0.05, 128), (0.5, 64), (0.44, 72), (1.0, 32)]
)
def test_the_unlabelled_batch_is_rounded(share, expected):
    got = unicon.unlabelled_batch(64, share, True)
    assert got == expected


def test_the_cutoff_is_moved_where_the_mean_is_high():
    scores = np.array([0.6, 1.0, 1.0])
    mean = 2.6 / 3
    got = unicon.cutoff(scores, 0.7, 5.0)
    np.testing.assert_allclose(got, mean - (mean - 0.6) / 5)
    np.testing.assert_allclose(unicon.cutoff(scores, 0.9, 5), mean)


def test_weights_trust_agreement_fully():
    got = unicon.refinement_weights(np.array([0.0, 0.49, 0.5, 0.9]))
    np.testing.assert_allclose(got, [1, 1, 0.5, 0.1])
