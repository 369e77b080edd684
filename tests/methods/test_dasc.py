"""DaSC's phases, losses and switches, on a network of matrices."""

import logging
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dasc as dasc_config
from jaxnlt import losses, models, selection, semi, step
from jaxnlt.errors import UserError
from jaxnlt.methods import base, dasc

from . import toy

LABELS = np.array([0, 0, 0, 1, 1, 2])
SIZE = 2  # rows of each stream
MEMORY = 6


def make(**options):
    config = dasc_config.get_config()
    config.batch_size = SIZE
    config.dasc.update(
        {
            "memory_size": MEMORY,
            "projection_dim": toy.DIM,
            "confidence_threshold": 0.8,
            **options,
        }
    )
    return dasc.Method(config, base.DataInfo(LABELS, toy.CLASSES))


def carry(fill=3):
    rows = np.random.default_rng(9).normal(size=(MEMORY, toy.DIM))
    return {
        "memory": toy.unit(jnp.asarray(rows, jnp.float32)),
        "fill": jnp.int32(fill),
    }


def valid(carry):
    return np.asarray(carry["memory"])[MEMORY - int(carry["fill"]) :]


def views(seed, count):
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.normal(size=(SIZE, toy.FEATURES)), jnp.float32)
        for _ in range(count)
    )


def semi_case(**changes):
    """Arguments of semi_loss behind net and params; nine epochs in."""
    batch = {
        "x": {
            "views": views(1, 3),
            "labels": jnp.asarray([0, 2]),
            "weights": jnp.asarray([0.9, 0.6]),
        },
        "u": {"views": views(2, 3)},
        "epoch": jnp.float32(17),
        "step": jnp.float32(1),
    }
    draws = {
        "coefficient": jnp.float32(0.7),
        "permutation": jnp.asarray([5, 3, 0, 7, 1, 2, 4, 6]),
    }
    shared = {
        "counts": jnp.asarray([4.0, 2, 1]),
        "num_labelled": jnp.float32(7),
        "num_unlabelled": jnp.float32(5),
    }
    return {
        "batch": batch,
        "draws": draws,
        "selection": shared | changes,
        "carry": carry(),
    }


OWN, PEER = toy.variables(3), toy.variables(4)


def semi_loss(method, **changes):
    net = base.Net(toy.apply, [], PEER)
    case = semi_case(**changes)
    total, after, terms = method.semi_loss(net, OWN["params"], **case)
    return total, after, terms, net.batch_stats


@pytest.fixture(scope="module")
def reference():
    return semi_loss(make())


def stacked():
    """The eight rows x1, x2, u1, u2 and their targets."""
    batch = semi_case()["batch"]
    x, u = batch["x"], batch["u"]
    net = base.Net(toy.apply, [], PEER)
    targets = make().targets(net, OWN["params"], x, u)
    images = jnp.concatenate([*x["views"][:2], *u["views"][:2]])
    return images, jnp.concatenate([targets[0]] * 2 + [targets[1]] * 2)


def project(images):
    return toy.apply(OWN, images, ("projection",), False)[0]["projection"]


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
    "field", ["feature_type", "midl_label", "midl_key", "memory_rows"]
)
def test_a_misspelt_switch_is_refused(field):
    with pytest.raises(UserError, match=f"^config.dasc.{field}: .*'al'"):
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
    assert empty["memory"].shape == (MEMORY, toy.DIM)
    assert empty["fill"] == 0


def test_memories_are_exchanged_after_semi_supervised_epochs_only():
    states = [{"params": k, "carry": 10 + k} for k in (0, 1)]
    method = make()
    swapped = method.end_epoch(method.semi, states)
    assert [s["carry"] for s in swapped] == [11, 10]
    assert [s["params"] for s in swapped] == [0, 1]
    for phase in (method.warmup, method.warmup_contrast):
        assert method.end_epoch(phase, states) == states
    method = make(memory_exchange=False)
    assert method.end_epoch(method.semi, states) == states


# Warm-up ---------------------------------------------------------------------


def warmup(method, phase):
    net = base.Net(toy.apply, [], None)
    batch = {"x": {"views": views(1, 2), "labels": jnp.asarray([0, 2])}}
    total, after, terms = phase(method).loss(
        net, OWN["params"], batch, {}, {}, carry()
    )
    return total, after, terms, net.batch_stats


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
    assert after["fill"] == 3


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
    assert after["fill"] == 3 + SIZE
    np.testing.assert_allclose(valid(after)[3:], project(view_a), rtol=1e-5)


def test_warmup_fills_no_memory_without_midl():
    after = warmup(make(midl=False), lambda m: m.warmup_contrast)[1]
    assert after["fill"] == 3


