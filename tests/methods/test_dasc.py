"""DaSC's phases, settings, warm-up, and what a real network's passes move."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dasc as dasc_config
from jaxnlt import losses, models, selection
from jaxnlt import method as base
from jaxnlt.methods import dasc
from jaxnlt.runtime.errors import UserError
from tests import typed
from tests.methods import toy
from tests.methods.dasc_case import (
    LABELS,
    MEMORY,
    OWN,
    SIZE,
    carry,
    make,
    project,
    semi_case,
    valid,
    views,
)

# Phases ----------------------------------------------------------------------


def test_phases_by_epoch():
    method = make(contrast_start=2, warmup=4)
    names = [method.phase(epoch).name for epoch in range(6)]
    assert names == ["warmup"] * 2 + ["warmup_contrast"] * 2 + ["semi"] * 2
    assert [p.name for p in method.phases()] == [*dict.fromkeys(names)]


def test_without_contrast_there_is_one_warmup():
    method = make(contrast=False, midl=False, contrast_start=2, warmup=4)
    names = [method.phase(epoch).name for epoch in range(6)]
    assert names == ["warmup"] * 4 + ["semi"] * 2
    assert [p.name for p in method.phases()] == ["warmup", "semi"]


def test_the_peer_teaches_and_is_seen_updated():
    method = make()
    assert method.semi.taught_by == "peer"
    assert (method.semi.peer, method.semi.order) == ("updated", "in_turn")
    for warmup in (method.warmup, method.warmup_contrast):
        assert warmup.selector is None and warmup.peer == "none"
        assert warmup.views == {"x": ("weak", "weak")}
    strong = ("strong", "strong", "weak")
    assert method.semi.views == {"x": strong, "u": strong}


@pytest.mark.parametrize("contrast", [True, False])
def test_projectors_train_where_contrast_does(contrast):
    method = make(contrast=contrast, midl=contrast)
    for head in ("projector", "prototype_projector"):
        assert not method.warmup.trainable((head, "kernel"))
        assert method.warmup_contrast.trainable((head, "kernel"))
        assert method.semi.trainable((head, "kernel")) == contrast
    for phase in method.phases():
        for part in ("backbone", "bottleneck", "logits", "balanced"):
            assert phase.trainable((part, "kernel"))


def test_midl_without_contrast_is_refused():
    with pytest.raises(UserError, match="^config.dasc.midl: needs"):
        make(contrast=False)


@pytest.mark.parametrize(
    ("field", "where"),
    [
        *((name, "config.dasc.") for name in ("midl_label", "midl_key")),
        ("memory_rows", "config.dasc."),
    ],
)
def test_a_misspelt_switch_is_refused(field, where):
    with pytest.raises(UserError, match=f"^{where}{field}: .*'al'"):
        make(**{field: "al"})


def test_lr_decay():
    def rates(**options):
        method = make(lr_decay_epoch=3.0, **options)
        return [method.learning_rate(epoch) for epoch in range(5)]

    constant = rates()
    assert len(set(constant)) == 1
    np.testing.assert_allclose(
        rates(lr_decay=True), np.multiply(constant, [1, 1, 1, 0.1, 0.1])
    )


def test_carry_has_the_size_of_the_memory_and_is_empty():
    empty = make().init_carry()
    assert empty.rows.shape == (MEMORY, toy.DIM)
    assert empty.fill == 0


def test_memories_are_exchanged_after_semi_supervised_epochs_only():
    states = [base.TrainState(k, None, None, 10 + k) for k in (0, 1)]
    method = make()
    swapped = method.end_epoch(method.semi, states)
    assert [s.carry for s in swapped] == [11, 10]
    assert [s.params for s in swapped] == [0, 1]
    for phase in (method.warmup, method.warmup_contrast):
        assert method.end_epoch(phase, states) == states
    method = make(memory_exchange=False)
    assert method.end_epoch(method.semi, states) == states


# Warm-up ---------------------------------------------------------------------


def warmup(method, phase):
    net = base.Net(toy.apply, [], None)
    x = typed.stream(views(1, 2), jnp.asarray([0, 2]))
    found = phase(method).loss(
        net, OWN["params"], typed.batch(x=x), (), None, carry()
    )
    return found.loss, found.carry, found.terms, net.batch_stats


def by_hand(view):
    """Mean CE, and mean CE with the prior of LABELS, of one view."""
    out = toy.apply(OWN, view, dasc.BOTH_HEADS, False)[0]
    rows, labels = np.arange(SIZE), [0, 2]
    prior = np.log([3 / 6, 2 / 6, 1 / 6])
    plain = selection.softmax(out["logits"])[rows, labels]
    balanced = selection.softmax(out["balanced"] + prior)[rows, labels]
    return -np.log(plain).mean(), -np.log(balanced).mean()


def test_warmup_halves_for_views_and_adds_heads():
    total, after, terms, passes = warmup(make(), lambda m: m.warmup)
    (ce_a, balanced_a), (ce_b, balanced_b) = map(by_hand, views(1, 2))
    np.testing.assert_allclose(terms["loss_ce"], (ce_a + ce_b) / 2, rtol=1e-5)
    expected = (ce_a + ce_b + balanced_a + balanced_b) / 2
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert passes == [(dasc.BOTH_HEADS, SIZE)] * 2  # no projector runs
    assert after.fill == 3


def test_warmup_contrast_adds_sbcl_over_both_views():
    method = make(contrast_weight=0.5, contrast_temperature=0.1)
    plain = warmup(method, lambda m: m.warmup)[0]
    total, after, terms, _ = warmup(method, lambda m: m.warmup_contrast)
    view_a, view_b = views(1, 2)
    out = toy.apply(OWN, view_a, ("prototypes",), False)[0]
    expected = losses.class_balanced_contrastive(
        jnp.concatenate([project(view_a), project(view_b)]),
        jnp.eye(3)[np.array([0, 2, 0, 2])],
        out["prototypes"],
        0.1,
    ).mean()
    np.testing.assert_allclose(terms["loss_contrast"], expected, rtol=1e-5)
    np.testing.assert_allclose(total, plain + 0.5 * expected, rtol=1e-5)
    # The first view's projections enter the memory.
    assert after.fill == 3 + SIZE
    np.testing.assert_allclose(valid(after)[3:], project(view_a), rtol=1e-5)


def test_warmup_fills_no_memory_without_midl():
    after = warmup(make(midl=False), lambda m: m.warmup_contrast)[1]
    assert after.fill == 3


# A real network --------------------------------------------------------------

QUICK = {
    "xla_backend_optimization_level": 0,
    "xla_llvm_disable_expensive_passes": True,
}


@pytest.fixture(scope="module")
def real():
    """DaSC's smallest PreAct ResNet, on 8x8 images of one channel."""
    config = dasc_config.get_config("digits,smoke")
    with config.unlocked():
        config.model.width, config.model.blocks = 4, (1, 1)
        config.dasc.projection_dim = 4
    method = dasc.Method(config, base.DataInfo(LABELS, toy.CLASSES))
    network = models.build(
        config.model, toy.CLASSES, method.heads, **method.network_options
    )
    return method, network, network.init(0, (8, 8, 1))


