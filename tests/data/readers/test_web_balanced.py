"""The class-balanced subset that every network draws anew."""

import numpy as np
import pytest

from jaxnlt.data import sampling


def walk(order, labels, num_classes, size):
    """The rule, an image after the other."""
    counts, taken = [0] * num_classes, []
    for row in order:
        if counts[labels[row]] < size / num_classes and len(taken) < size:
            counts[labels[row]] += 1
            taken.append(row)
    return taken


class Recorded:
    """A generator that remembers its shuffles."""

    def __init__(self, seed):
        self.rng, self.drawn = np.random.default_rng(seed), []

    def permutation(self, x):
        self.drawn.append((np.array(x), self.rng.permutation(x)))
        return self.drawn[-1][1]


# Whole shares, fractions of them, classes too small, more than there is.
@pytest.mark.parametrize("size", [1, 3, 14, 20, 35, 50, 1000])
def test_the_rule(size):
    labels = np.random.default_rng(0).choice(
        5, 60, p=[0.5, 0.3, 0.1, 0.08, 0.02]
    )
    rng = Recorded(size)
    rows = sampling.subset(labels, 5, size, rng)
    (every, order), (taken, result) = rng.drawn
    assert every.tolist() == list(range(60))
    assert taken.tolist() == walk(order, labels, 5, size)
    assert rows.tolist() == result.tolist()
    assert len(set(rows.tolist())) == len(rows) <= size
    counts = np.bincount(labels[rows], minlength=5)
    assert (counts <= np.ceil(size / 5)).all()


def test_an_empty_class():
    rows = sampling.subset(
        np.array([0, 0, 2, 2, 2]), 4, 4, np.random.default_rng(0)
    )
    assert sorted(np.array([0, 0, 2, 2, 2])[rows]) == [0, 2]


def test_networks_and_epochs_draw_their_own():
    labels = np.arange(1000) % 14
    rng = np.random.default_rng(3)
    first, second = (sampling.subset(labels, 14, 280, rng) for _ in range(2))
    assert set(first.tolist()) != set(second.tolist())
    again = sampling.subset(labels, 14, 280, np.random.default_rng(3))
    assert again.tolist() == first.tolist()
    # Every row is as likely as another of its class.
    hits = np.zeros(1000)
    for _ in range(200):
        hits[sampling.subset(labels, 14, 280, rng)] += 1
    assert hits.min() > 20 and hits.max() < 100


def test_a_million_labels_take_a_moment():
    labels = np.random.default_rng(0).integers(0, 14, 1_000_000)
    rows = sampling.subset(labels, 14, 64_000, np.random.default_rng(1))
    counts = np.bincount(labels[rows])
    assert len(rows) == 64_000 and counts.max() - counts.min() <= 14
