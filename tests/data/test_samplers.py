"""Resampled streams."""

import numpy as np

from jaxnlt.data import sampling

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


def test_the_rest_goes_to_every_class_in_turn():
    quotas = [
        sampling.class_quota(np.array([4, 4, 4]), 0.0, 4, rng)
        for rng in map(np.random.default_rng, range(300))
    ]
    np.testing.assert_allclose(np.mean(quotas, 0), 4 / 3, atol=0.1)


def test_a_class_that_ends_the_list_empty_gets_nothing():
    quota = sampling.class_quota(
        np.array([3, 2, 0]), 0.0, 7, np.random.default_rng(1)
    )
    assert quota[2] == 0 and quota.sum() == 7


def test_rows_come_in_cycles_within_their_class():
    index = np.flatnonzero(np.arange(len(LABELS)) % 2)
    rows = sampling.resampled(index, LABELS, 0.0, 10, np.random.default_rng(0))
    assert rows.shape == (5, 10) and rows.dtype == np.int32
    assert set(rows.flat) <= set(index)
    for c in np.unique(LABELS[index]):
        times = np.bincount(rows[LABELS[rows] == c], minlength=len(LABELS))
        times = times[index[LABELS[index] == c]]
        assert times.max() - times.min() <= 1
