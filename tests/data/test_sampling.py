"""Which rows a step sees."""

from types import SimpleNamespace

import numpy as np
import pytest

from jaxnlt.data import sampling

INDEX = np.array([3, 5, 8, 13, 21, 34, 55])


def rng():
    return np.random.default_rng(0)


def test_one_pass_fills_the_last_batch_with_the_first_rows():
    batches = sampling.one_pass(INDEX, 3, rng())
    assert batches.shape == (3, 3) and batches.dtype == np.int32
    order = batches.ravel()
    np.testing.assert_array_equal(np.sort(order[:7]), INDEX)
    np.testing.assert_array_equal(order[7:], order[:2])
    assert (order[:7] != INDEX).any()
    whole = sampling.one_pass(INDEX, 7, rng())
    np.testing.assert_array_equal(np.sort(whole.ravel()), INDEX)
    (batch,) = sampling.one_pass(INDEX[:2], 5, rng())
    np.testing.assert_array_equal(batch[2:4], batch[:2])
    assert set(batch) == {3, 5} and batch[4] == batch[0]


def test_cycle_passes_over_all_rows_again_and_again():
    batches = sampling.cycle(INDEX, 4, 5, rng())
    assert batches.shape == (4, 5) and batches.dtype == np.int32
    first, second = batches.ravel()[:7], batches.ravel()[7:14]
    for one in (first, second):
        np.testing.assert_array_equal(np.sort(one), INDEX)
    assert (first != second).any()  # every pass has an order of its own
    assert len(set(batches.ravel()[14:])) == 6
    few = sampling.cycle(INDEX[:2], 2, 5, rng())
    assert np.bincount(few.ravel())[[3, 5]].tolist() == [5, 5]


# Resampled classes -----------------------------------------------------------

LABELS = np.repeat(np.arange(5), (60, 0, 30, 9, 1))


def test_quota_follows_the_exponent_and_sums_up():
    counts = np.bincount(LABELS)
    expected = {1.0: [60, 0, 30, 9, 1], 0.0: [25, 0, 25, 25, 25]}
    for exponent, quota in expected.items():
        for seed in range(20):
            rng = np.random.default_rng(seed)
            got = sampling.class_quota(counts, exponent, 100, rng)
            assert got.sum() == 100 and got[1] == 0
            assert np.abs(got - quota).max() <= 1
    rng = np.random.default_rng(0)
    root = sampling.class_quota(counts, 0.5, 100, rng)
    share = np.sqrt(counts) / np.sqrt(counts).sum()
    assert np.abs(root - 100 * share).max() <= 1
    # The rows that remain go to every class in turn, never to an empty one.
    quotas = [
        sampling.class_quota(np.array([4, 4, 4, 0]), 0.0, 4, rng)
        for rng in map(np.random.default_rng, range(300))
    ]
    np.testing.assert_allclose(
        np.mean(quotas, 0), [4 / 3, 4 / 3, 4 / 3, 0], atol=0.1
    )


def test_rows_come_in_cycles_within_their_class():
    index = np.flatnonzero(np.arange(len(LABELS)) % 2)
    rows = sampling.resampled(index, LABELS, 0.0, 10, rng())
    assert rows.shape == (5, 10) and rows.dtype == np.int32
    assert set(rows.flat) <= set(index)
    for c in np.unique(LABELS[index]):
        times = np.bincount(rows[LABELS[rows] == c], minlength=len(LABELS))
        times = times[index[LABELS[index] == c]]
        assert times.max() - times.min() <= 1


# A balanced subset -----------------------------------------------------------


# Whole shares, fractions of them, classes too small or empty, more than there
# is.
@pytest.mark.parametrize("size", [1, 3, 14, 20, 35, 50, 1000])
def test_rows_are_taken_in_order_while_their_class_has_room(size):
    labels = rng().choice(5, 60, p=[0.5, 0.3, 0.1, 0.08, 0.02])
    unshuffled = SimpleNamespace(permutation=np.copy)
    rows = sampling.balanced_subset(labels, 7, size, unshuffled)
    place_in_class = np.tril(labels[:, None] == labels, -1).sum(1)
    expected = np.flatnonzero(place_in_class < size / 7)[:size]
    np.testing.assert_array_equal(rows, expected)


def test_every_row_is_as_likely_as_another_of_its_class():
    labels, draws = np.arange(1000) % 14, rng()
    hits = np.zeros(1000)
    for _ in range(200):
        hits[sampling.balanced_subset(labels, 14, 280, draws)] += 1
    assert hits.min() > 20 and hits.max() < 100


def test_counts_of_a_balanced_subset():
    counts = np.array([30, 5])
    assert sampling.balanced_counts(counts, 21).tolist() == [11, 5]
    assert sampling.balanced_counts(counts, 0).tolist() == [30, 5]
