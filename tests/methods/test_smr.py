"""SMR: when it recalibrates, its warm-up and losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import dividemix as dividemix_config
from configs import smr as smr_config
from jaxnlt import method as base
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dividemix, smr
from jaxnlt.selection.scores import softmax
from tests import typed
from tests.methods import toy

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)


def make(arg="digits", **options):
    config = smr_config.get_config(arg)
    with config.unlocked():
        config.smr.update(options)
    return smr.Method(config, base.DataInfo(LABELS, toy.CLASSES))


def recalibrations(method):
    names = [method.phase(e).name for e in range(method.config.epochs)]
    return [e for e, name in enumerate(names) if name == "recalibration"]


def test_recalibration_replaces_a_semi_supervised_epoch():
    method = make("cifar10")
    assert recalibrations(method) == list(range(29, 300, 30))
    phases = (method.warmup, method.semi, method.recalibration)
    assert method.phases() == phases
    # Warm-up goes first, and so does the first epoch after it.
    assert recalibrations(make("cifar100"))[0] == 59
    assert recalibrations(make("cifar10", warmup=29))[0] == 59


def test_period_scales_with_the_schedule():
    assert recalibrations(make()) == [19, 23, 27, 31, 35]
    assert recalibrations(make("digits,as_released"))[-1] == 39
    assert recalibrations(make("epochs=80")) == list(range(31, 79, 8))
    period = make("cifar10,epochs=40").options.period
    assert period == pytest.approx(30 * 40 / 301)
    short = make("epochs=10")
    assert short.options.period == 1
    assert recalibrations(short) == [5, 7]


def test_smoke_has_an_epoch_of_every_phase():
    method = make("cifar10,smoke")
    assert method.config.max_steps == 2
    names = [method.phase(e).name for e in range(method.config.epochs)]
    assert names == ["warmup", "semi", "recalibration", "semi"]


def test_settings_are_dividemix_s_but_for_the_batch():
    arg = "cifar10,noise=asym,rate=0.4"
    ours = smr_config.get_config(arg)
    theirs = dividemix_config.get_config(arg)
    assert (ours.batch_size, ours.warmup_batch_size) == (128, 256)
    assert (ours.epochs, ours.optimizer) == (theirs.epochs, theirs.optimizer)
    for name, value in theirs.dividemix.items():
        if name != "confidence_penalty":
            assert ours.smr[name] == value, name
    assert "confidence_penalty" not in ours.smr
    assert make("cifar10,rate=0.9").options.average_losses == 5
    released = make("cifar10,noise=asym,rate=0.4,as_released").options
    assert (released.lambda_u, released.spare_last_epoch) == (25, False)
    assert isinstance(make().semi.selector, dividemix.LossMixture)


# Losses ----------------------------------------------------------------------

VARIABLES = toy.variables(0)
IMAGES = jnp.asarray(
    np.random.default_rng(0).normal(size=(8, toy.FEATURES)), jnp.float32
)


def loss(phase, draws):
    net = base.Net(toy.apply, [], None)
    batch = typed.batch(x=typed.stream((IMAGES,), jnp.asarray(LABELS)))
    total, terms, _ = phase.loss(
        net, VARIABLES["params"], batch, draws, typed.division(), ()
    )
    assert terms == {"loss_ce": total}
    assert net.batch_stats == [(("logits",), 8)]
    return float(total)


def log_probs(images):
    logits = toy.apply(VARIABLES, images, ("logits",), False)[0]["logits"]
    return np.log(softmax(logits))


def test_warmup_mixes_images_and_labels_alike():
    draws = MixupDraws(jnp.float32(0.8), np.roll(np.arange(8), 3))
    mixed, targets = (
        0.8 * rows + 0.2 * rows[draws.permutation]
        for rows in (IMAGES, np.eye(3)[LABELS])
    )
    expected = -(targets * log_probs(mixed)).sum(-1).mean()
    np.testing.assert_allclose(loss(make().warmup, draws), expected, rtol=1e-5)


def test_warmup_draws_are_folded_and_of_one_batch():
    phase = make(alpha=0.5).warmup
    for seed in range(20):
        draws = phase.draws(jax.random.key(seed), {"x": 8})
        assert 0.5 <= draws.coefficient <= 1
        assert sorted(np.asarray(draws.permutation)) == list(range(8))


def test_recalibration_is_plain_cross_entropy():
    phase = make("digits,noise=flip,rate=0.2").recalibration
    assert phase.draws(None, {"x": 8}) == ()
    assert phase.selector is None and phase.views == {"x": ("weak",)}
    expected = -log_probs(IMAGES)[np.arange(8), LABELS].mean()
    np.testing.assert_allclose(loss(phase, ()), expected, rtol=1e-5)