# Targets ---------------------------------------------------------------------


def test_targets_use_the_conventional_heads_for_u_and_all_four_for_x():
    batch = semi_case()["batch"]
    x, u = batch["x"], batch["u"]
    net = base.Net(toy.apply, [], PEER)
    targets_x, targets_u = make(sharpen_temperature=0.5).targets(
        net, OWN["params"], x, u
    )

    def probs(variables, images, head):
        out = toy.apply(variables, images, (head,), False)[0]
        return selection.softmax(out[head])

    def sharp(p):
        return p**2 / (p**2).sum(-1, keepdims=True)

    third = u["views"][2]
    mean_u = (probs(OWN, third, "logits") + probs(PEER, third, "logits")) / 2
    np.testing.assert_allclose(targets_u, sharp(mean_u), rtol=1e-5)
    mean_x = np.mean(
        [
            probs(variables, x["views"][2], head)
            for variables in (OWN, PEER)
            for head in dasc.BOTH_HEADS
        ],
        axis=0,
    )
    weights = np.array([[0.9], [0.6]])
    refined = weights * np.eye(3)[[0, 2]] + (1 - weights) * mean_x
    np.testing.assert_allclose(targets_x, sharp(refined), rtol=1e-5)


def test_targets_have_no_gradient():
    batch = semi_case()["batch"]

    def total(params):
        net = base.Net(toy.apply, [], PEER)
        targets = make().targets(net, params, batch["x"], batch["u"])
        return sum(jnp.sum(t**2) for t in targets)

    for grad in jax.tree.leaves(jax.grad(total)(OWN["params"])):
        np.testing.assert_array_equal(grad, np.zeros_like(grad))


def test_guesses_and_losses_each_move_the_statistics(reference):
    *_, passes = reference
    both = dasc.BOTH_HEADS
    assert passes == [
        (("logits",), SIZE),  # u, guessed
        (both, SIZE),  # x, guessed
        ((*both, "projection"), 4 * SIZE),  # mixed
        (("projection", "prototypes"), 4 * SIZE),  # un-mixed
    ]


# Semi-supervised loss --------------------------------------------------------


def test_semi_loss_is_the_weighted_sum_of_its_terms(reference):
    total, _, terms, _ = reference
    weights = {
        "loss_ce": 1,
        "loss_balanced_ce": 1,
        "loss_mse": terms["lambda_u"],
        "loss_balanced_mse": terms["lambda_u"],
        "loss_penalty": 1,
        "loss_contrast": 0.5,
        "loss_midl": 0.3,
    }
    assert set(terms) == {*weights, "lambda_u"}
    expected = sum(weight * terms[name] for name, weight in weights.items())
    np.testing.assert_allclose(total, expected, rtol=1e-6)
    assert all(terms[name] != 0 for name in weights)


def test_ramp_counts_batches_of_the_released_epoch(reference):
    """Epoch 17 + batch 1 of 7 // 2 + 1, from epoch 15, over 8 epochs."""
    terms = reference[2]
    np.testing.assert_allclose(
        terms["lambda_u"], 25 * (17 + 1 / 4 - 15) / 8, rtol=1e-6
    )


def test_mixmatch_terms_are_those_of_the_mixed_batch(reference):
    terms = reference[2]
    images, targets = stacked()
    draws = semi_case()["draws"]
    mix = (draws["coefficient"], draws["permutation"])
    out = toy.apply(OWN, semi.mixup(images, *mix), dasc.BOTH_HEADS, False)[0]
    mixed = semi.mixup(targets, *mix)
    prior = jnp.log(jnp.asarray([4, 2, 1]) / 7)
    plain = semi.terms(out["logits"], mixed, 2 * SIZE)
    balanced = semi.terms(out["balanced"], mixed, 2 * SIZE, prior)
    names = ("loss_ce", "loss_mse", "loss_balanced_ce", "loss_balanced_mse")
    for name, value in zip(names, (*plain, *balanced), strict=True):
        np.testing.assert_allclose(terms[name], value, rtol=1e-5)
    np.testing.assert_allclose(
        terms["loss_penalty"], losses.prior_penalty(out["logits"]), rtol=1e-5
    )


def test_contrast_takes_plain_rows_and_confident_anchors(reference):
    images, targets = stacked()
    confident = np.asarray(targets.max(-1) > 0.8)
    assert confident.any() and not confident.all()
    out = toy.apply(OWN, images, ("projection", "prototypes"), False)[0]
    values = losses.class_balanced_contrastive(
        out["projection"], targets, out["prototypes"], 0.1
    )
    np.testing.assert_allclose(
        reference[2]["loss_contrast"], values[confident].mean(), rtol=1e-5
    )