def images(seed):
    values = np.random.default_rng(seed).normal(size=(2, 8, 8, 1))
    return jnp.asarray(values, jnp.float32)


def moved(before, after):
    """Parts of a tree of which some leaf has changed."""
    return {
        name
        for name in before
        if any(
            (np.asarray(a) != np.asarray(b)).any()
            for a, b in zip(
                jax.tree.leaves(before[name]),
                jax.tree.leaves(after[name]),
                strict=True,
            )
        )
    }


def test_projector_statistics_stay_on_a_warmup_step_of_epoch_0(real):
    method, network, variables = real
    phase = method.phase(0)
    x = typed.stream((images(0), images(1)), jnp.asarray([0, 2]))
    batch = typed.batch(x=x)
    optimizer = {"momentum": 0.9, "weight_decay": 1e-4}
    state = base.init_state(variables, method.init_carry())
    update = partial(typed.update, network.apply, phase, optimizer)
    after, _ = jax.jit(update, compiler_options=QUICK)(
        state, None, batch, (), None, 0.1
    )
    assert {"projector", "prototype_projector"} < set(state.batch_stats)
    trained = {"backbone", "bottleneck", "logits", "balanced"}
    assert moved(state.batch_stats, after.batch_stats) == {"backbone"}
    assert moved(state.params, after.params) == trained


def test_projector_statistics_stay_on_a_guessing_pass(real):
    method, network, variables = real
    x = replace(semi_case()["batch"].x, views=(images(0), images(1), images(2)))
    u = typed.stream((images(3), images(4), images(5)))

    def guess(variables, peer):
        net = base.Net(network.apply, variables["batch_stats"], peer)
        method.targets(net, variables["params"], x, u)
        return net.batch_stats

    def contrast(variables):
        net = base.Net(network.apply, variables["batch_stats"], None)
        net(variables["params"], images(0), ("projection", "prototypes"))
        return net.batch_stats

    before = variables["batch_stats"]
    after = jax.jit(guess, compiler_options=QUICK)(variables, variables)
    assert moved(before, after) == {"backbone"}
    # The check would see them: where they run, they move.
    after = jax.jit(contrast, compiler_options=QUICK)(variables)
    assert moved(before, after) == set(before)
