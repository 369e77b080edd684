"""UNICON: phases, selection, streams and fields."""

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt.methods import unicon
from jaxnlt.runtime.errors import UserError
from tests import runs

LABELS = np.arange(48) % 3


def make(arg="digits", **fields):
    short = {"epochs": 2, "unicon.warmup": 1}
    config = runs.tiny("unicon", arg, **(short | fields))
    return unicon.Method(config, base.DataInfo(LABELS, 3))


def outputs(seed=0):
    rng = np.random.default_rng(seed)
    return [{"logits": rng.normal(size=(48, 3))} for _ in range(2)]


def test_phases():
    method = make()
    assert method.phase(0) is method.warmup and method.phase(1) is method.semi
    semi = method.semi
    assert (semi.taught_by, semi.order, semi.peer) == (
        "peer",
        "select_train_each",
        "updated",
    )
    assert semi.views["u"] == ("weak", "weak", "strong", "strong")
    assert not method.warmup.trainable(("embedding", "linear", "kernel"))
    assert semi.trainable(("embedding", "linear", "kernel"))


def test_selection_is_class_uniform_and_sets_the_pace():
    method = make()
    info = base.DataInfo(LABELS, 3)
    chosen, _ = method.semi.selector.select(outputs(), 0, info, {}, 1, None)
    assert len(set(chosen.counts)) == 1
    share = chosen.shared.share
    assert len(chosen.labelled) == 3 * int(share * 48 / 3)
    both = np.concatenate([chosen.labelled, chosen.unlabelled])
    np.testing.assert_array_equal(np.sort(both), np.arange(48))
    rows = method.semi.streams(chosen, np.random.default_rng(0))
    assert rows["x"].shape[1] == 16
    pace = 8 * round(16 / (2 * share) / 8)
    assert rows["u"].shape == (len(rows["x"]), min(max(pace, 8), 32))
    exact = make("digits,as_released")
    rows = exact.streams(chosen, np.random.default_rng(0))
    assert rows["u"].shape[1] == int(16 / (2 * share))


def test_equal_scores_select_nobody():
    info = base.DataInfo(LABELS, 3)
    flat = [{"logits": np.zeros((48, 3))}] * 2
    for arg in ("digits", "digits,as_released"):
        selector = make(arg).semi.selector
        chosen, _ = selector.select(flat, 0, info, {}, 1, None)
        assert len(chosen.labelled) == 0
        assert np.isfinite(chosen.weights).all()


@pytest.mark.parametrize(
    "field, value",
    [
        ("jsd_log", "10"),
        ("unfilled", "some"),
        ("unlabelled_batch", "most"),
        ("cutoff_tau", 0.5),
    ],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(UserError, match=f"^config.unicon.{field}: "):
        make(**{f"unicon.{field}": value})
