"""H2E: phases, losses, environments, weights and votes."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import h2e as h2e_config
from jaxnlt import method as base
from jaxnlt import models
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import h2e
from jaxnlt.runtime.errors import UserError
from tests import runs, typed
from tests.methods import toy
from tests.methods.test_erm import make as make_erm

LABELS = np.repeat([0, 1, 3], (30, 20, 10))
CLASSES = 4


def make(arg="digits", labels=LABELS, ids=None, **fields):
    config = runs.tiny("h2e", arg, **fields)
    return h2e.Method(config, base.DataInfo(labels, CLASSES, ids))


def two_rounds(**fields):
    """Rounds of 36 epochs: 16 of base, 8 of identify, 12 of robust."""
    starts = {"1.identify": 16, "1.robust": 24}
    starts |= {"2.base": 36, "2.identify": 52, "2.robust": 60}
    begun = {f"h2e.starts.round{name}": e for name, e in starts.items()}
    fields = begun | {"h2e.base_peak": 1.0} | fields
    return make("digits,rounds=2", epochs=72, **fields)


# Phases ----------------------------------------------------------------------


def test_phases_of_every_round():
    method = two_rounds()
    names = [method.phase(epoch).name for epoch in range(73)]
    one = ["base"] * 16 + ["identify"] * 8 + ["robust"] * 12
    assert names == [*one, *one, "robust"]
    # A later round selects; what it compiles to is the same.
    assert method.phase(0).selector is None
    assert method.phase(16).selector is None
    for epoch in (36, 52):
        assert isinstance(method.phase(epoch).selector, h2e.PreviousWeights)
        assert method.phase(epoch).loss is method.phase(epoch - 36).loss
    assert method.phase(24) is method.phase(60)
    assert len(method.phases()) == 5
    evaluated = {p.name: p.evaluated for p in method.phases()}
    assert evaluated == {"base": True, "identify": False, "robust": True}


def test_no_round_is_base_training_alone():
    method = make("digits,rounds=0")
    assert [p.name for p in method.phases()] == ["base"]
    assert method.phase(method.config.epochs).name == "base"


def test_scores_of_the_round_before_are_a_phase_of_their_own():
    method = make("digits,rounds=2", **{"h2e.iterate": "scores"})
    names = [p.name for p in method.phases()]
    assert names == ["base", "identify", "robust", "base_scored"]


def test_resampled_base_draws_every_class_alike():
    rows = np.arange(len(LABELS))[2:]  # two images of the first class less
    method = make(**{"h2e.resample": True})
    everyone = base.trust_all(method.data)
    chosen = base.Selection(rows, rows[:0], everyone.weights, everyone.counts)
    phase = method.phase(0)
    drawn = phase.streams(chosen, np.random.default_rng(0))["x"]
    assert drawn.shape == (6, 16)  # 28 of the largest, of three classes
    assert set(drawn.ravel()) <= set(rows)
    counts = np.bincount(LABELS[drawn.ravel()])[[0, 1, 3]]
    assert counts.max() - counts.min() <= 8
    plain = make().phase(0).streams(chosen, np.random.default_rng(0))["x"]
    assert plain.shape == (4, 16)  # a pass over 58


def test_learning_rates_start_anew_in_every_phase():
    fields = {"optimizer.learning_rate": 0.2, "h2e.identify_rate": 1e-3}
    method = two_rounds(**fields)
    rates = [method.learning_rate(e) for e in range(72)]
    base_rates = 0.1 * (1 + np.cos(np.pi * np.arange(16) / 16))
    np.testing.assert_allclose(rates[:16], base_rates)
    np.testing.assert_allclose(rates[16:24], [1e-3] * 5 + [0.9e-3] * 3)
    robust = method.options.robust_rate
    np.testing.assert_allclose([rates[24], rates[30]], [robust, robust / 2])
    np.testing.assert_allclose(rates[36:], rates[:36])


def test_every_number_of_epochs_gives_every_phase():
    for epochs in (6, 7, 11, 50):
        method = make(f"digits,rounds=2,epochs={epochs}")
        names = [method.phase(e).name for e in range(epochs)]
        assert len([*itertools.groupby(names)]) == 6
    with pytest.raises(UserError, match="^epochs: h2e needs at least 6"):
        h2e_config.get_config("digits,rounds=2,epochs=5")


def test_weighted_mixup_needs_scores():
    with pytest.raises(UserError, match="^config.h2e.scores: .*labels.csv"):
        make("digits,mix=weighted")


# Losses ----------------------------------------------------------------------


def toy_stream():
    images = np.random.default_rng(0).normal(size=(4, toy.FEATURES))
    return typed.stream(
        (jnp.asarray(images, jnp.float32),),
        jnp.array([0, 2, 1, 2]),
        jnp.array([0.01, 0.5, 1.0, 0.8], jnp.float32),
        jnp.array([3, 1, 0, 2]),
    )


def value_of(phase, draws, x=None):
    net = base.Net(toy.apply, [], None)
    params = toy.variables(0)["params"]
    batch = typed.batch(jnp.float32(0), x=x or toy_stream())
    return phase.loss(net, params, batch, draws, typed.division(), ()).loss


@pytest.mark.parametrize("mix", ["ce", "mixup"])
def test_without_rounds_the_loss_is_that_of_erm(mix):
    draws = MixupDraws(jnp.float32(0.3), jnp.arange(4) ^ 1)
    ours = make(f"digits,rounds=0,mix={mix}")
    theirs = make_erm(f",loss={mix}")
    value = value_of(ours.phase(0), draws)
    expected = value_of(theirs.phase(0), draws)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    key = jax.random.key(0)
    drawn = [m.phase(0).draws(key, {"x": 6}) for m in (ours, theirs)]
    jax.tree.map(np.testing.assert_array_equal, *drawn)


def test_scores_of_a_round_replace_those_of_the_file():
    method = two_rounds(**{"h2e.iterate": "scores"})
    phase = method.phase(36)
    assert phase.name == "base_scored"
    draws = MixupDraws(None, jnp.array([1, 0, 3, 2]))
    scores = h2e.Scores(jnp.array([1.0, 0.0, 0.5, 0.5]))
    x = replace(toy_stream(), per_sample=scores)
    value = value_of(phase, draws, x)
    # Rows 0 and 1 are both row 0 alone, of class 0.
    images = x.views[0]
    mixed = jnp.stack([images[0], images[2:].mean(0)])
    logits = toy.apply(toy.variables(0), mixed, ("logits",), False)[0]
    alone, halves = np.asarray(jax.nn.log_softmax(logits["logits"]))
    expected = -(alone[0] + halves[x.labels[2:]].mean()) / 2
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def identifier_loss(method, epoch):
    """Loss and terms of an identifier whose logits are its images."""
    trained = []

    def apply(variables, images, heads, train):
        assert heads == ("identifier",)
        trained.append(train)
        return {"identifier": images * variables["params"]}, {}

    rng = np.random.default_rng(0)
    streams = {
        name: typed.stream(
            (jnp.asarray(rng.normal(size=(6, 4)), jnp.float32),),
            jnp.asarray(rng.integers(0, 4, 6)),
        )
        for name in ("raw", "reverse", "balance")
    }
    total, terms, _ = method.first["identify"].loss(
        base.Net(apply, {}, None),
        jnp.ones(()),
        typed.batch(jnp.float32(epoch), **streams),
        (),
        typed.division(),
        (),
    )
    penalties = [h2e.penalty(s.views[0], s.labels) for s in streams.values()]
    np.testing.assert_allclose(
        terms["loss_penalty"], np.mean(penalties), rtol=1e-6
    )
    assert len(set(trained)) == 1
    return float(total), terms, trained[0]


def test_the_penalty_comes_after_a_while_in_every_round():
    ramp = {"h2e.penalty_start": 5.0, "h2e.penalty_ramp": 5.0}
    method = two_rounds(**ramp)
    rise = {16: 0, 21: 0, 22: 0.2, 23: 0.4, 52: 0, 57: 0, 58: 0.2}
    for epoch, weight in rise.items():
        total, terms, trained = identifier_loss(method, epoch)
        assert float(terms["penalty_weight"]) == pytest.approx(weight)
        expected = terms["loss_ce"] + weight * terms["loss_penalty"]
        np.testing.assert_allclose(total, expected, rtol=1e-6)
        assert not trained
    assert float(terms["logits_norm"]) > 0
    jump = {"h2e.penalty_start": 5.0, "h2e.penalty_ramp": 0.0}
    jump |= {"h2e.erm_weight": 0.5, "h2e.penalty_weight": 10.0}
    method = two_rounds(**jump)
    for epoch, weight in ((20, 0), (21, 10)):
        total, terms, _ = identifier_loss(method, epoch)
        expected = 0.5 * terms["loss_ce"] + weight * terms["loss_penalty"]
        np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_the_release_has_the_penalty_alone_and_moves_statistics():
    method = make("digits,as_released")
    first = method.options.starts.round1.identify
    total, terms, trained = identifier_loss(method, first)
    np.testing.assert_allclose(total, terms["loss_penalty"], rtol=1e-6)
    assert trained


def test_environments():
    labels = np.repeat([0, 1, 3], (600, 300, 100))
    method = make(labels=labels)
    phase, rng = method.first["identify"], np.random.default_rng(0)
    rows = phase.streams(base.trust_all(method.data), rng)
    assert {r.shape for r in rows.values()} == {(63, 16)}
    np.testing.assert_array_equal(np.unique(rows["raw"]), np.arange(1000))
    shares = {"reverse": [1 / 9, 2 / 9, 0, 2 / 3], "balance": [1 / 3] * 4}
    shares["balance"][2] = 0  # the empty class
    for name, share in shares.items():
        counts = np.bincount(labels[rows[name]].ravel(), minlength=4)
        np.testing.assert_allclose(counts / counts.sum(), share, atol=0.05)
    views = {"raw": "weak", "reverse": "strong", "balance": "weak"}
    assert phase.views == {name: (view,) for name, view in views.items()}
    # In a later round: of the kept images only.
    chosen = h2e.unflagged(np.where(np.arange(1000) % 2, 0.01, 1), method.data)
    rows = phase.streams(chosen, rng)
    assert all((r % 2 == 0).all() for r in rows.values())


# Weights and votes -----------------------------------------------------------


def select(method, logits, memory=None):
    selector = method.first["robust"].selector
    return selector.select(
        [{"identifier": logits}],
        0,
        method.data,
        memory or selector.init_memory(),
        0,
        None,
    )


def agreeing(flagged, labels=LABELS):
    """Logits, sure of the labels but for the flagged."""
    said = np.where(flagged, (labels + 1) % 2, labels)
    confidence = np.linspace(2, 6, len(labels))[:, None]
    return confidence * np.eye(CLASSES)[said]


def test_flags_are_unlabelled_and_weights_stay():
    method = make()
    flagged = np.arange(60) % 5 == 0
    chosen, memory = select(method, agreeing(flagged))
    np.testing.assert_array_equal(chosen.unlabelled, np.flatnonzero(flagged))
    np.testing.assert_array_equal(chosen.labelled, np.flatnonzero(~flagged))
    assert (chosen.weights[flagged] == 0.01).all()
    kept = chosen.weights[~flagged]
    assert kept.min() == 0.5 and kept.max() == 1
    np.testing.assert_array_equal(chosen.clean_probability, chosen.weights)
    np.testing.assert_array_equal(
        chosen.counts, np.bincount(LABELS[~flagged], minlength=CLASSES)
    )
    again, kept = select(method, -agreeing(flagged), memory)
    np.testing.assert_array_equal(again.weights, chosen.weights)
    assert kept is memory
    # All are trained on, flagged or not.
    rows = method.first["robust"].streams(chosen, np.random.default_rng(0))
    np.testing.assert_array_equal(np.unique(rows["x"]), np.arange(60))


def test_the_prior_is_subtracted_again_as_released():
    logits = np.zeros((60, CLASSES))
    logits[:, 0] = 0.5  # all of class 0, but not by much
    for released, expected in ((False, LABELS == 0), (True, LABELS == 2)):
        method = make(f"digits,as_released={released}")
        chosen, _ = select(method, logits)
        # Class 2 is empty: its prior counts one sample, the least.
        trusted = np.isin(np.arange(60), chosen.labelled)
        np.testing.assert_array_equal(trusted, expected)


@pytest.mark.parametrize("all_flagged", [True, False])
def test_all_and_none_flagged_do_no_harm(all_flagged, caplog):
    method = make()
    chosen, _ = select(method, agreeing(np.full(60, all_flagged)))
    assert np.isfinite(chosen.weights).all()
    assert len(chosen.labelled) == (0 if all_flagged else 60)
    said = [r for r in caplog.records if "confirms none" in r.getMessage()]
    assert len(said) == all_flagged
    if all_flagged:
        assert (chosen.weights == 0.01).all()


def again(method):
    """What a later round chooses and trains on; one in five was flagged."""
    weights = np.where(np.arange(60) % 5 == 0, 0.01, 0.5)
    phase = method.phase(36)
    chosen, _ = phase.selector.select(
        [], 0, method.data, h2e.Weights(weights), 36, None
    )
    return chosen, phase.streams(chosen, np.random.default_rng(0))["x"]


def test_a_later_round_keeps_what_was_not_flagged():
    chosen, rows = again(two_rounds())
    assert set(rows.flat) == set(np.flatnonzero(np.arange(60) % 5))
    assert not chosen.per_sample and chosen.clean_probability is None


def test_a_later_round_mixes_by_the_scores():
    chosen, rows = again(two_rounds(**{"h2e.iterate": "scores"}))
    scores = chosen.per_sample.scores
    np.testing.assert_allclose(np.bincount(LABELS, scores), [1, 1, 0, 1])
    np.testing.assert_allclose(scores[1] / scores[0], 50)
    assert set(rows.flat) == set(range(60))


def test_the_vote_is_adjusted_from_robust_on():
    method = make()
    out = [{"logits": np.zeros((2, CLASSES))}]

    def memory(adjusted):
        kept = h2e.HandOver(np.asarray(adjusted), [{}])
        return base.Memory({}, kept, np.zeros((0, 60)))

    assert not method.predict(out, memory(False)).any()
    scores = method.predict(out, memory(True))
    expected = -np.log(np.array([30, 20, 1, 10]) / 60)
    np.testing.assert_allclose(scores[0], expected, rtol=1e-6)


def test_full_freedom_trains_all_but_the_identifier():
    phase = make(**{"h2e.freeze": False}).first["robust"]
    assert phase.trainable(("backbone", "conv", "kernel"))
    assert not phase.trainable(("identifier", "exponents"))
    released = make("digits,as_released").first["identify"]
    assert released.trainable(("identifier", "linear", "bias"))
    assert not released.trainable(("identifier", "exponents"))
    ours = make().first["identify"]
    assert ours.trainable(("identifier", "exponents"))
    assert not ours.trainable(("logits", "bias"))


def test_the_identifier_needs_a_prior():
    config = make().config.model
    with pytest.raises(ValueError, match="prior of 4 classes"):
        models.build(config, 4, h2e.Method.heads)
    options = make().network_options
    network = models.build(config, 4, h2e.Method.heads, **options)
    variables = network.init(0, (8, 8, 1))
    head = variables["params"]["identifier"]
    np.testing.assert_array_equal(head["exponents"], 1)
    images = np.ones((2, 8, 8, 1), np.float32)
    out, _ = network.apply(variables, images, ("features", "identifier"))
    logits = out["features"] @ head["linear"]["kernel"] + head["linear"]["bias"]
    expected = logits - np.log(np.array([30, 20, 1, 10]) / 60)
    np.testing.assert_allclose(out["identifier"], expected, rtol=1e-5)
    assert out["identifier"].dtype == np.float32
