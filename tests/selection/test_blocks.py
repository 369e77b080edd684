"""Blocks of rows."""

import numpy as np

from jaxnlt import selection
from jaxnlt.selection import scores


def test_blocks_hold_as_many_numbers_whatever_the_classes(monkeypatch):
    monkeypatch.setattr(scores, "_NUMBERS", 12)
    for shape, rows in (
        ((10,), 12),
        ((10, 3), 4),
        ((10, 2, 3), 2),
        ((3, 99), 1),
    ):
        parts = list(selection.row_blocks(shape))
        assert {part.stop - part.start for part in parts} == {rows}
        covered = np.concatenate([np.arange(shape[0])[part] for part in parts])
        assert covered.tolist() == list(range(shape[0]))
    few, many = selection.sum_blocks((9, 2)), selection.sum_blocks((9, 2**20))
    assert [next(few).stop, next(many).stop] == [1 << 16, 2]