def test_nothing_unlabelled_weighs_nothing(reference):
    total, _, terms, _ = semi_loss(make(), num_unlabelled=jnp.float32(0))
    lost = terms["lambda_u"] * (terms["loss_mse"] + terms["loss_balanced_mse"])
    np.testing.assert_allclose(total, reference[0] - lost, rtol=1e-5)


def test_emptied_class_keeps_the_loss_finite():
    total, *_ = semi_loss(make(), counts=jnp.asarray([6.0, 0, 1]))
    assert np.isfinite(total)


def test_without_confident_and_without_unsure_rows():
    total, _, terms, _ = semi_loss(make(confidence_threshold=1.1))
    assert terms["loss_contrast"] == 0 and terms["loss_midl"] > 0
    assert np.isfinite(total)
    total, _, terms, _ = semi_loss(make(confidence_threshold=0.0))
    assert terms["loss_contrast"] > 0 and terms["loss_midl"] == 0
    assert np.isfinite(total)


def test_confidence_is_strict_on_both_sides():
    above, below = dasc.confidence(np.array([0.8, 0.9, 0.95]), 0.9)
    assert above.tolist() == [False, False, True]
    assert below.tolist() == [True, False, False]


# Switches --------------------------------------------------------------------


def test_prior_penalty_switch(reference):
    total, _, terms, _ = semi_loss(make(prior_penalty=False))
    assert "loss_penalty" not in terms
    expected = reference[0] - reference[2]["loss_penalty"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


def test_contrast_switch():
    total, after, terms, passes = semi_loss(make(contrast=False, midl=False))
    assert not {"loss_contrast", "loss_midl"} & set(terms)
    assert len(passes) == 3 and after["fill"] == 3
    assert passes[-1] == (dasc.BOTH_HEADS, 4 * SIZE)


def test_midl_switch(reference):
    total, after, terms, _ = semi_loss(make(midl=False))
    assert "loss_midl" not in terms and after["fill"] == 3
    expected = reference[0] - 0.3 * reference[2]["loss_midl"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@pytest.mark.parametrize("label", ["zero", "arange"])
def test_midl_label(label):
    images, targets = stacked()
    rows = project(images)
    first, second = np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7])
    memory = carry()
    expected = losses.info_nce(
        rows[first],
        rows[second],
        memory["memory"],
        memory["fill"],
        0.5,
        jnp.arange(4) * (label == "arange"),
    )
    unsure = np.asarray(targets.max(-1) < 0.8)[first]
    assert unsure[1:].any()
    value = semi_loss(make(midl_label=label))[2]["loss_midl"]
    np.testing.assert_allclose(value, expected[unsure].mean(), rtol=1e-5)


def test_midl_label_is_all_that_it_changes(reference):
    terms = semi_loss(make(midl_label="arange"))[2]
    changed = {name for name in terms if terms[name] != reference[2][name]}
    assert changed == {"loss_midl"}


def test_memory_takes_second_views_of_the_mixed_batch(reference):
    images, _ = stacked()
    draws = semi_case()["draws"]
    mixed = semi.mixup(images, draws["coefficient"], draws["permutation"])
    rows = np.array([2, 3, 6, 7])
    expected = np.concatenate([valid(carry()), project(mixed)[rows]])
    np.testing.assert_allclose(
        valid(reference[1]), expected[-MEMORY:], rtol=1e-4, atol=1e-6
    )


def test_midl_key_two_views_mixes_an_image_with_itself(reference):
    _, after, _, passes = semi_loss(make(midl_key="two_views"))
    images, _ = stacked()
    first, second = np.array([0, 1, 4, 5]), np.array([2, 3, 6, 7])
    expected = project(0.7 * images[first] + 0.3 * images[second])
    np.testing.assert_allclose(
        valid(after)[-4:], expected, rtol=1e-4, atol=1e-6
    )
    assert passes == [*reference[3], (("projection",), 2 * SIZE)]


def test_memory_rows_low_confidence(reference):
    _, targets = stacked()
    keep = np.asarray(targets.max(-1) < 0.8)[np.array([2, 3, 6, 7])]
    assert 0 < keep.sum() < 4
    after = semi_loss(make(memory_rows="low_confidence"))[1]
    assert after["fill"] == min(MEMORY, 3 + keep.sum())
    np.testing.assert_array_equal(
        valid(after)[-keep.sum() :], valid(reference[1])[-4:][keep]
    )


