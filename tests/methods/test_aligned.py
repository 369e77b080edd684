"""Distribution alignment of guesses: its arithmetic, and where its mean is."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import dividemix as dividemix_config
from jaxnlt import method as base
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import GuessMean
from jaxnlt.methods import dividemix
from tests import typed
from tests.methods import dasc_case, toy

PROBS = jnp.asarray([[0.8, 0.2], [0.4, 0.6]])


@pytest.mark.parametrize(
    "to, ratio", [("uniform", 4 / 6), ("estimated", 3 * 4 / 6)]
)
def test_the_first_batch_by_hand(to, ratio):
    """Means .6 and .4; the target is equal shares, or 3 to 1."""
    start = mixmatch.no_guesses("uniform", 2, np.float32)
    found, mean = mixmatch.align(PROBS, to, jnp.asarray([9.0, 3]), start, 0.9)
    odds = PROBS[:, 0] / PROBS[:, 1] * ratio
    np.testing.assert_allclose(found[:, 0] / found[:, 1], odds, rtol=1e-5)
    np.testing.assert_allclose(found.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(mean.probs, [0.06, 0.04], rtol=1e-5)
    np.testing.assert_allclose(mean.weight, 0.1, rtol=1e-5)


def test_later_batches_by_hand():
    """Weights .45 and .5 of the batches: mean (.45 * .2 + .5 * .6) / .95."""
    past = GuessMean(jnp.asarray([0.18, 0.72]), jnp.asarray(0.9))
    found, mean = mixmatch.align(PROBS, "uniform", jnp.ones(2), past, 0.5)
    first = (0.5 * 0.18 + 0.5 * 0.6) / (0.5 * 0.9 + 0.5)
    np.testing.assert_allclose(mean.probs[0] / mean.weight, first, rtol=1e-5)
    odds = PROBS[:, 0] / PROBS[:, 1] * (1 - first) / first
    np.testing.assert_allclose(found[:, 0] / found[:, 1], odds, rtol=1e-5)


def test_none_leaves_guesses_and_carry():
    found, kept = mixmatch.aligner("none", 0.9, None, ("kept",))(PROBS)
    assert found is PROBS and kept == ("kept",)


def test_a_class_that_is_never_guessed_stays_finite():
    start = mixmatch.no_guesses("uniform", 2, np.float32)
    probs = jnp.asarray([[1.0, 0.0]])
    found, _ = mixmatch.align(probs, "uniform", jnp.ones(2), start, 0.9)
    np.testing.assert_array_equal(found, probs)


def aligned_dividemix(**options):
    config = dividemix_config.get_config()
    config.batch_size = dasc_case.SIZE
    config.dividemix.update(options)
    data = base.DataInfo(dasc_case.LABELS, toy.CLASSES)
    return dividemix.Method(config, data)


@pytest.mark.parametrize("make", [aligned_dividemix, dasc_case.make])
def test_only_aligned_guesses_are_remembered(make):
    plain = make().init_carry()
    assert getattr(plain, "guesses", plain) == ()
    carried = make(align_to="uniform").init_carry()
    mean = getattr(carried, "guesses", carried)
    assert mean.probs.shape == (toy.CLASSES,) and mean.weight == 0


def test_targets_of_both_methods_take_aligned_guesses():
    x, u = dasc_case.streams()
    net = base.Net(toy.apply, [], dasc_case.PEER)
    wanted = jnp.full((dasc_case.SIZE, toy.CLASSES), 1 / toy.CLASSES)
    given = (net, dasc_case.OWN["params"], x, u)
    for targets in (
        dasc_case.make().targets(*given, lambda probs: (wanted, "mean")),
        dividemix.two_view_targets(*given, 0.5, lambda p: (wanted, "mean")),
    ):
        np.testing.assert_allclose(targets.unlabelled, wanted, rtol=1e-6)
        assert targets.mean == "mean"


def test_dasc_carries_the_mean_along_and_keeps_it_where_memories_swap():
    method = dasc_case.make(align_to="estimated", align_decay=0.5)
    x, u = dasc_case.streams()
    net = base.Net(toy.apply, [], dasc_case.PEER)
    start = dasc_case.carry()._replace(
        guesses=mixmatch.no_guesses("uniform", toy.CLASSES, np.float32)
    )
    result = method.semi_loss(
        net,
        dasc_case.OWN["params"],
        typed.batch(jnp.float32(17), jnp.float32(1), x=x, u=u),
        mixmatch.MixupDraws(jnp.float32(0.7), jnp.arange(8)),
        typed.division(jnp.asarray([4.0, 2, 1]), 7.0, 5.0),
        start,
    )
    mean = result.carry.guesses
    np.testing.assert_allclose((mean.weight, mean.probs.sum()), 0.5, rtol=1e-6)
    states = [base.TrainState({}, {}, (), c) for c in (result.carry, start)]
    first, second = method.end_epoch(method.semi, states)
    assert (first.carry.rows is start.rows) and first.carry.guesses is mean
    assert second.carry.rows is result.carry.rows
    assert second.carry.guesses is start.guesses
