"""What an epoch feeds its steps, keeps, and says of a selection."""

import logging

import jax
import numpy as np

from jaxnlt import method as base
from tests.toy_epochs import LABELS, SIZE, Recorder, phase, run

# What is fed -----------------------------------------------------------------


def test_without_a_selector_all_labels_are_trained_on(toy_trainer):
    result = run(toy_trainer(phase(), num_nets=1))
    found = result.results[0]
    assert found.steps == [4] and result.weights == [96]
    (terms,) = found.terms
    assert terms["labels"] == LABELS.sum()
    assert terms["images"] == np.arange(SIZE).sum()
    assert terms["weights"] == SIZE and terms["counts"] == 4 * 3
    assert terms["num_unlabelled"] == 0


def test_rows_carry_their_label_weight_and_image(toy_trainer):
    result = run(toy_trainer(phase(selector=Recorder([1, 5])), num_nets=1))
    (terms,) = result.results[0].terms
    assert terms["labels"] == LABELS[1] + LABELS[5]
    assert terms["images"] == 1 + 5
    assert terms["weights"] == 11 + 15
    assert (terms["num_labelled"], terms["num_unlabelled"]) == (2, 6)


def test_per_sample_and_shared_extras_reach_the_loss(toy_trainer):
    selector = Recorder(
        [1, 5],
        per_sample={"extra": np.arange(SIZE, dtype=np.float32) ** 2},
        shared={"bonus": np.float32(9)},
    )
    result = run(toy_trainer(phase(selector=selector), num_nets=1))
    (terms,) = result.results[0].terms
    assert terms["extra"] == 1 + 25 and terms["shared"] == 9


def test_pool_is_mapped_to_rows_of_the_whole_set(toy_trainer):
    pool = np.array([6, 1, 5, 2])
    selector = Recorder(
        [0, 2],
        per_sample={"extra": np.array([1.0, 2, 4, 8])},
        shared={"bonus": 0},
    )
    subset = phase(selector=selector, pool=lambda epoch, k, rng: pool)
    result = run(toy_trainer(subset, num_nets=1))
    (call,) = selector.calls
    np.testing.assert_array_equal(call.numbers, pool - 6)
    np.testing.assert_array_equal(call.labels, LABELS[pool])
    (chosen,) = result.results[0].selections
    np.testing.assert_array_equal(chosen.labelled, [6, 5])
    np.testing.assert_array_equal(chosen.unlabelled, [1, 2])
    np.testing.assert_array_equal(chosen.weights[pool], [10, 11, 12, 13])
    assert chosen.weights.shape == (SIZE,)
    assert chosen.clean_probability is None
    (terms,) = result.results[0].terms
    assert terms["labels"] == LABELS[6] + LABELS[5]
    assert terms["images"] == 11 and terms["extra"] == 1 + 4


def test_a_reordered_pool_of_everything_is_mapped_too(toy_trainer):
    selector = Recorder([0, 1])
    order = np.arange(SIZE)[::-1]
    subset = phase(selector=selector, pool=lambda epoch, k, rng: order)
    result = run(toy_trainer(subset, num_nets=1))
    (chosen,) = result.results[0].selections
    np.testing.assert_array_equal(chosen.labelled, order[:2])


def test_every_network_has_a_pool_of_its_own(toy_trainer):
    pools = [np.array([0, 3, 6]), np.array([1, 4])]
    selector = Recorder([0])
    subset = phase(selector=selector, pool=lambda epoch, k, rng: pools[k])
    result = run(toy_trainer(subset))
    seen = [call.labels.tolist() for call in selector.calls]
    assert seen == [[0, 0, 0], [1, 1]]
    chosen = [s.labelled.tolist() for s in result.results[0].selections]
    assert chosen == [[0], [1]]


