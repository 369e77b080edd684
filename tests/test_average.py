"""Averaged weights vote, audit and predict; training does not see them."""

import importlib
import shutil
from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from scipy.special import softmax

from jaxnlt import train
from jaxnlt.models import average
from jaxnlt.results import metrics, observing
from jaxnlt.runtime import checkpoint, sharding
from tests.runs import check_resume, tiny
from tests.toy_epochs import Recorder, phase, w

# ``jaxnlt.predict`` is the function.
predict = importlib.import_module("jaxnlt.predict")


@pytest.mark.parametrize("decay, kept", [(0.6, [0, 0.5, 0.6]), (0.5, [0, 0.5])])
def test_the_first_epochs_count_alike(decay, kept):
    values = np.array([7.0, -1.0, 3.0], np.float32)[: len(kept)]
    made = average.empty({"params": {"w": values[0]}, "batch_stats": {}})
    wanted = 0.0
    for n, (value, keep) in enumerate(zip(values, kept, strict=True)):
        new = {"params": {"w": value}, "batch_stats": {}}
        made = average.moved(made, new, decay)
        wanted = keep * wanted + (1 - keep) * value
        assert made.epochs == n + 1
        np.testing.assert_allclose(made.params["w"], wanted, rtol=1e-6)


def toy_run(make, ema, epochs=3, **methods):
    """Epochs of a toy as train.run does them; each one's states."""
    selector = Recorder([0, 1, 2])  # two steps a network
    chosen = phase(selector=selector, order="select_train_each", peer="updated")
    trainer = make(chosen, **methods)
    trainer = with_ema(trainer, ema)
    states = trainer.put(trainer.init_states())
    memory, seen, votes = trainer.init_memory(states), [], []
    for epoch in range(epochs):
        states, memory = trainer.enter(epoch, states, memory)
        pooled = sharding.fetch(trainer.infer_pools(epoch, chosen, states))
        states, memory, _ = trainer.train(
            epoch, chosen, states, pooled, memory, lambda *args: None
        )
        seen.append([w(state) for state in states])
        outs = sharding.fetch(observing.infer_audited(trainer, states))["train"]
        tests = sharding.fetch(trainer.infer_test(states))
        votes.append([float(out[0]["logits"][0, 0]) for out in outs])
        assert votes[-1] == [out[0]["logits"][0, 0] for out in tests]
    shown = [(call.epoch, call.k, call.weights) for call in selector.calls]
    return SimpleNamespace(seen=seen, votes=votes, shown=shown, states=states)


def with_ema(trainer, ema):
    with trainer.config.unlocked():
        trainer.config.model.ema = ema
    return type(trainer)(trainer.config, trainer.dataset)


def test_averages_vote_and_only_they_differ(toy_trainer):
    off, on = (toy_run(toy_trainer, ema) for ema in (0.0, 0.6))
    assert off.states[0].average == () and off.votes == off.seen
    assert (on.seen, on.shown) == (off.seen, off.shown)
    assert on.seen == [[98, 98], [96, 96], [94, 94]]
    np.testing.assert_allclose(on.votes, [[98] * 2, [97] * 2, [95.8] * 2])


def test_other_weights_begin_another_average(toy_trainer):
    def enter(self, epoch, states, memory, fresh):
        if epoch == 1:  # other statistics of network 0, new weights of 1
            states = [states[0].at_rest(), fresh()[1]]
        return states, memory

    run = toy_run(toy_trainer, 0.6, enter=enter)
    assert run.seen == [[98, 98], [96, 98], [94, 96]]
    np.testing.assert_allclose(run.votes, [[98, 98], [97, 98], [95.8, 97]])


def test_end_epoch_is_made_of_the_average_too(toy_trainer):
    def end_epoch(self, phase, states):
        halved = [jax.tree.map(lambda x: x / 2, s.params) for s in states]
        return [
            replace(state, params=params)
            for state, params in zip(states, halved, strict=True)
        ]

    run = toy_run(toy_trainer, 0.6, epochs=2, end_epoch=end_epoch)
    assert run.seen == [[49, 49], [23.5, 23.5]]
    halves = [49 / 2, (49 / 2 + 23.5) / 2 / 2]
    np.testing.assert_allclose(run.votes, [[half] * 2 for half in halves])


FIELDS = {"epochs": 3, "optimizer.learning_rate": 0.05}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of the same run without and with averages, and its votes."""
    folder, votes = tmp_path_factory.mktemp("average"), []

    def vote(*args):
        votes.append(original(*args))
        return votes[-1]

    original = metrics.vote
    train.run(tiny("erm", **FIELDS), folder / "off")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "vote", vote)
        config = tiny("erm", **FIELDS, **{"model.ema": 0.9})
        train.run(config, folder / "on")
    return folder, config, votes


def test_training_is_the_same_to_the_bit(runs):
    folder, _, votes = runs
    off, on = (checkpoint.load(folder / name) for name in ("off", "on"))
    assert "average" not in off.states[0]
    assert on.states[0].pop("average")["epochs"] == 3
    jax.tree.map(np.testing.assert_array_equal, on.states, off.states)
    shas = [checkpoint.weights_sha256(kept.states) for kept in (off, on)]
    assert shas[0] == shas[1]


def test_predict_votes_as_the_last_evaluation(runs, tmp_path):
    folder, config, votes = runs
    test = train.load.dataset(config).tests["test"]
    np.savez(tmp_path / "test.npz", test_images=test.images)
    for epoch in (1, 2):
        _, probs, _ = predict.predict(
            folder / "on", tmp_path / "test.npz", epoch
        )
        wanted = softmax(votes[epoch].scores.astype(np.float64), -1)
        np.testing.assert_allclose(probs, wanted, rtol=1e-4, atol=1e-7)
    _, probs, _ = predict.predict(folder / "off", tmp_path / "test.npz")
    assert not np.allclose(probs, wanted, rtol=1e-2)


def test_a_resumed_average_is_the_same_to_the_bit(runs):
    folder, config, _ = runs
    check_resume(config, folder / "on")


@pytest.mark.parametrize("start_phase", ["", "train"])
@pytest.mark.parametrize("source", ["off", "on"])
def test_init_from_takes_what_was_trained(runs, tmp_path, source, start_phase):
    folder, config, _ = runs
    config = tiny("erm", **FIELDS, **{"model.ema": 0.9})
    shutil.copytree(folder / source, tmp_path / "old")
    with config.unlocked():
        config.init_from, config.start_phase = f"{tmp_path}/old", start_phase
    data = train.fingerprint.of_dataset(dataset := train.load.dataset(config))
    trainer = train.Trainer(config, dataset)
    states, _, _ = train._initial(config, trainer, data)
    kept = checkpoint.load(folder / source).states[0]
    jax.tree.map(
        np.testing.assert_array_equal, states[0].params, kept["params"]
    )
    assert states[0].average.epochs == 0
