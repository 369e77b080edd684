"""The epoch of a toy method: who is selected, who teaches, who is seen.

The network is one matrix and every loss has gradient 1, so that each step of
rate 1 takes 1 off the weights and a value says how far a network has come.
"""

import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dasc as dasc_config
from configs import erm as erm_config
from jaxnlt import data, models, sharding, train
from jaxnlt import trainer as trainer_lib
from jaxnlt.errors import UserError
from jaxnlt.methods import base
from jaxnlt.trainer import Trainer

SIZE, CLASSES = 8, 3
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)


def split(labels, true):
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return data.Split(images, labels, true, np.arange(len(labels)))


DATASET = data.Dataset(
    train=split(LABELS, LABELS),
    test=split(LABELS[:5], LABELS[:5]),
    class_names=("ant", "bee", "cow"),
    mean=(0.0,),
    std=(1 / 255,),
    test_kind="test",
    facts={"noise_rate_realised": 0.0},
)


class Network:
    """Scores are the weights, plus the image's number in its first pixel."""

    def init(self, seed, shape):
        del seed, shape
        return {
            "params": {"w": np.full(CLASSES, 100, np.float32)},
            "batch_stats": {},
        }

    def apply(self, variables, images, heads, train):
        del heads, train
        number = images[:, :1, 0, 0]
        scores = number + variables["params"]["w"]
        return {"logits": scores}, variables["batch_stats"]


class Recorder(base.Selector):
    """Trusts the rows it was made with and writes down what it is shown."""

    outputs = ("logits",)

    def __init__(self, *labelled, **fields):
        self.labelled, self.fields = labelled, fields
        self.calls = []

    def init_memory(self):
        return {"visits": np.zeros(1)}

    def select(self, outputs, k, data, memory, epoch, rng):
        seen = [out["logits"][:, 0] - out["logits"][0, 0] for out in outputs]
        weights = [float(out["logits"][0, 0]) for out in outputs]
        self.calls.append(
            SimpleNamespace(
                k=k,
                epoch=epoch,
                numbers=seen[0],
                weights=weights,
                labels=data.labels,
                visits=memory["visits"][0],
            )
        )
        labelled = np.array(self.labelled[k % len(self.labelled)], int)
        size = len(data.labels)
        fields = {
            "labelled": labelled,
            "unlabelled": np.setdiff1d(np.arange(size), labelled),
            "weights": 10 + np.arange(size, dtype=float),
            "counts": np.bincount(
                data.labels[labelled], minlength=data.num_classes
            ),
            "clean_probability": np.full(size, 0.25 + 0.5 * k),
        }
        memory = {"visits": memory["visits"] + 1}
        return base.Selection(**(fields | self.fields)), memory


def falling(net, params, batch, draws, selection, carry):
    """Gradient 1 for every weight; the terms tell what was fed."""
    w = params["w"].sum()
    loss = w - jax.lax.stop_gradient(w)
    rows = batch["x"]
    terms = {
        "own": params["w"][0],
        "counts": selection["counts"][0],
        "num_labelled": selection["num_labelled"],
        "num_unlabelled": selection["num_unlabelled"],
        "labels": rows["labels"].sum(),
        "weights": rows["weights"].sum(),
        "images": rows["views"][0][:, 0, 0, 0].sum(),
    }
    if net._peer is not None:
        image = jnp.zeros((1, 2, 2, 1))
        terms["peer"] = net.peer(image, ("logits",))["logits"][0, 0]
    if "extra" in rows:
        terms["extra"] = rows["extra"].sum()
        terms["shared"] = selection["bonus"]
    return loss, carry, terms


def phase(name="toy", **fields):
    fields = {
        "loss": falling,
        "streams": base.single_stream(2),
        "views": {"x": ("none",)},
    } | fields
    return base.Phase(name=name, **fields)


@pytest.fixture
def make(monkeypatch):
    """Builds a trainer of a toy method with the given phases, one an epoch."""

    def build(*phases, num_nets=2, **methods):
        class Toy(base.Method):
            def phases(self):
                return tuple({p.name: p for p in phases}.values())

            def phase(self, epoch):
                return phases[min(epoch, len(phases) - 1)]

        Toy.num_nets = num_nets
        for name, function in methods.items():
            setattr(Toy, name, function)
        monkeypatch.setattr(base, "create", lambda *args: Toy(*args))
        monkeypatch.setattr(models, "build", lambda *a, **k: Network())
        return Trainer(configuration(), DATASET)

    return build