@pytest.mark.parametrize(
    "options, head",
    [
        ({}, "projection"),
        ({"feature_type": "default"}, "features"),
        ({"contrast": False, "midl": False}, "features"),
        (
            {"contrast": False, "midl": False, "untrained_projector": True},
            "projection",
        ),
        (
            {"feature_type": "default", "untrained_projector": True},
            "features",
        ),
    ],
)
def test_feature_head(options, head):
    method = make(**options)
    assert dasc.feature_head(method.options) == head
    assert method.outputs == ("logits", "balanced", head)


# Selection -------------------------------------------------------------------


def outputs(seed=0, size=40):
    """Rows near their class's axis; a fifth of the labels are wrong."""
    rng = np.random.default_rng(seed)
    true = rng.integers(0, 3, size)
    labels = np.where(rng.random(size) < 0.2, (true + 1) % 3, true)
    centre = np.eye(3)[true]
    out = {
        "projection": centre + 0.1 * rng.normal(size=(size, 3)),
        "logits": 4 * centre + rng.normal(size=(size, 3)),
        "balanced": 4 * centre + rng.normal(size=(size, 3)),
    }
    return out, labels, labels == true


def select(k=0, epoch=15, others=None, **options):
    out, labels, _ = outputs()
    return make(**options).semi.selector.select(
        [out, others] if k == 0 else [others, out],
        k,
        base.DataInfo(labels, 3),
        {"kept": 1},
        epoch,
        np.random.default_rng(0),
    )


def test_dacc_finds_the_wrong_labels():
    chosen, memory = select()
    _, labels, right = outputs()
    clean = chosen.clean_probability
    assert ((clean > 0.5) == right).mean() > 0.9
    np.testing.assert_array_equal(chosen.labelled, np.flatnonzero(clean > 0.5))
    both = np.concatenate([chosen.labelled, chosen.unlabelled])
    np.testing.assert_array_equal(np.sort(both), np.arange(len(labels)))
    np.testing.assert_array_equal(
        chosen.counts, np.bincount(labels[chosen.labelled], minlength=3)
    )
    assert memory == {"kept": 1}


def test_dacc_reads_the_outputs_of_its_network():
    first, second = select(k=0)[0], select(k=1)[0]
    np.testing.assert_array_equal(
        first.clean_probability, second.clean_probability
    )


def test_dacc_threshold_is_of_the_absolute_epoch(monkeypatch):
    seen = []
    whole = selection.dacc_scores

    def spy(*args, **kwargs):
        seen.append(kwargs["threshold"])
        return whole(*args, **kwargs)

    monkeypatch.setattr(selection, "dacc_scores", spy)
    for epoch in (15, 100):
        select(epoch=epoch)
    np.testing.assert_allclose(seen, [1.005**15 / 3, 1.005**100 / 3])


def test_p_threshold_is_strict():
    clean = select()[0].clean_probability
    level = float(np.sort(clean)[len(clean) // 2])
    assert (clean == level).any()
    chosen = select(p_threshold=level)[0]
    np.testing.assert_array_equal(
        chosen.labelled, np.flatnonzero(clean > level)
    )


def test_aligned_clean_prob_switch():
    aligned = select()[0]
    released = select(aligned_clean_prob=False)[0]
    rows = aligned.labelled
    np.testing.assert_array_equal(rows, released.labelled)
    clean = aligned.clean_probability
    np.testing.assert_array_equal(aligned.weights[rows], clean[rows])
    np.testing.assert_array_equal(released.weights[rows], clean[: len(rows)])
    assert (released.weights[rows] <= 0.5).any()


def test_dacc_says_when_no_sample_is_confident(caplog):
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        chosen = select(phi=2.0)[0]
    assert "DaCC: no sample of network 0" in caplog.text
    assert len(chosen.labelled)


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
    batch = {
        "x": {
            "views": (images(0), images(1)),
            "labels": jnp.asarray([0, 2]),
        }
    }
    optimizer = {"momentum": 0.9, "weight_decay": 1e-4}
    state = step.init_state(variables, method.init_carry())
    update = partial(step.update, network.apply, phase, optimizer)
    after, _ = jax.jit(update, compiler_options=QUICK)(
        state, None, batch, {}, {}, 0.1
    )
    assert {"projector", "prototype_projector"} < set(state["batch_stats"])
    trained = {"backbone", "bottleneck", "logits", "balanced"}
    assert moved(state["batch_stats"], after["batch_stats"]) == {"backbone"}
    assert moved(state["params"], after["params"]) == trained


def test_projector_statistics_stay_on_a_guessing_pass(real):
    method, network, variables = real
    batch = semi_case()["batch"]
    x = batch["x"] | {"views": (images(0), images(1), images(2))}
    u = {"views": (images(3), images(4), images(5))}

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
