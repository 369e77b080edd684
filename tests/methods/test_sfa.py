"""SFA's selector at its edges, and its first step."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import sfa as sfa_config
from jaxnlt import method as base
from jaxnlt import selection
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import sfa
from tests import typed
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


def warned(caplog, class_id, words):
    """Whether one class alone is spoken of, in these words."""
    said = {(r.args[0], r.getMessage()) for r in caplog.records}
    ((about, text),) = said
    return about == class_id and words in text


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
    assert warned(caplog, 1, "keeps its centroid")


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
    assert warned(caplog, 1, "all its samples make the centroid")


def test_absent_class_is_skipped_and_comes_back_whole(caplog):
    method = make([0] * 6 + [1] * 4)
    _, memory = select(method, outputs(method))
    assert memory.known.tolist() == [True, True, False]
    assert warned(caplog, 2, "it is left out")
    method = make()
    out = outputs(method)
    _, memory = select(method, out, memory)
    rows = selection.centred_unit(out["features"])
    np.testing.assert_allclose(memory.first[2], rows[LABELS == 2].mean(0))


def test_two_samples_are_told_apart():
    method = make()
    chosen, _ = select(method, outputs(method))
    pair = np.sort(chosen.clean_probability[LABELS == 2])
    np.testing.assert_allclose(pair, [0, 1], atol=1e-3)


@pytest.mark.parametrize("equal", [1, 2], ids=["four", "pair"])
def test_equal_samples_are_clean(caplog, equal):
    method = make()
    out, rows = outputs(method), equal == LABELS
    out["features"][rows] = out["features"][rows][0]
    chosen, _ = select(method, out)
    np.testing.assert_array_equal(chosen.clean_probability[rows], 1)
    assert warned(caplog, equal, "equally far")


def test_rounding_does_not_divide_equal_samples():
    scores = -np.array([[1.0], [1 + 1e-15], [1.0]])
    distances, equal = selection.class_distances(scores, np.zeros(3, int), 1)
    assert equal.tolist() == [True] and not distances.any()


def test_features_on_the_centre_make_no_nan():
    rows = selection.centred_unit(np.ones((3, DIM)))
    np.testing.assert_array_equal(rows, np.zeros((3, DIM)))


def semi_loss(counts, unlabelled=3.0):
    """Method, loss and terms of the first semi-supervised step."""
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
    squares = terms["loss_mse"] + terms["loss_balanced_mse"]
    # Without unlabelled rows theirs weigh nothing.
    _, plain, _ = semi_loss([3, 2, 1], unlabelled=0.0)
    expected = total - terms["lambda_u"] * squares
    np.testing.assert_allclose(plain, expected, rtol=1e-5)


def test_emptied_class_counts_as_one():
    _, total, _ = semi_loss([3, 2, 0])
    assert np.isfinite(total)
    np.testing.assert_allclose(total, semi_loss([3, 2, 1])[1], rtol=1e-5)
