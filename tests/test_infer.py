"""Pools inferred as training sees them: other views, batch statistics."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import erm as erm_config
from jaxnlt import infer as inference
from jaxnlt import method as base
from jaxnlt import models
from jaxnlt.augment import table
from jaxnlt.data import streaming
from jaxnlt.data.records import Dataset, Split
from jaxnlt.runtime import sharding
from jaxnlt.runtime.errors import UserError
from tests import toy_epochs
from tests.golden.precision import PRECISIONS, precision

# A view of one network, in eval mode and in train mode -----------------------

ROWS = np.array([5, 0, 3, 1, 2, 4])  # two batches of four, the last filled up
BATCHES = (ROWS[:4], ROWS[[4, 5, 0, 1]])


def build(dtype):
    config = erm_config.get_config("digits,smoke")
    with config.unlocked():
        config.model.width, config.model.blocks = 4, (1,)
        config.model.dtype = np.dtype(dtype).name
        config.eval_batch_size = 4
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 8, 8, 1), np.uint8)
    split = Split(images, np.arange(6) % 3, None, np.arange(6))
    dataset = Dataset(
        split, split, ("a", "b", "c"), (0.5,), (0.25,), "test", {}
    )
    mesh = sharding.make_mesh([2])
    network = models.build(config.model, 3, ("logits",))
    infer = inference.Inference(network, ("logits",), config, dataset, mesh)
    held = jax.device_put(
        (
            base.init_state(network.init(0, (8, 8, 1)), ()),
            streaming.InMemory.of(images),
        ),
        sharding.replicated(mesh),
    )
    return network, infer, *held


def standardised(images, dtype):
    return ((np.asarray(images) / 255 - 0.5) / 0.25).astype(dtype)


def collected(batches):
    return inference.collect(sharding.fetch(batches), len(ROWS))["logits"]


@PRECISIONS
def test_train_mode_normalises_by_the_batch_and_moves_the_statistics(dtype):
    with precision(dtype):
        network, infer, state, images = build(dtype)
        key = jax.random.key(0)
        found, after = infer.view(state, images, ROWS, key, "none", True)
        expected, stats = [], state.batch_stats
        for rows in BATCHES:
            out, stats = network.apply(
                {"params": state.params, "batch_stats": stats},
                jnp.asarray(standardised(images.take(rows), dtype)),
                ("logits",),
                True,
            )
            expected.append(out)
        close = {"rtol": 1e-4, "atol": 1e-5}
        np.testing.assert_allclose(
            collected(found), collected(expected), **close
        )
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, **close),
            after.batch_stats,
            stats,
        )
        kinds = {leaf.dtype for leaf in jax.tree.leaves(after)}
        assert kinds == {np.dtype(dtype)}
        assert after.params is state.params
        plain = collected(infer(state.variables, images, ROWS))
        assert np.abs(plain - collected(found)).max() > 1e-3


def test_a_view_is_that_of_its_key_and_batch():
    network, infer, state, images = build(np.float32)
    key = jax.random.key(3)
    call = infer.view(state, images, ROWS, key, "weak", False)
    assert call[1] is state
    expected = []
    for i, rows in enumerate(BATCHES):
        seen = table.shift(jax.random.fold_in(key, i), images.take(rows))
        seen = jnp.asarray(standardised(seen, np.float32))
        expected.append(
            network.apply(state.variables, seen, ("logits",), False)[0]
        )
    found = collected(call[0])
    np.testing.assert_allclose(found, collected(expected), atol=1e-5)
    again, _ = infer.view(state, images, ROWS, key, "weak", False)
    np.testing.assert_array_equal(found, collected(again))
    other, _ = infer.view(state, images, ROWS, jax.random.key(4), "weak", False)
    assert np.abs(found - collected(other)).max() > 1e-3
    assert infer._infer_view._cache_size() == 1


# Devices ---------------------------------------------------------------------

# Fake devices need a process of their own: JAX counts them once.
SCRIPT = """
import json, sys
sys.path.insert(0, {root!r})
import jax, numpy as np
from jaxnlt.runtime import sharding
from tests import test_infer as views
make_mesh, found = sharding.make_mesh, []
for count in (1, 2):
    sharding.make_mesh = lambda sizes: jax.make_mesh(
        (count,), ("data",), devices=jax.devices()[:count],
        axis_types=(jax.sharding.AxisType.Auto,),
    )
    network, infer, state, images = views.build(np.float64)
    outputs, after = infer.view(
        state, images, views.ROWS, jax.random.key(0), "weak", True
    )
    leaves = jax.tree.leaves(after)
    assert {{len(leaf.sharding.device_set) for leaf in leaves}} == {{count}}
    found.append([views.collected(outputs), *sharding.fetch(leaves)])
