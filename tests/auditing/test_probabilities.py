"""Probabilities that are read block by block."""

import tracemalloc

import numpy as np
import pytest

from jaxnlt.auditing import statistics, verdict
from jaxnlt.auditing.probabilities import Probabilities
from jaxnlt.selection import scores


def summed(size, classes, epochs=3):
    rng = np.random.default_rng(0)
    true = rng.integers(0, classes, size)
    sums = statistics.empty(size, classes)
    for _ in range(epochs):
        logits = rng.standard_normal((size, classes), dtype=np.float32)
        logits[np.arange(size), true] += 4
        sums = statistics.added(sums, logits)
    redrawn = rng.random(size) < 0.3
    return np.where(redrawn, rng.permutation(true), true), sums


@pytest.mark.parametrize("held_out", [False, True])
def test_sums_have_the_verdict_of_their_means(held_out, monkeypatch):
    """To the bit, in blocks of two rows."""
    labels, sums = summed(301, 5)
    lost = np.arange(301) % 50 == 7
    means = np.float64(sums.probs) / 3
    means[lost] = np.nan
    expected = verdict.of_training(labels, means, None, held_out)
    monkeypatch.setattr(scores, "_NUMBERS", 10)
    probs = sums.without(lost).mean_probs
    found = verdict.of_training(labels, probs, None, held_out)
    assert expected.is_label_issue.any() and not expected.readable.all()
    for name, values in vars(expected).items():
        np.testing.assert_array_equal(getattr(found, name), values, name)


def test_the_best_other_class():
    probs = Probabilities(np.float32([[6, 2, 4], [1, 8, 2], [5, 5, 0]]), 2)
    values, classes = probs.best_other(np.array([0, 2, 1]))
    assert values.tolist() == [2, 4, 2.5] and classes.tolist() == [2, 1, 0]
    assert probs.usual.tolist() == [2, 2.5, 1]
    assert probs[1:].dtype == np.float64 and probs[2, 0] == 2.5


def test_a_verdict_copies_no_probabilities():
    labels, sums = summed(20_000, 100, 1)
    tracemalloc.start()
    try:
        verdict.of_training(labels, sums.mean_probs, None, held_out=False)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # In float64 they are twice as large.
    assert peak < 0.8 * sums.probs.nbytes
