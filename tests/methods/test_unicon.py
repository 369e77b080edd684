"""UNICON's selection, streams and phases."""

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt.methods import unicon
from tests import runs

INFO = base.DataInfo(np.arange(48) % 3, 3)


def make(arg="digits", **fields):
    short = {"epochs": 2, "unicon.warmup": 1}
    config = runs.tiny("unicon", arg, **(short | fields))
    return unicon.Method(config, INFO)


# Selection -------------------------------------------------------------------

LABELS = np.array([0, 0, 0, 1, 1, 3, 0, 0])
SCORES = np.array([0.5, 0.1, 0.3, 0.9, 0.2, 0.7, 0.0, 0.6])


def test_small_classes_give_all_they_have():
    got = unicon.select_uniform(SCORES, LABELS, 4, 1.0, False)
    np.testing.assert_array_equal(got, [6, 1, 4, 3, 5])
    released = unicon.select_uniform(SCORES, LABELS, 4, 1.0, True)
    np.testing.assert_array_equal(released, [6, 1, 4, 3, 5, 5, 0, 0])
    assert not len(unicon.select_uniform(SCORES, LABELS, 4, 0.0, False))


def select(method, logits):
    outputs = [{"logits": values} for values in logits]
    return method.semi.selector.select(outputs, 0, INFO, (), 1, None)[0]


@pytest.mark.parametrize("arg", ["digits", "digits,as_released"])
def test_equal_scores_select_no_sample(arg):
    chosen = select(make(arg), np.zeros((2, 48, 3)))
    assert len(chosen.labelled) == 0
    assert np.isfinite(chosen.weights).all()


def test_selection_is_class_uniform_and_sets_the_pace():
    method = make()
    chosen = select(method, np.random.default_rng(0).normal(size=(2, 48, 3)))
    share = chosen.shared.share
    assert chosen.counts.tolist() == [int(share * 48 / 3)] * 3
    both = np.concatenate([chosen.labelled, chosen.unlabelled])
    np.testing.assert_array_equal(np.sort(both), np.arange(48))
    rows = method.semi.streams(chosen, np.random.default_rng(0))
    assert rows["x"].shape[1] == 16
    pace = 8 * round(16 / (2 * share) / 8)
    assert rows["u"].shape == (len(rows["x"]), min(max(pace, 8), 32))
    exact = make("digits,as_released")
    rows = exact.streams(chosen, np.random.default_rng(0))
    assert rows["u"].shape[1] == int(16 / (2 * share))


@pytest.mark.parametrize(
    "share, expected",
    [(0.0, 128), (0.05, 128), (0.5, 64), (0.44, 72), (1.0, 32)],
)
def test_unlabelled_batch_is_rounded(share, expected):
    assert unicon.unlabelled_batch(64, share, True) == expected


# Phases and switches ---------------------------------------------------------


@pytest.mark.parametrize(
    "arg, in_train_mode", [("digits", False), ("digits,as_released", True)]
)
def test_phases(arg, in_train_mode):
    method = make(arg)
    semi = method.semi
    assert method.phase(0) is method.warmup and method.phase(1) is semi
    assert (semi.taught_by, semi.peer) == ("peer", "updated")
    assert semi.order == "select_train_each"
    assert (semi.pool_view, semi.pool_train) == ("none", in_train_mode)
    assert semi.views["u"] == ("weak", "weak", "strong", "strong")
    assert not method.warmup.trainable(("embedding", "linear", "kernel"))
    assert semi.trainable(("embedding", "linear", "kernel"))
