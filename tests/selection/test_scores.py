"""Scores that are computed block by block."""

import numpy as np

from jaxnlt import selection
from jaxnlt.methods import dasc
from jaxnlt.selection import scores


def test_classes_are_found_in_one_pass():
    labels = np.array([2, 0, 2, 4, 0, 2])
    rows = selection.class_rows(labels, 6)
    assert [own.tolist() for own in rows] == [
        [1, 4],
        [],
        [0, 2, 5],
        [],
        [3],
        [],
    ]


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
        yield from dasc.dacc_scores(rows, rows, rows, labels, 0.5, 0.1)

    whole = list(results())
    monkeypatch.setattr(selection.blocks, "__defaults__", (8,))
    blocked = list(results())
    for a, b in zip(whole, blocked, strict=True):
        np.testing.assert_array_equal(a, b)
    monkeypatch.setattr(scores, "_SUMMED", 8)
    for a, b in zip(whole, results(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)
