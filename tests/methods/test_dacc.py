"""DaCC by hand, and what must not matter to it."""

import math

import numpy as np

from jaxnlt import selection
from jaxnlt.methods import dasc


def case():
    rng = np.random.default_rng(1)
    return {
        "features": rng.normal(size=(12, 4)),
        "logits": rng.normal(size=(12, 3)),
        "balanced": rng.normal(size=(12, 3)),
        "labels": rng.integers(0, 3, 12),
    }


def scores(threshold=0.45, **changes):
    return dasc.dacc_scores(
        **(case() | changes), threshold=threshold, temperature=0.1
    )


def test_dacc_by_hand():
    """Two rows, two classes: centroids, cosines, and the loss of a label."""
    result = dasc.dacc_scores(
        features=np.array([[2.0, 0], [0, 5.0]]),
        logits=np.array([[math.log(3), 0], [0, math.log(3)]]),
        balanced=np.array([[9.0, 0], [0, 9.0]]),
        labels=np.array([0, 0]),
        threshold=0.6,
        temperature=0.5,
    )
    # At T = 0.5 the odds of 3 become 9.
    np.testing.assert_allclose(result.weights, [[0.9, 0.1], [0.1, 0.9]])
    centroids = np.array([[9, 1], [1, 9]]) / math.sqrt(82)
    np.testing.assert_allclose(result.centroids, centroids)
    assignment = selection.softmax(centroids)
    np.testing.assert_allclose(result.assignment, assignment)
    np.testing.assert_allclose(result.losses, [0, 1])


def test_dacc_asks_both_heads_and_strictly():
    sure, even = [math.log(3), 0.0], [0.0, 0.0]
    logits = np.array([sure, sure, even, sure])
    balanced = np.array([sure, even, sure, sure])
    inputs = {
        "features": np.eye(4),
        "logits": logits,
        "balanced": balanced,
        "labels": np.zeros(4, int),
    }
    threshold = selection.softmax(np.array(sure)).max()
    below = scores(np.nextafter(threshold, 0), **inputs)
    np.testing.assert_array_equal(below.mask, [True, False, False, True])
    at = scores(threshold, **inputs)
    assert not at.mask.any()


def test_dacc_centroids_use_the_confident_samples_only():
    base = scores()
    assert 2 <= base.mask.sum() <= 10
    features = case()["features"]
    features[~base.mask] += 1
    np.testing.assert_array_equal(
        scores(features=features).centroids, base.centroids
    )
    features[base.mask] += 1
    assert np.abs(scores(features=features).centroids - base.centroids).max()


def test_dacc_centroids_weigh_by_the_conventional_head():
    everyone = 0.0
    base = scores(everyone)
    same = scores(everyone, balanced=case()["balanced"] + np.arange(3))
    np.testing.assert_array_equal(same.centroids, base.centroids)
    other = scores(everyone, logits=case()["logits"] + np.arange(3))
    assert np.abs(other.centroids - base.centroids).max() > 1e-3


def test_dacc_without_a_confident_sample_uses_all():
    none, everyone = scores(1.0), scores(0.0)
    assert not none.mask.any() and everyone.mask.all()
    np.testing.assert_array_equal(none.centroids, everyone.centroids)
    assert np.isfinite(none.losses).all()


def test_dacc_labels_do_not_move_centroids():
    base = scores()
    other = scores(labels=(case()["labels"] + 1) % 3)
    for name in ("mask", "weights", "centroids", "assignment"):
        np.testing.assert_array_equal(getattr(other, name), getattr(base, name))
    assert (other.losses != base.losses).any()


def test_dacc_follows_a_permutation_of_the_samples():
    order = np.random.default_rng(2).permutation(12)
    base = scores()
    moved = scores(**{name: array[order] for name, array in case().items()})
    for name in ("mask", "weights", "assignment", "losses"):
        np.testing.assert_allclose(
            getattr(moved, name), getattr(base, name)[order], rtol=1e-10
        )
    np.testing.assert_allclose(moved.centroids, base.centroids, rtol=1e-10)


def test_dacc_does_not_see_the_length_of_features():
    scale = np.random.default_rng(3).uniform(0.1, 9, (12, 1))
    np.testing.assert_allclose(
        scores(features=case()["features"] * scale).losses, scores().losses
    )


def test_labelled_weights():
    clean, labelled = np.array([0.1, 0.9, 0.2, 0.8, 0.7]), np.array([1, 3, 4])
    aligned = dasc.labelled_weights(clean, labelled, True)
    np.testing.assert_array_equal(aligned[labelled], [0.9, 0.8, 0.7])
    released = dasc.labelled_weights(clean, labelled, False)
    np.testing.assert_array_equal(released[labelled], [0.1, 0.9, 0.2])
    np.testing.assert_array_equal(clean, [0.1, 0.9, 0.2, 0.8, 0.7])
