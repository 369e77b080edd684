"""DivideMix: settings, division, and the weight of unlabelled rows."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import dividemix as dividemix_config
from jaxnlt import method as base
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dividemix
from tests import typed
from tests.methods import toy

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)
INFO = base.DataInfo(LABELS, toy.CLASSES)


def make(arg="digits", **options):
    config = dividemix_config.get_config(arg)
    with config.unlocked():
        config.dividemix.update(options)
    return dividemix.Method(config, INFO)


@pytest.mark.parametrize(
    "arg, lambda_u, threshold, averaged, penalty",
    [
        ("cifar10,imb=1,noise=sym_count,rate=0.2", 0, 0.5, 1, False),
        ("cifar10,imb=1,noise=sym,rate=0.2", 0, 0.5, 1, False),
        ("cifar10,imb=1,noise=asym,rate=0.4", 0, 0.5, 1, True),
        ("cifar10,noise=sym_count,rate=0.8", 25, 0.5, 1, False),
        ("cifar100,imb=1,noise=sym_count,rate=0.9", 150, 0.6, 5, False),
        ("cifar100,noise=sym_count,rate=0.9,as_released", 25, 0.5, 5, False),
        ("cifar10,noise=asym,rate=0.4,as_released", 25, 0.5, 1, True),
        ("digits", 25, 0.5, 1, False),
    ],
)
def test_settings_of_the_paper(arg, lambda_u, threshold, averaged, penalty):
    options = dividemix_config.get_config(arg).dividemix
    assert (options.lambda_u, options.p_threshold) == (lambda_u, threshold)
    assert options.average_losses == averaged
    assert options.confidence_penalty is penalty


def test_phases():
    method = make("cifar10n")
    assert method.config.epochs == 301
    assert method.phase(9) is method.warmup
    assert method.phase(10) is method.semi
    assert (method.semi.taught_by, method.semi.peer) == ("peer", "updated")
    assert method.semi.order == "in_turn"


def test_division_is_strict_and_counts_the_trusted():
    clean = np.array([0.5, 0.51, 0.9, 0.0, 1.0, 0.5, 0.2, 0.6])
    divided = dividemix.divide(clean, 0.5, INFO)
    np.testing.assert_array_equal(divided.labelled, [1, 2, 4, 7])
    np.testing.assert_array_equal(divided.unlabelled, [0, 3, 5, 6])
    np.testing.assert_array_equal(divided.counts, [0, 3, 1])
    np.testing.assert_array_equal(divided.weights, clean)


def semi_terms(method, unlabelled=3.0, epoch=40):
    rng = np.random.default_rng(1)

    def views(rows):
        return tuple(
            jnp.asarray(rng.normal(size=(rows, toy.FEATURES)), jnp.float32)
            for _ in range(2)
        )

    x = typed.stream(views(4), jnp.asarray(LABELS[:4]), jnp.full(4, 0.8))
    batch = typed.batch(epoch, x=x, u=typed.stream(views(3)))
    draws = MixupDraws(0.7, jnp.arange(14)[::-1])
    division = typed.division(num_labelled=4.0, num_unlabelled=unlabelled)
    params = toy.variables(0)["params"]
    net = base.Net(toy.apply, [], toy.variables(1))
    total, terms, carry = method.semi_loss(
        net, params, batch, draws, division, {"kept": 1}
    )
    assert carry == {"kept": 1}
    # u1, u2, x1, x2, mixed.
    assert net.batch_stats == [(("logits",), n) for n in (3, 3, 4, 4, 14)]
    return float(total), {k: float(v) for k, v in terms.items()}


def test_copies_of_labelled_rows_weigh_nothing():
    total, terms = semi_terms(make(), unlabelled=0.0)
    expected = terms["loss_ce"] + terms["loss_penalty"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_ramp_starts_with_the_semi_supervised_stage():
    assert semi_terms(make(), epoch=15)[1]["lambda_u"] == 0
    terms = semi_terms(make(ramp=8.0), epoch=19)[1]
    assert terms["lambda_u"] == 25 * (19 - 15) / 8
