"""Errors that are planted, and what they tell of the audit."""

import dataclasses

import ml_collections
import numpy as np
import pytest

from jaxnlt.auditing import planting
from jaxnlt.data.records import Dataset, Split
from jaxnlt.runtime.errors import UserError


def config(share, seed=0):
    return ml_collections.ConfigDict(
        {"audit": {"planted": share}, "seed": seed}
    )


def dataset(counts=(60, 40, 20), confused=0):
    """Classes far apart; some of class 0 are given as class 1."""
    rng = np.random.default_rng(0)
    true = np.repeat(np.arange(len(counts)), counts)
    images = np.zeros((len(true), 2, 2, 1), np.uint8)
    images[np.arange(len(true)), true // 2, true % 2, 0] = 200
    images += rng.integers(0, 40, images.shape, np.uint8)
    labels = true.copy()
    labels[:confused] = 1
    split = Split(images, labels, true, np.arange(len(true)))
    names = tuple("abcd"[: len(counts)])
    return Dataset(split, split, names, (0.5,), (0.2,), "test")


def test_the_same_share_of_every_class_along_the_confusion():
    data = dataset(confused=8)
    made = planting.planted(config(0.1), data)
    changed = made.train.labels != data.train.labels
    assert np.bincount(data.train.labels[changed]).tolist() in (
        [5, 5, 2],
        [6, 5, 2],
    )
    # Only what the neighbours agree with: none of the wrong ones.
    assert not changed[:8].any()
    assert made.given is data.train.labels
    assert (made.as_given.train.labels == data.train.labels).all()
    again = planting.planted(config(0.1), data)
    assert (again.train.labels == made.train.labels).all()
    other = planting.planted(config(0.1, seed=1), data)
    assert (other.train.labels != made.train.labels).any()
    # Class 0 is given as class 1.
    into = [
        planting.planted(config(0.2, seed), data).train.labels[8:60]
        for seed in range(5)
    ]
    into = np.concatenate(into)
    assert (into == 1).sum() > 4 * (into == 2).sum()


def test_confusion_by_hand():
    counts = np.array([[5.0, 3.0, 0.0], [0.0, 7.0, 0.0], [0.0, 1.0, 4.0]])
    found = planting.confusion(counts)
    np.testing.assert_allclose(found.sum(1), 1)
    np.testing.assert_allclose(found[1], [0.9 * 0.75 + 0.05, 0, 0.275])
    np.testing.assert_allclose(found[0], [0, 0.5, 0.5])


def test_a_small_class_keeps_half_of_its_labels():
    data = dataset((30, 30, 3))
    made = planting.planted(config(0.49), data)
    assert (made.train.labels[60:] == 2).sum() >= 2


def test_nothing_is_planted_unless_asked_and_too_little_is_refused():
    data = dataset()
    assert planting.planted(config(0.0), data) is data
    with pytest.raises(UserError, match="^config.audit.planted: .*plant more"):
        planting.planted(config(1e-9), data)


def simulated(recall, precision, seed, size=4000):
    """Labels of two classes; wrong ones are found with the given recall."""
    rng = np.random.default_rng(seed)
    labels = np.arange(size) % 2
    made = rng.random(size) < 0.05
    wrong = made | (rng.random(size) < 0.2)
    found = wrong & (rng.random(size) < recall)
    false = rng.random(size) < 0.2 * recall * (1 / precision - 1) / 0.8
    margin = rng.uniform(0.3, 0.9, size)
    margin[found] = -rng.uniform(0.5, 0.95, found.sum())
    false &= ~wrong
    margin[false] = -rng.uniform(0.05, 0.3, false.sum())
    own = (1 + margin) / 2
    probs = np.where(labels[:, None] == [0, 1], own[:, None], 1 - own[:, None])
    flagged = (margin < 0) & ~made
    return labels, probs, made, (wrong & flagged).sum() / flagged.sum()


@pytest.mark.parametrize("recall, precision", [(0.9, 0.7), (0.7, 0.95)])
def test_shares_are_estimated_without_knowing_the_truth(recall, precision):
    inside, errors = 0, []
    for seed in range(20):
        labels, probs, made, right = simulated(recall, precision, seed)
        found = planting.probed(labels, probs, made)
        assert found.planted == made.sum()
        assert found.recall[1] < found.recall[0] < found.recall[2]
        np.testing.assert_allclose(found.recall[0], recall, atol=0.12)
        inside += found.precision[1] <= right <= found.precision[2]
        errors.append(found.precision[0] - right)
    assert inside >= 17 and abs(np.mean(errors)) < 0.04


def test_where_no_label_is_flagged_nothing_is_said_of_precision():
    labels, probs, made, _ = simulated(0.9, 0.7, 0)
    own = probs[np.arange(len(labels)), labels]
    probs = np.where(labels[:, None] == [0, 1], 0.9, 0.1)
    assert (own < 0.5).any()
    found = planting.probed(labels, probs, made)
    assert found.recall[0] == 0 and found.precision is None


def test_features_are_looked_at_as_they_are():
    data = dataset()
    features = data.train.images.reshape(len(data.train), -1).astype(np.float32)
    train = dataclasses.replace(data.train, images=features)
    made = planting.planted(config(0.1), dataclasses.replace(data, train=train))
    assert (made.train.labels != train.labels).sum() >= 10
