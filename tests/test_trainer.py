"""The epoch: who is selected, teaches and is seen; its place in the loop."""

from dataclasses import replace

import jax
import numpy as np
import pytest

from configs import dasc as dasc_config
from jaxnlt import infer as inference
from jaxnlt import train
from jaxnlt.data import load
from jaxnlt.results import journal
from jaxnlt.runtime import sharding
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import Trainer
from tests.toy_epochs import (
    CLASSES,
    DATASET,
    Recorder,
    configuration,
    phase,
    run,
    w,
)

# Order and peers -------------------------------------------------------------


def test_in_turn_selects_for_all_before_training_any(toy_trainer):
    selector = Recorder([0, 1, 2])  # two steps a network
    result = run(toy_trainer(phase(selector=selector)), epochs=2)
    seen = [(c.epoch, c.k, c.weights) for c in selector.calls]
    at = {0: [100, 100], 1: [98, 98]}
    assert seen == [(epoch, k, at[epoch]) for epoch in (0, 1) for k in (0, 1)]
    assert result.weights == [96, 96]


def test_select_train_each_selects_anew_before_each_network(toy_trainer):
    selector = Recorder([0, 1, 2])
    each = phase(selector=selector, order="select_train_each")
    result = run(toy_trainer(each))
    calls = [(c.k, c.weights) for c in selector.calls]
    # Network 1 is selected for after network 0 has moved; each one once.
    assert calls == [(0, [100, 100]), (1, [98, 100])]
    assert len(result.results[0].selections) == 2


def test_select_train_each_selects_for_the_teacher(toy_trainer):
    selector = Recorder([0, 1, 2])
    each = phase(selector=selector, order="select_train_each", taught_by="peer")
    run(toy_trainer(each))
    calls = [(c.k, c.weights) for c in selector.calls]
    assert calls == [(1, [100, 100]), (0, [98, 100])]


@pytest.mark.parametrize("field", ["order", "peer", "taught_by"])
def test_unknown_words_in_a_phase_are_refused(field):
    with pytest.raises(UserError, match=field):
        phase(**{field: "sometimes"})


@pytest.mark.parametrize("peer, seen", [("updated", 98), ("epoch_start", 100)])
def test_what_network_1_sees_of_network_0(toy_trainer, peer, seen):
    selector = Recorder([0, 1, 2])
    result = run(toy_trainer(phase(selector=selector, peer=peer)))
    first, second = (terms["peer"] / 2 for terms in result.results[0].terms)
    assert (first, second) == (100, seen)
    # Each network's own values lie before its first and second step.
    assert [t["own"] for t in result.results[0].terms] == [199, 199]


def test_no_peer_unless_asked_for(toy_trainer):
    result = run(toy_trainer(phase()))
    assert "peer" not in result.results[0].terms[0]


@pytest.mark.parametrize("teacher, steps", [("self", [1, 3]), ("peer", [3, 1])])
def test_taught_by(toy_trainer, teacher, steps):
    selector = Recorder([0, 1], [2, 3, 4, 5, 6])
    result = run(toy_trainer(phase(selector=selector, taught_by=teacher)))
    found = result.results[0]
    assert found.steps == steps
    assert result.weights == [100 - n for n in steps]
    sizes = [t["num_labelled"] for t in found.terms]
    # Sums over steps of 2 and 5 labelled rows.
    assert sizes == [{1: 2, 3: 15}[n] for n in steps]
    assert found.images == 8


# In the loop -----------------------------------------------------------------


def test_enter_is_called_at_the_start_of_phases_only(
    toy_trainer, monkeypatch, tmp_path
):
    entered = []

    def enter(self, epoch, states, memory, fresh):
        entered.append((epoch, [w(s) for s in states], memory.method))
        if epoch == 2:
            states = jax.tree.map(lambda x: x - 50, fresh())
        return states, replace(memory, method=np.array([epoch]))

    selector = Recorder([0, 1])
    warm = phase("warm")
    second = phase("second", selector=selector)
    trainer = toy_trainer(
        warm,
        warm,
        second,
        second,
        enter=enter,
        init_memory=lambda self, states: np.array([-1]),
    )
    monkeypatch.setattr(train, "Trainer", lambda config, dataset: trainer)
    monkeypatch.setattr(load, "dataset", lambda config: DATASET)
    monkeypatch.setattr(journal.Journal, "finish", lambda *args: {"done": True})
    assert train.run(configuration(4), str(tmp_path / "run")) == {"done": True}
    # Four steps an epoch of warm-up, one in the second phase.
    assert entered[0] == (0, [100, 100], np.array([-1]))
    ((epoch, weights, method),) = entered[1:]
    assert (epoch, weights) == (2, [92, 92])
    np.testing.assert_array_equal(method, [0])
    # The phase's first selection sees what the last phase left, not what
    # `enter` has made of it.
    seen = [(c.epoch, c.k, c.weights) for c in selector.calls]
    at = {2: [92, 92], 3: [49, 49]}
    assert seen == [(epoch, k, at[epoch]) for epoch in (2, 3) for k in (0, 1)]


def test_vote_hands_the_collected_heads_to_the_method(toy_trainer):
    trainer = toy_trainer(
        phase(), predict=lambda self, outs, memory: outs[1]["logits"]
    )
    states = trainer.put(trainer.init_states())
    fetched = sharding.fetch(trainer.infer_test(states))
    scores, suggested = inference.vote(trainer.method, fetched, 5, {})
    # Two networks of one head each.
    assert scores.shape == (5, CLASSES) and suggested is None
    np.testing.assert_array_equal(scores[:, 0], (100 + np.arange(5)) / 2)


def test_networks_start_from_seeds_of_their_own_and_an_empty_carry():
    config = dasc_config.get_config("digits,smoke")
    with config.unlocked():
        config.model.width, config.model.blocks = 2, (1,)
        config.dasc.projection_dim = 2
    first, second = Trainer(config, DATASET).init_states()
    again, _ = Trainer(config, DATASET).init_states()
    kernels = [s.params["logits"]["kernel"] for s in (first, second, again)]
    assert (kernels[0] != kernels[1]).any()
    np.testing.assert_array_equal(kernels[0], kernels[2])
    options = config.dasc
    assert first.carry.rows.shape == (options.memory_size, 2)
    assert first.carry.fill == 0