def test_steps_of_an_epoch_can_be_limited(toy_trainer):
    trainer = toy_trainer(phase(), num_nets=1)
    with trainer.config.unlocked():
        trainer.config.max_steps = 3
    result = run(trainer)
    assert result.results[0].steps == [3] and result.weights == [97]


def test_the_step_size_is_computed_once_before_the_steps(toy_trainer):
    # Between networks it would wait for the steps of the first.
    asked = []

    def learning_rate(self, epoch):
        asked.append(epoch)
        return 2.0 + epoch

    made = toy_trainer(phase(), learning_rate=learning_rate)
    result = run(made, epochs=2)
    assert asked == [0, 1]
    assert [r.learning_rate for r in result.results] == [2, 3]
    (steps, _), _ = (r.steps for r in result.results)
    assert result.weights == [100 - 5 * steps] * 2


def test_memory_of_selectors_is_kept(toy_trainer):
    selector = Recorder([0, 1])
    run(toy_trainer(phase(selector=selector)), epochs=3)
    assert [c.visits for c in selector.calls] == [0, 0, 1, 1, 2, 2]


def test_selections_of_any_size_share_one_compiled_step(toy_trainer):
    selector = Recorder([0], [1, 2, 3, 4, 6])
    trainer = toy_trainer(phase(selector=selector, peer="updated"))
    run(trainer, epochs=2)
    assert trainer.steps["toy"]._cache_size() == 1


def test_the_same_seed_shuffles_alike_and_epochs_differ(toy_trainer):
    orders = []

    def streams(selection, rng):
        plan = base.single_stream(2)(selection, rng)
        orders.append(plan["x"].ravel().tolist())
        return plan

    for _ in range(2):
        run(toy_trainer(phase(streams=streams)), epochs=2)
    assert orders[:4] == orders[4:]
    assert len({tuple(order) for order in orders[:4]}) == 4


def test_draws_differ_by_step_network_and_epoch(toy_trainer):
    def loss(net, params, batch, draws, division, carry):
        total = 0.0 * params["w"].sum()
        return base.LossResult(total, {"drawn": draws}, carry)

    drawing = phase(
        loss=loss,
        selector=Recorder([0, 1]),  # one step an epoch
        draws=lambda key, sizes: jax.random.uniform(key),
    )
    first, second = (
        run(toy_trainer(drawing), epochs=2).results for _ in range(2)
    )
    drawn = [float(t["drawn"]) for epoch in first for t in epoch.terms]
    again = [float(t["drawn"]) for epoch in second for t in epoch.terms]
    assert len(set(drawn)) == 4 and drawn == again


# What is said ----------------------------------------------------------------


def warnings(caplog):
    return [r.getMessage() for r in caplog.records if r.name == "jaxnlt"]


def test_nobody_trusted_trains_on_all_and_says_so(toy_trainer, caplog):
    selector = Recorder([])
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        result = run(toy_trainer(phase(selector=selector), num_nets=1))
    (chosen,) = result.results[0].selections
    np.testing.assert_array_equal(chosen.labelled, np.arange(SIZE))
    np.testing.assert_array_equal(chosen.counts, [3, 3, 2])
    assert result.results[0].steps == [4]
    said = [text for text in warnings(caplog) if "trusts no sample in" in text]
    assert said == ["network 0 trusts no sample in epoch 1; all are trained on"]


def test_nothing_left_unlabelled_is_said(toy_trainer, caplog):
    now = phase(
        selector=Recorder(range(SIZE)),
        streams=base.split_streams(2, 2),
        views={"x": ("none",), "u": ("none",)},
    )
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        run(toy_trainer(now, num_nets=1))
    (text,) = warnings(caplog)
    assert text.startswith("network 0 leaves nothing unlabelled in epoch 1")


def test_an_emptied_class_is_named(toy_trainer, caplog):
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        run(toy_trainer(phase(selector=Recorder([0, 2])), num_nets=1))
    (text,) = warnings(caplog)
    assert text.startswith("network 0 trusts no sample of class bee in epoch 1")
