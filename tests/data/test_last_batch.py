"""Rows of a pass that do not fill a batch."""

import numpy as np
import pytest

from jaxnlt.data import sampling
from jaxnlt.method import Selection, split_streams

INDEX = np.arange(10, 17)


def rng():
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("size", "steps"), [(3, 2), (7, 1), (4, 1), (1, 7), (9, 1)]
)
def test_a_short_batch_is_dropped(size, steps):
    filled = sampling.one_pass(INDEX, size, rng())
    dropped = sampling.one_pass(INDEX, size, rng(), "dropped")
    assert dropped.shape == (steps, size)
    np.testing.assert_array_equal(dropped, filled[:steps])


def test_every_pass_of_a_cycle_drops_its_own():
    rows = sampling.cycle(INDEX, 5, 3, rng(), "dropped")
    assert rows.shape == (5, 3)
    for start in (0, 2):
        assert len(np.unique(rows[start : start + 2])) == 6
    # A pass that is shorter than a batch is not dropped.
    assert sampling.cycle(INDEX, 2, 9, rng(), "dropped").shape == (2, 9)


def test_both_streams_drop():
    selection = Selection(INDEX, np.arange(5), np.ones(20), np.ones(2))
    made = split_streams(3, 2, "dropped")(selection, rng())
    assert made["x"].shape == (2, 3) and made["u"].shape == (2, 2)
    assert len(np.unique(made["u"])) == 4
