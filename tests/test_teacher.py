"""Averaged networks teach: they guess and are selected by, if so asked."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import erm
from jaxnlt import method as base
from jaxnlt import step
from jaxnlt.config import base as config_lib
from jaxnlt.models import average
from jaxnlt.results import observing
from jaxnlt.runtime import sharding
from jaxnlt.runtime.errors import UserError
from tests import typed
from tests.test_method import counting
from tests.toy_epochs import Recorder, phase


@pytest.mark.parametrize("epochs, wanted", [(0, 5.0), (2, 3.0)])
def test_before_its_first_epoch_a_network_teaches_itself(epochs, wanted):
    mean = average.Average({"w": jnp.float32(3)}, {}, jnp.int32(epochs))
    own = {"params": {"w": jnp.float32(5)}, "batch_stats": {}}
    found = average.teacher(mean, own)
    assert found == {"params": {"w": wanted}, "batch_stats": {}}


@pytest.mark.parametrize("taught, guess, calls", [(False, 2, 1), (True, 7, 0)])
def test_a_teacher_guesses_without_moving_statistics(taught, guess, calls):
    def loss(net, params, batch, draws, division, carry):
        found = net.guess(params, jnp.ones(1), ("a",))["a"][0]
        return base.LossResult(params["w"] * found, {"guess": found}, carry)

    state = base.init_state(
        {"params": {"w": jnp.float32(2)}, "batch_stats": {"calls": 0}}, ()
    )
    teacher = {"params": {"w": jnp.float32(7)}, "batch_stats": {"calls": 0}}
    made, terms = step.update(
        counting,
        base.Phase("toy", loss, None, {}),
        state,
        None,
        typed.batch(),
        (),
        typed.division(),
        1.0,
        0.0,
        0.0,
        teacher if taught else None,
    )
    assert terms["guess"] == guess and made.params["w"] == 2 - guess
    assert made.batch_stats == {"calls": calls}


#: What selectors read and what peers show, in three epochs of two networks
#: that lose 2 in each: w is 98, 96, averages of 0.5 are 98, 97.
ITSELF = [100, 98, 96]
MEAN = [100, 98, 97]


@pytest.mark.parametrize(
    "teaches, read, peers",
    [
        ("none", ITSELF, ITSELF),
        ("selection", MEAN, ITSELF),
        ("guesses", ITSELF, MEAN),
        ("both", MEAN, MEAN),
    ],
)
def test_who_selects_and_who_is_the_peer(toy_trainer, teaches, read, peers):
    selector = Recorder([0, 1, 2])
    trainer = toy_trainer(phase(selector=selector, peer="epoch_start"))
    with trainer.config.unlocked():
        trainer.config.model.update({"ema": 0.5, "ema_teaches": teaches})
    trainer = type(trainer)(trainer.config, trainer.dataset)
    now = trainer.method.phases()[0]
    states = trainer.put(trainer.init_states())
    memory, shown = trainer.init_memory(states), []
    for epoch in range(3):
        pooled = sharding.fetch(trainer.infer_pools(epoch, now, states))
        states, memory, result = trainer.train(
            epoch, now, states, pooled, memory, lambda *args: None
        )
        shown.append(float(result.terms[0]["peer"]) / 2)
        averages = [float(state.average.params["w"][0]) for state in states]
    np.testing.assert_allclose(shown, peers)
    np.testing.assert_allclose(
        [c.weights[1] for c in selector.calls[::2]], read
    )
    assert averages == [95.5, 95.5]
    # What selects also votes, so that it is inferred once.
    pooled, votes = (
        jax.tree.leaves(sharding.fetch(found))
        for found in (
            trainer.infer_pools(3, now, states),
            trainer.infer_train(states),
        )
    )
    known = observing.inferred(trainer, {}, [pooled], now)
    assert bool(known) == (pooled[0][0, 0] == votes[0][0, 0])


def test_there_is_no_teacher_without_an_average():
    config = erm.get_config()
    with config.unlocked():
        config.model.ema_teaches = "both"
    with pytest.raises(UserError, match=r"^config\.model\.ema_teaches: needs"):
        config_lib.check(config)
