"""Which rows a step sees."""

import numpy as np

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


def test_one_pass_that_fits_repeats_nothing():
    np.testing.assert_array_equal(
        np.sort(sampling.one_pass(INDEX, 7, rng()).ravel()), INDEX
    )


def test_one_pass_of_fewer_rows_than_a_batch():
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


def test_cycle_of_fewer_rows_than_a_batch():
    batches = sampling.cycle(INDEX[:2], 2, 5, rng())
    assert np.bincount(batches.ravel())[[3, 5]].tolist() == [5, 5]


def test_the_generator_decides():
    for rows in (
        lambda rng: sampling.one_pass(INDEX, 3, rng),
        lambda rng: sampling.cycle(INDEX, 3, 3, rng),
    ):
        np.testing.assert_array_equal(rows(rng()), rows(rng()))
        other = rows(np.random.default_rng(1))
        assert (rows(rng()) != other).any()
