"""The boundary between a method and the loop."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxnlt import method as base
from jaxnlt.config import fields
from jaxnlt.config.base import OptimizerOptions
from jaxnlt.config.family import SemiOptions

# Streams ---------------------------------------------------------------------


def selected(labelled, unlabelled):
    size = len(labelled) + len(unlabelled)
    return base.Selection(
        labelled=np.array(labelled, int),
        unlabelled=np.array(unlabelled, int),
        weights=np.ones(size),
        counts=np.ones(2),
    )


def test_split_streams_are_as_long_as_the_labelled_side():
    rows = base.split_streams(2, 3)
    plan = rows(selected([0, 2, 4, 6, 8], [1, 3]), np.random.default_rng(0))
    assert plan["x"].shape == (3, 2) and plan["u"].shape == (3, 3)
    assert set(plan["x"].ravel()) == {0, 2, 4, 6, 8}
    assert set(plan["u"].ravel()) == {1, 3}


def test_split_streams_with_nothing_unlabelled_repeat_labelled_rows():
    plan = base.split_streams(2, 2)(
        selected([5, 7, 9], []), np.random.default_rng(0)
    )
    assert plan["x"].shape == plan["u"].shape == (2, 2)
    assert set(plan["u"].ravel()) <= {5, 7, 9}


def test_single_stream_and_trust_all():
    info = base.DataInfo(np.array([0, 2, 2, 0, 2]), 4)
    everyone = base.trust_all(info)
    assert everyone.counts.tolist() == [2, 0, 3, 0]
    assert everyone.weights.tolist() == [1] * 5
    assert not len(everyone.unlabelled)
    plan = base.single_stream(2)(everyone, np.random.default_rng(0))
    assert list(plan) == ["x"] and plan["x"].shape == (3, 2)
    assert set(plan["x"].ravel()) == set(range(5))


# A network within a step -----------------------------------------------------


def counting(variables, images, heads, train):
    """Scales images by a parameter; train mode counts its calls."""
    stats = variables["batch_stats"]
    outputs = dict.fromkeys(heads, variables["params"]["w"] * images)
    return outputs, {"calls": stats["calls"] + 1} if train else stats


def test_net_moves_statistics_in_train_mode_and_guesses_without_gradient():
    def both(params):
        net = base.Net(counting, {"calls": 0}, None)
        own = net(params, jnp.ones(2), ("a",))["a"].sum()
        guessed = net.guess(params, jnp.ones(2), ("a", "b"))
        assert net.batch_stats == {"calls": 2}
        assert set(guessed) == {"a", "b"}
        return own + 5 * guessed["a"].sum()

    value, grad = jax.value_and_grad(both)({"w": jnp.float32(3)})
    assert value == 36 and grad["w"] == 2


def test_net_shows_its_peer_in_eval_mode():
    peer = {"params": {"w": jnp.float32(7)}, "batch_stats": {"calls": 0}}
    net = base.Net(counting, {"calls": 0}, peer)
    np.testing.assert_array_equal(net.peer(jnp.ones(2), ("a",))["a"], [7, 7])
    assert net.batch_stats == {"calls": 0}


# Defaults of a method --------------------------------------------------------


class Selects(base.Selector):
    outputs = ("features", "logits")


class TwoHeads(base.Method):
    options_type = SemiOptions
    num_nets = 2
    vote = ("logits", "balanced")

    def phases(self):
        options = {"loss": None, "streams": None, "views": {}}
        return (
            base.Phase(name="first", **options),
            base.Phase(name="second", selector=Selects(), **options),
        )


class OneHead(TwoHeads):
    vote = ("logits",)


def make(cls, **optimizer):
    config = ml_collections.ConfigDict(
        {
            "optimizer": fields.as_dict(OptimizerOptions(**optimizer)),
            "epochs": 9,
            "selector": "",
            "method": "toy",
            "benchmark": "digits",
            "batch_size": 32,
            "warmup_batch_size": 32,
            "toy": fields.as_dict(SemiOptions()),
        }
    )
    return cls(config, base.DataInfo(np.zeros(3, int), 2))


def test_learning_rate_falls_at_every_drop():
    method = make(TwoHeads, learning_rate=0.4, drops=(3, 5), drop_factor=0.5)
    rates = [method.learning_rate(epoch) for epoch in range(7)]
    np.testing.assert_allclose(rates, [0.4] * 3 + [0.2] * 2 + [0.1] * 2)


def test_outputs_are_those_of_votes_and_selectors():
    assert make(TwoHeads).outputs == ("logits", "balanced", "features")


def test_predict_adds_all_voting_logits_and_suggest_the_balanced():
    outputs = [
        {"logits": np.array([[1.0, 0]]), "balanced": np.array([[10.0, 0]])},
        {"logits": np.array([[0, 100.0]]), "balanced": np.array([[0, 1000.0]])},
    ]
    two = make(TwoHeads)
    np.testing.assert_array_equal(two.predict(outputs, {}), [[11, 1100]])
    np.testing.assert_array_equal(two.suggest(outputs, {}), [[10, 1000]])
    one = make(OneHead)
    assert one.suggest(outputs, {}) is None