print(json.dumps(max(np.abs(a - b).max() for a, b in zip(*found))))
"""


def test_one_device_or_two_see_the_same():
    root = str(pathlib.Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(root=root)],
        env=os.environ
        | {
            "JAX_ENABLE_X64": "1",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout.splitlines()[-1]) < 1e-10


# In the epoch ----------------------------------------------------------------


class Counting(toy_epochs.Network):
    """Counts train-mode passes; they add 1000 to the scores."""

    def init(self, seed, shape):
        start = {"passes": np.zeros((), np.float32)}
        return super().init(seed, shape) | {"batch_stats": start}

    def apply(self, variables, images, heads, train):
        out, stats = super().apply(variables, images, heads, train)
        scores = out["logits"] + 1000 * train
        return {"logits": scores}, {"passes": stats["passes"] + train}


@pytest.fixture
def epochs(toy_trainer, monkeypatch):
    """Builds a trainer of one phase, and a call that runs its epoch 0."""
    monkeypatch.setattr(toy_epochs, "Network", Counting)

    def make(**fields):
        selector = toy_epochs.Recorder([0, 1, 2])
        trainer = toy_trainer(toy_epochs.phase(selector=selector, **fields))
        views, plain = [], trainer.infer.view

        def spy(state, images, rows, key, view, train):
            key_data = tuple(np.asarray(jax.random.key_data(key)).tolist())
            views.append((key_data, view, train, len(rows)))
            return plain(state, images, rows, key, view, train)

        monkeypatch.setattr(trainer.infer, "view", spy)

        def run(epoch=0):
            phase = trainer.method.phase(epoch)
            states = trainer.put(trainer.init_states())
            pooled = trainer.infer_pools(epoch, phase, states)
            states, _, result = trainer.train(
                epoch,
                phase,
                states,
                sharding.fetch(pooled),
                trainer.init_memory(states),
                lambda *args: None,
            )
            passes = [float(s.batch_stats["passes"]) for s in states]
            return passes, sharding.fetch(result.terms)

        return trainer, selector, views, run

    return make


TURNS = {"order": "select_train_each", "peer": "updated"}


def test_a_trained_network_scores_for_the_next_in_train_mode(epochs):
    trainer, selector, views, run = epochs(pool_train=True, **TURNS)
    passes, _ = run()
    seen = [(call.k, call.weights) for call in selector.calls]
    # Network 0 has made two steps of 1 before the second selection.
    assert seen == [(0, [100, 100]), (1, [1098, 100])]
    # Eight rows, batches of four; the statistics go on into training.
    assert passes == [2, 0]
    assert [view[1:] for view in views] == [("none", True, 8)]
    # The program of every other inference is as it was.
    assert trainer.infer._infer._cache_size() == 1


@pytest.mark.parametrize(
    "fields",
    [TURNS, {"pool_train": True}, {"pool_train": True, "peer": "none"}],
)
def test_otherwise_all_score_in_eval_mode(epochs, fields):
    trainer, selector, views, run = epochs(**fields)
    passes, _ = run()
    assert passes == [0, 0] and views == []
    assert all(weight <= 100 for c in selector.calls for weight in c.weights)
    assert trainer.infer._infer_view._cache_size() == 0


def test_what_the_peer_was_at_the_epoch_s_start_stays(epochs):
    fields = {"pool_train": True, **TURNS, "peer": "epoch_start"}
    _, selector, _, run = epochs(**fields)
    passes, terms = run()
    assert passes == [2, 0]
    assert [t["peer"] / 2 for t in terms] == [100, 100]


def test_keys_of_a_view_tell_epoch_network_and_selection_apart(epochs):
    trainer, _, views, run = epochs(pool_view="weak", **TURNS)
    run(0), run(1)
    assert [view[1:] for view in views] == [("weak", False, 8)] * 8
    keys = [view[0] for view in views]
    assert len(set(keys)) == 8
    run(0)
    assert [view[0] for view in views[8:]] == keys[:4]
    of_training = {
        tuple(np.asarray(jax.random.key_data(key)).tolist())
        for epoch in (0, 1)
        for k in (0, 1)
        for key in [
            jax.random.fold_in(jax.random.fold_in(trainer.key, epoch), k)
        ]
        for key in [key, *(jax.random.fold_in(key, i) for i in range(9))]
    }
    assert not of_training & set(keys)
    test = trainer.infer_test(trainer.put(trainer.init_states()))
    assert len(test) == 2 and len(views) == 12  # test images: as ever


def test_the_view_of_a_pool_of_some_rows(epochs):
    def pool(epoch, k, rng):
        return np.arange(6) if k == 0 else np.arange(6) + 2

    _, _, views, run = epochs(pool_view="strong", pool=pool)
    run()
    assert [view[1:] for view in views] == [("strong", False, 6)] * 4


def test_an_unknown_view_is_refused():
    with pytest.raises(UserError, match="pool_view"):
        toy_epochs.phase(pool_view="sideways")


# Warnings --------------------------------------------------------------------


@pytest.mark.parametrize("stream", ["x", "u"])
def test_only_a_phase_with_an_unlabelled_stream_misses_it(
    toy_trainer, caplog, stream
):
    selector = toy_epochs.Recorder(range(8))
    now = toy_epochs.phase(
        selector=selector, views={"x": ("none",)} | {stream: ("none",)}
    )
    trainer = toy_trainer(now)
    states = trainer.put(trainer.init_states())
    pooled = sharding.fetch(trainer.infer_pools(0, now, states))
    trainer.select(0, now, pooled, trainer.init_memory(states), [0])
    said = [r for r in caplog.records if "unlabelled" in r.getMessage()]
    assert bool(said) == (stream == "u")
