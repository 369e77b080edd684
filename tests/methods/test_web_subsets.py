"""Class-balanced subsets, recalibration and restarts on sets of the web."""

import importlib

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt import selection
from jaxnlt.data.records import Dataset, Split
from jaxnlt.trainer import Trainer
from tests import runs, typed
from tests.methods import toy


def get(method, arg):
    return importlib.import_module(f"configs.{method}").get_config(arg)


def make(method, arg, labels, **fields):
    config = get(method, arg)
    with config.unlocked():
        config.update_from_flattened_dict(fields)
    return base.create(config, base.DataInfo(labels, labels.max() + 1))


# Balanced subsets ------------------------------------------------------------

LABELS = np.repeat([0, 1, 2], [40, 20, 4])
SMALL = {"warmup_samples": 24, "pool_samples": 12}


def small(method, **fields):
    own = {f"{method}.{name}": value for name, value in SMALL.items()}
    more = {"batch_size": 4, "warmup_batch_size": 8}
    return make(method, "clothing1m", LABELS, **own | more | fields)


def counts(rows):
    return np.bincount(LABELS[rows], minlength=3).tolist()


def test_a_warm_up_sees_a_balanced_subset():
    made = small("dividemix")
    assert made.warmup.pool is None
    chosen = base.trust_all(made.data)
    rows, again, other = (
        made.warmup.streams(chosen, np.random.default_rng(seed))["x"]
        for seed in (1, 1, 2)
    )
    # Eight of a class or all of them, wrapped to whole batches.
    assert rows.shape == (3, 8) and rows.dtype == np.int32
    assert counts(np.unique(rows)) == [8, 8, 4]
    np.testing.assert_array_equal(rows, again)
    assert set(other.ravel()) != set(rows.ravel())
    whole = small("dividemix", **{"dividemix.warmup_samples": 0})
    rows = whole.warmup.streams(chosen, np.random.default_rng(1))["x"]
    assert len(np.unique(rows)) == len(LABELS)


def test_a_selection_looks_at_a_balanced_subset():
    for method in ("dividemix", "smr", "sfa", "tabasco", "unicon"):
        draw = small(method).semi.pool
        rows, other = (
            draw(3, 0, np.random.default_rng(seed)) for seed in (1, 2)
        )
        assert counts(rows) == [4, 4, 4] and len(rows) == 12
        assert set(rows) != set(other)
        whole = small(method, **{f"{method}.pool_samples": 0})
        assert whole.semi.pool is None


def test_a_prior_of_the_warm_up_is_that_of_its_subset():
    assert small("sfa").warmup_counts.tolist() == [8, 8, 4]
    whole = small("sfa", **{"sfa.warmup_samples": 0})
    assert whole.warmup_counts.tolist() == [40, 20, 4]
    params = toy.variables(0)["params"]
    images = np.random.default_rng(0).normal(size=(8, toy.FEATURES))
    batch = typed.batch(x=typed.stream((images,), LABELS[:8]))
    for made in (small("sfa"), whole):
        net, counts = base.Net(toy.apply, [], None), made.warmup_counts
        _, terms, _ = made.warmup_loss(
            net, params, batch, (), typed.division(), ()
        )
        shifted = images @ params["balanced"] + np.log(counts / counts.sum())
        expected = -np.log(selection.softmax(shifted))[:, 0].mean()
        got = float(terms["loss_balanced_ce"])
        assert got == pytest.approx(expected, rel=1e-5)


def test_recalibration_on_clothing():
    made = small("smr")
    chosen, rng = base.trust_all(made.data), np.random.default_rng(0)
    phase = made.recalibration
    rows = phase.streams(chosen, rng)["x"]
    assert rows.shape == (3, 8) and counts(np.unique(rows)) == [8, 8, 4]
    assert phase.views == {"x": ("weak",)} and phase.selector is None
    # As released: what a selection looks at, as it looks at it, in order.
    phase = small("smr", **{"smr.recalibrate_on": "pool"}).recalibration
    assert phase.views == {"x": ("none",)} and phase.taught_by == "self"
    pools = [phase.pool(9, k, np.random.default_rng(k)) for k in (0, 1)]
    np.testing.assert_array_equal(*pools)
    assert counts(pools[0]) == [4, 4, 4]
    assert set(phase.pool(19, 0, rng)) != set(pools[0])
    info = base.DataInfo(LABELS[pools[0]], 3)
    picked, _ = phase.selector.select([], 0, info, (), 9, rng)
    rows = phase.streams(picked, rng)["x"]
    np.testing.assert_array_equal(rows, np.arange(12).reshape(3, 4))
    of_all = {"smr.recalibrate_on": "pool", "smr.pool_samples": 0}
    assert small("smr", **of_all).recalibration.pool is None


def test_both_networks_recalibrate_on_the_same_rows():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (64, 8, 8, 1), np.uint8)
    split = Split(images, LABELS, None, np.arange(64))
    dataset = Dataset(
        split, split, ("a", "b", "c"), (0.5,), (0.25,), "test", {}
    )
    fields = {"smr.pool_samples": 12, "smr.recalibrate_on": "pool"}
    trainer = Trainer(runs.tiny("smr", **fields), dataset)
    phase = trainer.method.recalibration
    memory = trainer.init_memory(trainer.init_states())
    assert trainer.infer_pools(9, phase, [None, None]) == []
    chosen, _ = trainer.select(9, phase, [], memory, [0, 1])
    first, second = (phase.streams(chosen[k], rng)["x"] for k in (0, 1))
    np.testing.assert_array_equal(first, second)
    assert counts(first.ravel()[:12]) == [4, 4, 4]
    # They are those of the second network's selection.
    drawn = trainer.pools(9, trainer.method.semi)[1]
    np.testing.assert_array_equal(first.ravel()[:12], drawn)


def test_recalibration_may_follow_the_warm_up_on_clothing():
    fields = {"smr.period": 2.0, "smr.warmup": 1}
    assert small("smr", **fields).phase(1).name == "recalibration"
    later = small("smr", **fields | {"smr.spare_first_epoch": True})
    assert later.phase(1).name == "semi"
    assert later.phase(3).name == "recalibration"


# Refusals and warnings -------------------------------------------------------


def test_a_start_from_random_weights_is_told(caplog):
    def told(benchmark, ids=None, **fields):
        config = get("smr", benchmark)
        with config.unlocked():
            config.update_from_flattened_dict(fields)
        caplog.clear()
        base.create(config, base.DataInfo(LABELS, 3, ids))
        return [record.getMessage() for record in caplog.records]

    ids = np.arange(len(LABELS))
    (message,) = told("clothing1m", ids)
    assert message.startswith("clothing1m: the published settings start from ")
    assert "\n" not in message
    assert not told("clothing1m", ids, **{"model.pretrained": "a.pth"})
    assert not told("clothing1m", ids, init_from="runs/a")
    assert not told("clothing1m") and not told("webvision", ids)


def test_restarts_and_the_peer_of_the_epoch_s_start():
    made = make("unicon", "webvision", LABELS)
    assert made.phase(24) is made.restart and made.restart.loss == made.ce_loss
    assert not made.restart.trainable(("embedding", "linear", "kernel"))
    assert made.restart not in make("unicon", "cifar10", LABELS).phases()
    for arg, fields, peer in (
        ("webvision", {}, "epoch_start"),
        ("cifar10", {}, "updated"),
        ("digits", {"sfa.peer": "epoch_start"}, "epoch_start"),
    ):
        assert make("sfa", arg, LABELS, **fields).semi.peer == peer