def configuration(epochs=1):
    config = erm_config.get_config()
    with config.unlocked():
        config.epochs = epochs
        config.batch_size = config.warmup_batch_size = 2
        config.eval_batch_size = 4
        config.optimizer.momentum = config.optimizer.weight_decay = 0.0
        config.optimizer.learning_rate = 1.0
    return config


def run(trainer, epochs=1):
    """Trains epochs as train.run does; gives the facts of each."""
    states = trainer.put(trainer.init_states())
    memory, records = trainer.init_memory(), []
    for epoch in range(epochs):
        now = trainer.method.phase(epoch)
        pooled = sharding.fetch(trainer.infer_pools(epoch, now, states))
        states, memory, facts = trainer.train(
            epoch, now, states, pooled, memory, lambda *args: None
        )
        facts["terms"] = sharding.fetch(facts["terms"])
        records.append(facts)
    return SimpleNamespace(
        facts=records, memory=memory, weights=[w(s) for s in states]
    )


def w(state):
    return float(state["params"]["w"][0])


# Order and peers -------------------------------------------------------------


def test_in_turn_selects_for_all_before_training_any(make):
    selector = Recorder([0, 1, 2])  # two steps a network
    result = run(make(phase(selector=selector)), epochs=2)
    seen = [(c.epoch, c.k, c.weights) for c in selector.calls]
    assert seen == [
        (0, 0, [100, 100]),
        (0, 1, [100, 100]),
        (1, 0, [98, 98]),
        (1, 1, [98, 98]),
    ]
    assert result.weights == [96, 96]


def test_select_train_each_selects_anew_before_each_network(make):
    selector = Recorder([0, 1, 2])
    each = phase(selector=selector, order="select_train_each")
    result = run(make(each))
    calls = [(c.k, c.weights) for c in selector.calls]
    # Network 1 is selected for after network 0 has moved; each one once.
    assert calls == [(0, [100, 100]), (1, [98, 100])]
    assert len(result.memory["history"]) == 1
    assert len(result.facts[0]["selections"]) == 2


def test_select_train_each_selects_for_the_teacher(make):
    selector = Recorder([0, 1, 2])
    each = phase(selector=selector, order="select_train_each", taught_by="peer")
    run(make(each))
    calls = [(c.k, c.weights) for c in selector.calls]
    assert calls == [(1, [100, 100]), (0, [98, 100])]


@pytest.mark.parametrize("field", ["order", "peer", "taught_by"])
def test_unknown_words_in_a_phase_are_refused(field):
    with pytest.raises(ValueError, match=field):
        phase(**{field: "sometimes"})


@pytest.mark.parametrize("peer, seen", [("updated", 98), ("epoch_start", 100)])
def test_what_network_1_sees_of_network_0(make, peer, seen):
    selector = Recorder([0, 1, 2])
    result = run(make(phase(selector=selector, peer=peer)))
    first, second = (terms["peer"] / 2 for terms in result.facts[0]["terms"])
    assert (first, second) == (100, seen)
    # Each network's own values lie before its first and second step.
    assert [t["own"] for t in result.facts[0]["terms"]] == [199, 199]


def test_no_peer_unless_asked_for(make):
    result = run(make(phase()))
    assert "peer" not in result.facts[0]["terms"][0]


@pytest.mark.parametrize("teacher, steps", [("self", [1, 3]), ("peer", [3, 1])])
def test_taught_by(make, teacher, steps):
    selector = Recorder([0, 1], [2, 3, 4, 5, 6])
    result = run(make(phase(selector=selector, taught_by=teacher)))
    facts = result.facts[0]
    assert facts["steps"] == steps
    assert result.weights == [100 - n for n in steps]
    sizes = [t["num_labelled"] for t in facts["terms"]]
    # Sums over steps of 2 and 5 labelled rows.
    assert sizes == [{1: 2, 3: 15}[n] for n in steps]
    assert facts["images"] == 8


# What is fed -----------------------------------------------------------------


def test_without_a_selector_all_labels_are_trained_on(make):
    result = run(make(phase(), num_nets=1))
    facts = result.facts[0]
    assert facts["steps"] == [4] and result.weights == [96]
    (terms,) = facts["terms"]
    assert terms["labels"] == LABELS.sum()
    assert terms["images"] == np.arange(SIZE).sum()
    assert terms["weights"] == SIZE and terms["counts"] == 4 * 3
    assert terms["num_unlabelled"] == 0
    assert result.memory["history"].shape == (0, SIZE)


def test_rows_carry_their_label_weight_and_image(make):
    result = run(make(phase(selector=Recorder([1, 5])), num_nets=1))
    (terms,) = result.facts[0]["terms"]
    assert terms["labels"] == LABELS[1] + LABELS[5]
    assert terms["images"] == 1 + 5
    assert terms["weights"] == 11 + 15
    assert (terms["num_labelled"], terms["num_unlabelled"]) == (2, 6)


