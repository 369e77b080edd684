"""DivideMix: when, whom to trust, what is minimised, what a run keeps."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import dividemix as dividemix_config
from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.data.records import Dataset, Split
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dividemix
from jaxnlt.runtime import checkpoint
from jaxnlt.runtime.errors import Once, UserError, logger
from jaxnlt.trainer import Trainer
from tests import runs, typed
from tests.methods import toy

LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)
INFO = base.DataInfo(LABELS, toy.CLASSES)


def make(arg="digits", **options):
    config = dividemix_config.get_config(arg)
    with config.unlocked():
        config.dividemix.update(options)
    return dividemix.Method(config, INFO)


def own_losses(seed):
    """Logits of three classes and their min-max normalised losses."""
    logits = np.random.default_rng(seed).normal(size=(8, 3))
    shifted = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    values = -shifted[np.arange(8), LABELS]
    return logits, (values - values.min()) / np.ptp(values)


def select(selector, logits, memory):
    return selector.select(
        [{"logits": logits}], 0, INFO, memory, 9, np.random.default_rng(0)
    )


# Settings --------------------------------------------------------------------


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
    assert options.lambda_u == lambda_u
    assert options.p_threshold == threshold
    assert options.average_losses == averaged
    assert options.confidence_penalty is penalty


def test_phases_by_epoch():
    assert make().phase(14).name == "warmup"
    assert make().phase(15).name == "semi"
    for arg, first in (("cifar10", 10), ("cifar10n", 10), ("cifar100", 30)):
        method = make(arg)
        assert method.config.epochs == 301
        assert method.phase(first - 1) is method.warmup
        assert method.phase(first) is method.semi
    assert method.semi.taught_by == "peer"
    assert method.semi.peer == "updated"
    assert method.semi.order == "in_turn"


# Selection -------------------------------------------------------------------


def test_losses_of_several_selections_are_averaged(monkeypatch):
    fitted = []

    def mixture(values, seed, **settings):
        fitted.append((values, settings))
        return values

    monkeypatch.setattr(dividemix.selection, "gmm_probability", mixture)
    selector = make(average_losses=3).semi.selector
    memory, seen = selector.init_memory(), []
    for seed in range(5):
        logits, values = own_losses(seed)
        seen.append(values)
        _, memory = select(selector, logits, memory)
        expected = np.mean(seen[-3:], axis=0)
        np.testing.assert_allclose(fitted[-1][0], expected, atol=1e-12)
        # What the next selection needs, and nothing else.
        np.testing.assert_allclose(memory.losses, seen[-2:], atol=1e-12)
    assert fitted[0][1] == {"max_iter": 10, "tol": 1e-2, "reg_covar": 5e-4}
    selector = make().semi.selector
    _, memory = select(selector, logits, selector.init_memory())
    assert memory.losses.shape == (0, 8)
    select(selector, logits, memory)
    np.testing.assert_allclose(fitted[-1][0], values, atol=1e-12)


def test_an_average_of_nothing_is_refused():
    with pytest.raises(UserError, match="average_losses"):
        make(average_losses=0)


def test_history_survives_a_checkpoint(tmp_path):
    selector = make(average_losses=3).semi.selector
    memories = [selector.init_memory()]
    for seed in range(3):
        memories.append(select(selector, own_losses(seed)[0], memories[-1])[1])
    kept = checkpoint.Checkpoints(tmp_path)
    state = {"params": np.zeros(1)}
    for epoch, memory in enumerate(memories):
        facts = {"epoch": epoch}
        held = {"selector": {"semi": [memory, memory]}}
        kept.save(epoch, [state], held, facts, accuracy=0.5, last_of_phase=True)
    kept.close()
    for epoch, memory in enumerate(memories):
        held = checkpoint.load(tmp_path, epoch).memory["selector"]["semi"]["1"]
        assert list(held) == ["losses"]
        assert held["losses"].dtype == memory.losses.dtype
        np.testing.assert_array_equal(held["losses"], memory.losses)
        logits, _ = own_losses(9)
        again, _ = select(selector, logits, dividemix.LossHistory(**held))
        first, _ = select(selector, logits, memory)
        np.testing.assert_array_equal(again.weights, first.weights)


def test_division_is_strict_and_counts_the_trusted():
    clean = np.array([0.5, 0.51, 0.9, 0.0, 1.0, 0.5, 0.2, 0.6])
    divided = dividemix.divide(clean, 0.5, INFO)
    np.testing.assert_array_equal(divided.labelled, [1, 2, 4, 7])
    np.testing.assert_array_equal(divided.unlabelled, [0, 3, 5, 6])
    np.testing.assert_array_equal(divided.counts, [0, 3, 1])
    np.testing.assert_array_equal(divided.weights, clean)


def tiny_trainer():
    labels = np.arange(12, dtype=np.int32) % 3
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (12, 8, 8, 1), np.uint8)
    split = Split(images, labels, labels, np.arange(12))
    dataset = Dataset(
        split, split, ("a", "b", "c"), (0.5,), (0.25,), "test", {}
    )
    return Trainer(runs.tiny("dividemix"), dataset)


def test_equal_losses_trust_everybody_and_say_so_once(caplog):
    trainer = tiny_trainer()
    once = Once()
    logger.addFilter(once)
    try:
        memory = trainer.init_memory(trainer.init_states())
        flat = [[[{"logits": np.zeros((12, 3), np.float32)}]] * 2]
        with caplog.at_level("WARNING", "jaxnlt"):
            for epoch in (15, 16):
                chosen, memory = trainer.select(
                    epoch, trainer.method.semi, flat, memory, [0]
                )
    finally:
        logger.removeFilter(once)
    assert len(chosen[0].labelled) == 12 and not len(chosen[0].unlabelled)
    np.testing.assert_array_equal(chosen[0].weights, np.ones(12))
    (record,) = caplog.records
    assert "network 0 leaves nothing unlabelled" in record.getMessage()


# Losses ----------------------------------------------------------------------


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
    rows = 14 if method.options.unlabelled_loss else 8
    calls = [(("logits",), n) for n in (3, 3, 4, 4, rows)]
    assert net.batch_stats == calls
    return float(total), {k: float(v) for k, v in terms.items()}


def test_semi_loss_adds_its_terms():
    total, terms = semi_terms(make())
    assert terms.keys() == {"loss_ce", "loss_mse", "loss_penalty", "lambda_u"}
    assert terms["lambda_u"] == 25
    expected = terms["loss_ce"] + terms["loss_penalty"]
    np.testing.assert_allclose(total, expected + 25 * terms["loss_mse"])


def test_copies_of_labelled_rows_weigh_nothing():
    total, terms = semi_terms(make(), unlabelled=0.0)
    expected = terms["loss_ce"] + terms["loss_penalty"]
    np.testing.assert_allclose(total, expected, rtol=1e-6)


def test_without_unlabelled_loss_only_labelled_rows_are_seen():
    total, terms = semi_terms(make(unlabelled_loss=False))
    assert terms.keys() == {"loss_ce", "loss_penalty"}
    np.testing.assert_allclose(total, sum(terms.values()), rtol=1e-6)


def test_ramp_starts_with_the_semi_supervised_stage():
    assert semi_terms(make(), epoch=15)[1]["lambda_u"] == 0
    terms = semi_terms(make(ramp=8.0), epoch=19)[1]
    assert terms["lambda_u"] == 25 * (19 - 15) / 8


# Runs ------------------------------------------------------------------------


def test_history_of_losses_is_kept_by_the_run(tmp_path):
    config = runs.tiny(
        "dividemix",
        **{
            "max_steps": 2,
            "epochs": 4,
            "dividemix.warmup": 1,
            "dividemix.average_losses": 3,
        },
    )
    train.run(config, tmp_path)
    rows = runs.records(tmp_path)
    assert [r["phase"] for r in rows] == ["warmup"] + ["semi"] * 3
    memory = checkpoint.load(tmp_path, 3).memory
    assert len(memory["selector"]["semi"]) == 2
    for net in memory["selector"]["semi"].values():
        assert net["losses"].shape == (2, memory["history"].shape[1])
