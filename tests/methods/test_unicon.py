"""UNICON: selection, phases, streams, switches and a whole run."""

import numpy as np
import pytest

from configs import unicon as unicon_config
from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.config import base as config_lib
from jaxnlt.methods import unicon
from jaxnlt.runtime.errors import UserError
from tests import runs

INFO = base.DataInfo(np.arange(48) % 3, 3)


def make(arg="digits", **fields):
    short = {"epochs": 2, "unicon.warmup": 1}
    config = runs.tiny("unicon", arg, **(short | fields))
    return unicon.Method(config, INFO)


# Selection -------------------------------------------------------------------

LABELS = np.array([0, 0, 0, 1, 1, 3, 0, 0])
SCORES = np.array([0.5, 0.1, 0.3, 0.9, 0.2, 0.7, 0.0, 0.6])


def test_disagreement_goes_from_0_to_1():
    logits = 50.0 * np.eye(3)
    got = unicon.disagreement([logits] * 2, np.array([0, 1, 0]), "2")
    np.testing.assert_allclose(got, [0, 0, 1], atol=1e-8)
    nats = unicon.disagreement([logits], np.array([1, 1, 2]), "e")
    np.testing.assert_allclose(nats, [np.log(2), 0, 0], atol=1e-8)


def test_small_classes_give_all_they_have():
    got = unicon.select_uniform(SCORES, LABELS, 4, 1.0, False)
    np.testing.assert_array_equal(got, [6, 1, 4, 3, 5])
    released = unicon.select_uniform(SCORES, LABELS, 4, 1.0, True)
    np.testing.assert_array_equal(released, [6, 1, 4, 3, 5, 5, 0, 0])
    assert not len(unicon.select_uniform(SCORES, LABELS, 4, 0.0, False))


def test_cutoff_is_lowered_where_the_mean_is_high():
    scores = np.array([0.6, 1.0, 1.0])
    mean = 2.6 / 3
    got = unicon.cutoff(scores, 0.7, 5.0)
    np.testing.assert_allclose(got, mean - (mean - 0.6) / 5)
    np.testing.assert_allclose(unicon.cutoff(scores, 0.9, 5), mean)


def test_weights_trust_agreement_fully():
    got = unicon.refinement_weights(np.array([0.0, 0.49, 0.5, 0.9]))
    np.testing.assert_allclose(got, [1, 1, 0.5, 0.1])


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


SWITCHES = {
    "unicon.jsd_log": ("2", "e"),
    "unicon.scoring_mode": ("eval", "train"),
    "unicon.unfilled": ("none", "repeat_index_0"),
    "unicon.unlabelled_batch": ("rounded", "exact"),
    "unicon.last_batch": ("filled", "dropped"),
}
# Batches of the release's scoring: ``papers/unicon.md`` section 3.
SCORED = {"eval_batch_size": (256, 100)}


@pytest.mark.parametrize(
    "benchmark, expected",
    [("digits", SWITCHES), ("cifar10", SWITCHES | SCORED)],
)
def test_as_released_changes_the_switches_alone(benchmark, expected):
    ours, released = (
        config_lib.flatten(
            unicon_config.get_config(f"{benchmark}{text}").to_dict()
        )
        for text in ("", ",as_released")
    )
    changed = {
        name: (ours[name], released[name])
        for name in ours
        if ours[name] != released[name]
    }
    assert changed == expected


@pytest.mark.parametrize(
    "field, value",
    [
        ("jsd_log", "10"),
        ("unfilled", "some"),
        ("scoring_mode", "both"),
        ("unlabelled_batch", "most"),
        ("cutoff_tau", 0.5),
    ],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(UserError, match=f"^config.unicon.{field}: "):
        make(**{f"unicon.{field}": value})


def test_as_released_runs_and_resumes(tmp_path):
    fields = {"max_steps": 2, "unicon.warmup": 1}
    config = runs.tiny("unicon", "digits,as_released,epochs=3", **fields)
    train.run(config, tmp_path / "run")
    rows = runs.records(tmp_path / "run")
    assert [r["phase"] for r in rows] == ["warmup", "semi", "semi"]
    assert all(np.isfinite(r["loss"]) and r["labelled"] for r in rows[1:])
    runs.check_resume(config, tmp_path / "run")