def test_per_sample_and_shared_extras_reach_the_loss(make):
    selector = Recorder(
        [1, 5],
        per_sample={"extra": np.arange(SIZE, dtype=np.float32) ** 2},
        shared={"bonus": np.float32(9)},
    )
    result = run(make(phase(selector=selector), num_nets=1))
    (terms,) = result.facts[0]["terms"]
    assert terms["extra"] == 1 + 25 and terms["shared"] == 9


def test_pool_is_mapped_to_rows_of_the_whole_set(make):
    pool = np.array([6, 1, 5, 2])
    selector = Recorder(
        [0, 2],
        per_sample={"extra": np.array([1.0, 2, 4, 8])},
        shared={"bonus": 0},
    )
    subset = phase(selector=selector, pool=lambda epoch, k, rng: pool)
    result = run(make(subset, num_nets=1))
    (call,) = selector.calls
    np.testing.assert_array_equal(call.numbers, pool - 6)
    np.testing.assert_array_equal(call.labels, LABELS[pool])
    (chosen,) = result.facts[0]["selections"]
    np.testing.assert_array_equal(chosen.labelled, [6, 5])
    np.testing.assert_array_equal(chosen.unlabelled, [1, 2])
    np.testing.assert_array_equal(chosen.weights[pool], [10, 11, 12, 13])
    assert chosen.weights.shape == (SIZE,)
    assert chosen.clean_probability is None
    (terms,) = result.facts[0]["terms"]
    assert terms["labels"] == LABELS[6] + LABELS[5]
    assert terms["images"] == 11 and terms["extra"] == 1 + 4
    assert not len(result.memory["history"])


def test_a_reordered_pool_of_everything_is_mapped_too(make):
    selector = Recorder([0, 1])
    order = np.arange(SIZE)[::-1]
    subset = phase(selector=selector, pool=lambda epoch, k, rng: order)
    result = run(make(subset, num_nets=1))
    (chosen,) = result.facts[0]["selections"]
    np.testing.assert_array_equal(chosen.labelled, order[:2])


def test_every_network_has_a_pool_of_its_own(make):
    pools = [np.array([0, 3, 6]), np.array([1, 4])]
    selector = Recorder([0])
    subset = phase(selector=selector, pool=lambda epoch, k, rng: pools[k])
    result = run(make(subset))
    seen = [call.labels.tolist() for call in selector.calls]
    assert seen == [[0, 0, 0], [1, 1]]
    chosen = [s.labelled.tolist() for s in result.facts[0]["selections"]]
    assert chosen == [[0], [1]]


def test_steps_of_an_epoch_can_be_limited(make):
    trainer = make(phase(), num_nets=1)
    with trainer.config.unlocked():
        trainer.config.max_steps = 3
    result = run(trainer)
    assert result.facts[0]["steps"] == [3] and result.weights == [97]


def test_memory_of_selectors_is_kept_and_clean_probabilities_too(make):
    selector = Recorder([0, 1])
    result = run(make(phase(selector=selector)), epochs=3)
    assert [c.visits for c in selector.calls] == [0, 0, 1, 1, 2, 2]
    # The mean of 0.25 and 0.75, an entry an epoch.
    np.testing.assert_array_equal(
        result.memory["history"], np.full((3, SIZE), 0.5)
    )


def test_selections_of_any_size_share_one_compiled_step(make):
    selector = Recorder([0], [1, 2, 3, 4, 6])
    trainer = make(phase(selector=selector, peer="updated"))
    run(trainer, epochs=2)
    assert trainer.steps["toy"]._cache_size() == 1


def test_the_same_seed_shuffles_alike_and_epochs_differ(make):
    orders = []

    def streams(selection, rng):
        plan = base.single_stream(2)(selection, rng)
        orders.append(plan["x"].ravel().tolist())
        return plan

    for _ in range(2):
        run(make(phase(streams=streams)), epochs=2)
    assert orders[:4] == orders[4:]
    assert len({tuple(order) for order in orders[:4]}) == 4


def test_draws_differ_by_step_network_and_epoch(make):
    def loss(net, params, batch, draws, selection, carry):
        return 0.0 * params["w"].sum(), carry, {"drawn": draws["number"]}

    drawing = phase(
        loss=loss,
        selector=Recorder([0, 1]),  # one step an epoch
        draws=lambda key, sizes: {"number": jax.random.uniform(key)},
    )
    first, second = (run(make(drawing), epochs=2).facts for _ in range(2))
    drawn = [float(t["drawn"]) for facts in first for t in facts["terms"]]
    again = [float(t["drawn"]) for facts in second for t in facts["terms"]]
    assert len(set(drawn)) == 4 and drawn == again


