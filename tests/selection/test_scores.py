"""Scores by hand, and block by block."""

import math

import numpy as np

from jaxnlt import selection
from jaxnlt.methods import dasc
from jaxnlt.selection import scores


def test_min_max_of_equal_values():
    np.testing.assert_array_equal(selection.min_max([3.0, 3.0]), [0, 0])


def test_softmax_and_normalise():
    probs = selection.softmax(np.array([[1000.0, 1000 + math.log(3)]]))
    np.testing.assert_allclose(probs, [[0.25, 0.75]])
    rows = selection.normalise(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0, 0]])


def test_distances_within_a_class():
    centroids = np.array([[0.0, 0], [4, 0]])
    rows = np.array([[0.0, 0], [0, 1], [3, 0], [5, 0], [0, 2]])
    found = selection.nearest_scores(rows, centroids)
    squares = ((rows[:, None] - centroids) ** 2).sum(-1)
    np.testing.assert_allclose(found, -squares)
    labels = np.array([0, 0, 1, 1, 0])
    distances, equal = selection.class_distances(found, labels, 3)
    # Of the pair, whose centroid is midway, the sample farther from the other
    # class is the nearer.
    np.testing.assert_allclose(distances, [0, 0.25, 1, 0, 1])
    assert not equal.any()


def test_classes_are_found_in_one_pass():
    labels = np.array([2, 0, 2, 4, 0, 2])
    rows = selection.class_rows(labels, 6)
    found = [own.tolist() for own in rows]
    assert found == [[1, 4], [], [0, 2, 5], [], [3], []]


def test_blocks_do_not_show(monkeypatch):
    """To the bit, but for sums over samples, which keep the blocks' order."""
    rng = np.random.default_rng(0)
    rows = (9 * rng.standard_normal((50, 7))).astype(np.float32)
    labels = rng.integers(0, 7, 50)

    def results():
        yield selection.softmax(rows)
        yield selection.normalise(rows)
        yield selection.lengths(rows)
        yield selection.cross_entropy(rows, labels)
        yield selection.softmax_of(rows, labels)
        yield selection.largest_softmax(rows)
        yield dasc.centroid_weights(rows, labels > 2, 0.1)
        yield from dasc.dacc_scores(rows, rows, rows, labels, 0.5, 0.1)

    whole = list(results())
    assert (whole[4] == whole[0][np.arange(50), labels]).all()
    assert (whole[5] == whole[0].max(-1)).all()
    # Blocks of eight rows.
    monkeypatch.setattr(scores, "_NUMBERS", 8 * 7)
    blocked = list(results())
    for a, b in zip(whole, blocked, strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(scores, "_SUMMED", 8)
    for a, b in zip(whole, results(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
