"""One step of SGD, its compiled form, and inference in batches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import erm as erm_config
from jaxnlt import infer as inference
from jaxnlt import method as base
from jaxnlt import models, step
from jaxnlt.augment import table
from jaxnlt.data.records import Dataset, Split
from jaxnlt.data.streaming import InMemory
from jaxnlt.runtime import sharding
from tests import typed

# update ----------------------------------------------------------------------


def linear(net, params, batch, draws, division, carry):
    """Gradient 1 for every parameter, the frozen one included."""
    return base.LossResult(params["w"] + params["frozen"], {}, carry)


def stepped(rate, before=(0, 0), **fields):
    """Parameters and momentum after a step, of the momentum before it."""
    fields = {"loss": linear, "streams": None, "views": {}} | fields
    phase = base.Phase(name="test", **fields)
    params = {"w": np.float32(2), "frozen": np.float32(3)}
    state = base.init_state({"params": params, "batch_stats": {}}, ())
    trace = dict(zip(params, map(np.float32, before), strict=True))
    state = state.with_momentum(trace)
    optimizer = {"momentum": 0.5, "weight_decay": 0.1}
    state, _ = typed.update(
        None, phase, optimizer, state, None, None, (), None, rate
    )
    return state.params, state.momentum


def test_untrained_parameters_keep_value_and_momentum():
    params, trace = stepped(0.5, (1, 4), trainable=lambda p: p != ("frozen",))
    assert params["frozen"] == 3 and trace["frozen"] == 4
    np.testing.assert_allclose(trace["w"], 0.5 + 1.2, rtol=1e-6)
    assert params["w"] < 2


@pytest.mark.parametrize("decay, expected", [(None, 1.2), (0.0, 1), (0.5, 2)])
def test_weight_decay_of_a_phase_goes_before_the_optimizer_s(decay, expected):
    _, trace = stepped(1.0, weight_decay=decay)
    np.testing.assert_allclose(trace["w"], expected, rtol=1e-6)


# The compiled step -----------------------------------------------------------


def split(size, seed):
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 8, 8, 1), np.uint8)
    labels = (np.arange(size) % 3).astype(np.int32)
    return Split(images, labels, labels, np.arange(size))


DATASET = Dataset(
    split(6, 0), split(5, 1), ("a", "b", "c"), (0.5,), (0.25,), "test", {}
)


@pytest.fixture(scope="module")
def tiny():
    config = erm_config.get_config("digits,smoke")
    with config.unlocked():
        config.model.width, config.model.blocks = 4, (1,)
        config.batch_size = config.warmup_batch_size = 2
        config.eval_batch_size = 4
    network = models.build(config.model, 3, ("logits",))
    mesh = sharding.make_mesh([2])
    return config, network, mesh, network.init(0, (8, 8, 1))


def put(tree, mesh):
    return jax.device_put(tree, sharding.replicated(mesh))


def test_make_step_trains_donates_and_compiles_once(tiny):
    config, network, mesh, variables = tiny
    method = base.create(config, base.DataInfo(DATASET.train.labels, 3))
    compiled = step.make_step(network, method.phase(0), config, mesh)
    state = put(base.init_state(variables, {}), mesh)
    first = state
    images = put(InMemory.of(DATASET.train.images), mesh)
    losses = []
    for i in range(6):
        index = np.array([0, 1], np.int32)
        rows = stream(index, DATASET.train.labels[index])
        # Counts and sizes of other selections are values, not shapes.
        division = base.Division(
            counts=np.array([i, 1, 2], np.float32),
            num_labelled=np.float32(10 + i),
            num_unlabelled=np.float32(0),
            shared=(),
        )
        # So are means and deviations of other images.
        statistics = table.StatisticsArrays(
            np.array([i / 12], np.float32), np.array([0.25], np.float32)
        )
        state, terms = compiled(
            state,
            None,
            images,
            put(statistics, mesh),
            {"x": rows},
            put(division, mesh),
            base.Time(np.int32(i // 3), np.int32(i % 3)),
            np.float32(0.1 / (i + 1)),
            jax.random.key(0),
        )
        losses.append(float(terms["loss"]))
        assert terms["loss"] == terms["loss_ce"]
    assert losses[-1] < losses[0]
    assert compiled._cache_size() == 1
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(first))
    assert jax.tree.structure(state) == jax.tree.structure(
        base.init_state(variables, {})
    )


def stream(index, labels):
    """Rows of a stream before augmentation."""
    weights = np.ones(len(index), np.float32)
    return base.Stream(np.array(index, np.int32), labels, weights, (), ())


def traced_views(tiny, monkeypatch, at_step=0):
    """Keys and images with which the views of one step are augmented."""
    config, network, mesh, variables = tiny
    seen = []

    def record(name):
        def augmentation(key, images):
            seen.append((name, key, images))
            return images

        return augmentation

    recording = {name: (record(name),) for name in table.AUGMENTATIONS}
    monkeypatch.setattr(table, "AUGMENTATIONS", recording)

    def loss(net, params, batch, draws, division, carry):
        views = [*batch.u.views, *batch.x.views]
        carry = views, draws["key"]
        return base.LossResult(0.0 * params["w"], {}, carry)

    both = base.Phase(
        name="test",
        loss=loss,
        streams=None,
        views={"x": ("weak", "strong", "none"), "u": ("weak",)},
        draws=lambda key, sizes: {"key": jax.random.key_data(key)},
    )
    compiled = step.make_step(network, both, config, mesh)
    rows = {
        name: stream(index, np.zeros(2, np.int32))
        for name, index in (("x", [3, 1]), ("u", [0, 5]))
    }
    state = base.init_state(
        {"params": {"w": np.float32(0)}, "batch_stats": {}}, ([], ())
    )
    with jax.disable_jit():
        images = InMemory.of(DATASET.train.images)
        after, _ = compiled.__wrapped__(
            state,
            None,
            images,
            table.as_arrays(DATASET, np.float32),
            rows,
            None,
            base.Time(np.int32(0), np.int32(at_step)),
            np.float32(0),
            jax.random.key(0),
        )
    return seen, after.carry


def test_every_view_has_its_rows_and_its_own_key(tiny, monkeypatch):
    seen, (views, drawn) = traced_views(tiny, monkeypatch)
    # Digits: weak is a shift, strong their own table; 'none' is nothing.
    names = [name for name, _, _ in seen]
    assert names == ["shift", "shift", "digits_strong"]
    images = DATASET.train.images
    rows = [[0, 5], [3, 1], [3, 1], [3, 1]]
    for (_, _, given), index in zip(seen, rows[:3], strict=True):
        np.testing.assert_array_equal(given, images[index])
    scaled = (images / 255 - 0.5) / 0.25
    for view, index in zip(views, rows, strict=True):
        assert view.dtype == jnp.float32
        np.testing.assert_allclose(view, scaled[index], rtol=1e-5, atol=1e-6)
    later, _ = traced_views(tiny, monkeypatch, at_step=1)
    keys = [jax.random.key_data(key) for _, key, _ in seen + later]
    assert len({tuple(key.tolist()) for key in [*keys, drawn]}) == 7


# Inference -------------------------------------------------------------------


def test_programs_with_convolutions_are_given_the_options(tiny, monkeypatch):
    config, network, mesh, variables = tiny
    asked = {"no_such_option": True}
    monkeypatch.setattr(step.cpu, "options", lambda: asked)
    infer = inference.Inference(network, ("logits",), config, DATASET, mesh)
    images = put(InMemory.of(DATASET.train.images), mesh)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        infer(variables, images, np.arange(4))
    method = base.create(config, base.DataInfo(DATASET.train.labels, 3))
    compiled = step.make_step(network, method.phase(0), config, mesh)
    index = np.array([0, 1], np.int32)
    with pytest.raises(jax.errors.JaxRuntimeError, match="no_such_option"):
        compiled(
            put(base.init_state(variables, {}), mesh),
            None,
            images,
            put(table.as_arrays(DATASET, np.float32), mesh),
            {"x": stream(index, DATASET.train.labels[index])},
            put(base.Division(np.ones(3, np.float32), 2.0, 0.0, ()), mesh),
            base.Time(np.int32(0), np.int32(0)),
            np.float32(0.1),
            jax.random.key(0),
        )


def test_inference_pads_and_collect_drops_the_padding(tiny):
    config, network, mesh, variables = tiny
    infer = inference.Inference(network, ("logits",), config, DATASET, mesh)
    images = put(InMemory.of(DATASET.train.images), mesh)
    rows = np.array([5, 0, 3, 1, 2])
    batches = sharding.fetch(infer(variables, images, rows))
    assert [b["logits"].shape for b in batches] == [(4, 3), (4, 3)]
    out = inference.collect(batches, 5)["logits"]
    assert out.shape == (5, 3)
    # Eval mode: a row's output does not depend on the others.
    order = np.array([4, 2, 0, 3, 1])
    moved = sharding.fetch(infer(variables, images, rows[order]))
    np.testing.assert_allclose(
        inference.collect(moved, 5)["logits"], out[order], rtol=1e-5, atol=1e-6
    )
    one = sharding.fetch(infer(variables, images, rows[:1]))
    np.testing.assert_allclose(
        inference.collect(one, 1)["logits"], out[:1], rtol=1e-5, atol=1e-6
    )
    # Test images, of another number, share the compiled network.
    infer(variables, put(InMemory.of(DATASET.test.images), mesh), np.arange(5))
    assert infer._infer._cache_size() == 1


def test_collect_joins_every_head():
    batches = [
        {"a": np.array([[k], [k + 1]]), "b": np.array([k, k])} for k in (0, 2)
    ]
    out = inference.collect(batches, 3)
    np.testing.assert_array_equal(out["a"], [[0], [1], [2]])
    np.testing.assert_array_equal(out["b"], [0, 0, 2])