# What is said ----------------------------------------------------------------


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "jaxnlt"]


def test_nobody_trusted_trains_on_all_and_says_so(make, caplog):
    selector = Recorder([])
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        result = run(make(phase(selector=selector), num_nets=1))
    (chosen,) = result.facts[0]["selections"]
    np.testing.assert_array_equal(chosen.labelled, np.arange(SIZE))
    np.testing.assert_array_equal(chosen.counts, [3, 3, 2])
    assert result.facts[0]["steps"] == [4]
    said = [text for text in warnings(caplog) if "trusts no sample in" in text]
    assert said == ["network 0 trusts no sample in epoch 0; all are trained on"]


def test_nothing_left_unlabelled_is_said(make, caplog):
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        run(make(phase(selector=Recorder(range(SIZE))), num_nets=1))
    (text,) = warnings(caplog)
    assert text.startswith("network 0 leaves nothing unlabelled in epoch 0")


def test_an_emptied_class_is_named(make, caplog):
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        run(make(phase(selector=Recorder([0, 2])), num_nets=1))
    (text,) = warnings(caplog)
    assert text.startswith("network 0 trusts no sample of class bee in epoch 0")


# In the loop -----------------------------------------------------------------


def test_enter_is_called_at_the_start_of_phases_only(
    make, monkeypatch, tmp_path
):
    entered = []

    def enter(self, epoch, states, memory):
        entered.append((epoch, [w(s) for s in states], memory["method"]))
        if epoch == 2:  # a fresh start of every weight
            fresh = jax.tree.map(
                lambda x: np.full(x.shape, 50, x.dtype),
                [s["params"] for s in states],
            )
            states = [
                s | {"params": p} for s, p in zip(states, fresh, strict=True)
            ]
        return states, memory | {"method": {"since": np.array([epoch])}}

    selector = Recorder([0, 1])
    warm = phase("warm")
    second = phase("second", selector=selector)
    trainer = make(warm, warm, second, second, enter=enter)
    monkeypatch.setattr(train, "Trainer", lambda config, dataset: trainer)
    monkeypatch.setattr(data, "load", lambda config: DATASET)
    monkeypatch.setattr(train.outcome, "write", lambda *args: {"done": True})
    assert train.run(configuration(4), str(tmp_path / "run")) == {"done": True}
    # Four steps an epoch of warm-up, one in the second phase.
    assert entered[0] == (0, [100, 100], {})
    ((epoch, weights, method),) = entered[1:]
    assert (epoch, weights) == (2, [92, 92])
    np.testing.assert_array_equal(method["since"], [0])
    # Selection of the phase's first epoch sees what enter has made.
    seen = [(c.epoch, c.k, c.weights) for c in selector.calls]
    assert seen == [
        (2, 0, [50, 50]),
        (2, 1, [50, 50]),
        (3, 0, [49, 49]),
        (3, 1, [49, 49]),
    ]


def test_vote_hands_the_collected_heads_to_the_method(make):
    trainer = make(
        phase(), predict=lambda self, outs, memory: outs[1]["logits"]
    )
    states = trainer.put(trainer.init_states())
    fetched = sharding.fetch(trainer.infer_test(states))
    scores, suggested = trainer_lib.vote(trainer.method, fetched, 5, {})
    assert scores.shape == (5, CLASSES)
    np.testing.assert_array_equal(scores[:, 0], 100 + np.arange(5))
    np.testing.assert_array_equal(suggested, scores)


def test_an_unknown_augmentation_is_refused():
    config = configuration()
    config.augment.strong = "randaugment"
    with pytest.raises(UserError, match="^config.augment.strong: "):
        Trainer(config, DATASET)


def test_networks_start_from_seeds_of_their_own():
    config = dasc_config.get_config("digits,smoke")
    with config.unlocked():
        config.model.width, config.model.blocks = 2, (1,)
        config.dasc.projection_dim = 2
    dataset = data.Dataset(
        *(split(LABELS, LABELS), split(LABELS, LABELS)),
        *(("a", "b", "c"), (0.5,), (0.25,), "test", {}),
    )
    first, second = Trainer(config, dataset).init_states()
    again, _ = Trainer(config, dataset).init_states()
    kernels = [s["params"]["logits"]["kernel"] for s in (first, second, again)]
    assert (kernels[0] != kernels[1]).any()
    np.testing.assert_array_equal(kernels[0], kernels[2])
    assert first["carry"]["fill"] == 0
