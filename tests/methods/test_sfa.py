"""SFA's selector, its memory and a whole small run."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import sfa as sfa_config
from jaxnlt import method as base
from jaxnlt import selection, train
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import sfa
from jaxnlt.runtime import checkpoint
from jaxnlt.runtime.errors import UserError
from tests import runs, typed
from tests.methods import toy

LABELS = np.array([0] * 6 + [1] * 4 + [2] * 2)
DIM = 3


def make(labels=LABELS, classes=3, **options):
    config = sfa_config.get_config("digits")
    config.batch_size = 2
    config.sfa.update(options)
    return sfa.Method(config, base.DataInfo(np.asarray(labels), classes))


def outputs(method, sure=None, seed=0):
    """Features, and balanced logits that are sure of the rows given."""
    labels, classes = method.data.labels, method.data.num_classes
    rng = np.random.default_rng(seed)
    rows = np.ones(len(labels), bool) if sure is None else sure
    logits = np.where(rows, 4.0, -4.0)[:, None] * np.eye(classes)[labels]
    features = rng.normal(size=(len(labels), DIM)).astype(np.float32)
    return {"features": features, "balanced": logits}


def select(method, out, memory=None, epoch=20, seed=0):
    selector = method.semi.selector
    memory = selector.init_memory() if memory is None else memory
    rng = np.random.default_rng(seed)
    return selector.select([out], 0, method.data, memory, epoch, rng)


def test_moments_are_running_averages():
    method = make(beta=0.75)
    first, second = outputs(method, seed=0), outputs(method, seed=1)
    _, memory = select(method, first)
    everyone = np.ones(len(LABELS), bool)
    means = [
        selection.class_means(
            selection.centred_unit(out["features"]), LABELS, 3, everyone
        )[0]
        for out in (first, second)
    ]
    np.testing.assert_allclose(memory.first, means[0])
    np.testing.assert_allclose(memory.second, means[0] ** 2)
    _, memory = select(method, second, memory)
    expected = 0.75 * means[0] + 0.25 * means[1]
    np.testing.assert_allclose(memory.first, expected)
    expected = 0.75 * means[0] ** 2 + 0.25 * means[1] ** 2
    np.testing.assert_allclose(memory.second, expected)


def test_the_release_forgets_its_moments():
    method = make(beta=0.75, persist_moments=False)
    out = outputs(method)
    _, memory = select(method, out)
    instant = memory.first
    for _ in range(2):
        _, memory = select(method, out, memory)
        np.testing.assert_allclose(memory.first, 0.25 * instant)


def test_all_classes_are_sampled_or_only_large_ones(monkeypatch):
    monkeypatch.setattr(sfa, "MANY", 5)
    seen = []
    sample = sfa.sample_centroids
    monkeypatch.setattr(
        sfa,
        "sample_centroids",
        lambda moments, noise, sampled: (
            seen.append(sampled.tolist()) or sample(moments, noise, sampled)
        ),
    )
    for option, draws in (("all", 1), ("over_300", 3)):
        method = make(sampled_classes=option, draws=draws)
        select(method, outputs(method))
    assert seen == [[True] * 3] + [[True, False, False]] * 3


def test_only_classes_sampled_are_moved_by_noise():
    first = np.ones((2, DIM))
    moments = sfa.Moments(first, first + 4, np.ones(2, bool))
    got = sfa.sample_centroids(
        moments, np.full((2, DIM), 0.5), np.array([True, False])
    )
    np.testing.assert_allclose(got, [[2] * DIM, [1] * DIM])


def warned(caplog):
    return {(r.args[0], r.getMessage()) for r in caplog.records}


def test_unsure_class_keeps_its_centroid(caplog):
    method = make()
    out = outputs(method)
    _, memory = select(method, out)
    unsure = outputs(method, sure=LABELS != 1, seed=1)
    chosen, kept = select(method, unsure, memory)
    np.testing.assert_array_equal(kept.first[1], memory.first[1])
    np.testing.assert_array_equal(kept.second[1], memory.second[1])
    assert not np.array_equal(kept.first[0], memory.first[0])
    assert np.isfinite(chosen.clean_probability).all()
    message = "SFA: class 1 has no confident sample; it keeps its centroid"
    assert warned(caplog) == {(1, message)}


@pytest.mark.parametrize("persist", [True, False])
def test_unsure_class_without_past_takes_all_its_samples(caplog, persist):
    method = make(persist_moments=persist)
    out = outputs(method, sure=LABELS != 1)
    _, memory = select(method, out)
    rows = selection.centred_unit(out["features"])
    expected = rows[LABELS == 1].mean(0)
    np.testing.assert_allclose(memory.first[1], expected)
    if not persist:  # there is no past that could be kept
        _, memory = select(method, out, memory)
        np.testing.assert_allclose(memory.first[1], 0.01 * expected)
    message = "SFA: class 1 has no confident sample; all its samples make "
    assert warned(caplog) == {(1, message + "the centroid")}


def test_absent_class_is_skipped_and_comes_back_whole(caplog):
    method = make([0] * 6 + [1] * 4)
    _, memory = select(method, outputs(method))
    assert memory.known.tolist() == [True, True, False]
    assert warned(caplog) == {(2, "SFA: class 2 has no sample; it is left out")}
    method = make()
    out = outputs(method)
    _, memory = select(method, out, memory)
    rows = selection.centred_unit(out["features"])
    np.testing.assert_allclose(memory.first[2], rows[LABELS == 2].mean(0))


def test_single_sample_is_clean(caplog):
    method = make([0] * 6 + [1] * 5 + [2])
    chosen, _ = select(method, outputs(method))
    assert chosen.clean_probability[-1] == 1 and 11 in chosen.labelled
    message = "SFA: class 2 has a single sample; it counts as clean"
    assert warned(caplog) == {(2, message)}


def test_two_samples_are_told_apart():
    method = make()
    chosen, _ = select(method, outputs(method))
    pair = np.sort(chosen.clean_probability[LABELS == 2])
    np.testing.assert_allclose(pair, [0, 1], atol=1e-3)


def test_identical_pair_is_clean(caplog):
    method = make()
    out = outputs(method)
    out["features"][LABELS == 2] = out["features"][-1]
    chosen, _ = select(method, out)
    np.testing.assert_array_equal(chosen.clean_probability[LABELS == 2], 1)
    assert [c for c, _ in warned(caplog)] == [2]


def test_pair_around_its_centroid_is_split_by_the_other_classes():
    rows = np.array([[1.0, 0], [0, 1], [0, -1]])
    means = np.array([[1.0, 0], [0, 0]])
    means[0, 1] = 0.1  # class 0 lies nearer to the second row
    scores = selection.nearest_scores(rows, means)
    labels = np.array([0, 1, 1])
    distances, equal = selection.class_distances(scores, labels, 2)
    assert distances.tolist() == [0, 1, 0] and not equal.any()


def test_equal_samples_are_clean(caplog):
    method = make()
    out = outputs(method)
    out["features"][LABELS == 1] = out["features"][7]
    chosen, _ = select(method, out)
    np.testing.assert_array_equal(chosen.clean_probability[LABELS == 1], 1)
    ((c, message),) = warned(caplog)
    assert c == 1 and "all samples of class 1 are equally far" in message


def test_rounding_does_not_divide_equal_samples():
    scores = -np.array([[1.0], [1 + 1e-15], [1.0]])
    distances, equal = selection.class_distances(scores, np.zeros(3, int), 1)
    assert equal.tolist() == [True] and not distances.any()


def test_features_on_the_centre_make_no_nan():
    rows = selection.centred_unit(np.ones((3, DIM)))
    np.testing.assert_array_equal(rows, np.zeros((3, DIM)))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampled_classes": "tail"}, "config.sfa.sampled_classes: 'tail'"),
        ({"draws": 0}, "config.sfa.draws: must be in"),
        ({"beta": 1.0}, r"config.sfa.beta: "),
    ],
)
def test_bad_fields_are_refused(options, message):
    with pytest.raises(UserError, match=f"^{message}"):
        make(**options)


def test_switches_of_the_release():
    released = sfa_config.get_config("cifar10,as_released").sfa
    ours = sfa_config.get_config("cifar10").sfa
    assert not released.persist_moments and ours.persist_moments
    assert released.sampled_classes == "over_300"
    assert ours.sampled_classes == "all"
    assert (ours.draws, ours.beta, ours.phi) == (1, 0.99, 1.005)


def semi_loss(counts, unlabelled=3.0):
    """The loss and its terms of the first semi-supervised step."""
    method = make(sharpen_temperature=1.0)
    rng = np.random.default_rng(0)

    def views():
        shape = (2, 2, toy.FEATURES)
        return tuple(jnp.asarray(rng.normal(size=shape), jnp.float32))

    x = typed.stream(views(), jnp.array([0, 1]), jnp.array([1.0, 0.5]))
    epoch = jnp.float32(method.options.warmup)
    batch = typed.batch(epoch, 0, x=x, u=typed.stream(views()))
    draws = MixupDraws(jnp.float32(1), jnp.arange(8))
    division = typed.division(jnp.asarray(counts, jnp.float32), 4.0, unlabelled)
    net = base.Net(toy.apply, [], toy.variables(1))
    total, terms, _ = method.semi_loss(
        net, toy.variables(0)["params"], batch, draws, division, ()
    )
    return method, float(total), {k: float(v) for k, v in terms.items()}


def test_ramp_starts_above_zero():
    method, total, terms = semi_loss([3, 2, 1])
    options = method.options
    assert terms["lambda_u"] == options.lambda_u / options.ramp
    plain = terms["loss_ce"] + terms["loss_balanced_ce"]
    plain += terms["loss_penalty"]
    squares = terms["loss_mse"] + terms["loss_balanced_mse"]
    expected = plain + terms["lambda_u"] * squares
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    _, total, _ = semi_loss([3, 2, 1], unlabelled=0.0)
    np.testing.assert_allclose(total, plain, rtol=1e-5)


def test_emptied_class_counts_as_one():
    _, total, _ = semi_loss([3, 2, 0])
    assert np.isfinite(total)
    np.testing.assert_allclose(total, semi_loss([3, 2, 1])[1], rtol=1e-5)


def test_moments_are_kept_by_the_run(tmp_path):
    fields = {"max_steps": 2, "epochs": 3, "sfa.warmup": 1}
    train.run(runs.tiny("sfa", **fields), tmp_path)
    rows = runs.records(tmp_path)
    assert [r["phase"] for r in rows] == ["warmup", "semi", "semi"]
    saved = checkpoint.load(tmp_path).memory["selector"]["semi"]
    assert len(saved) == 2
    for fields in saved.values():
        memory = sfa.Moments(**fields)
        assert memory.first.dtype == np.float64
        assert memory.first.shape == memory.second.shape == (10, 4)
        assert memory.known.all()
        spread = memory.second - memory.first**2
        assert (spread > 1e-12).any()  # more than one centroid went in
