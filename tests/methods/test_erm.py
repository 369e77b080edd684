"""The baseline: every loss, resampling and the second phases."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np

from configs import erm as erm_config
from jaxnlt import method as base
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import erm
from jaxnlt.selection.scores import softmax
from tests import typed
from tests.methods import toy

VARIABLES = toy.variables(0)
LABELS = np.array([0, 2, 1, 2])


def make(arg=""):
    config = erm_config.get_config(f"digits{arg}")
    return erm.Method(config, base.DataInfo(LABELS, toy.CLASSES))


def images():
    drawn = np.random.default_rng(0).normal(size=(4, toy.FEATURES))
    return jnp.asarray(drawn, jnp.float32)


def result(phase, draws=(), carry=(), params=VARIABLES["params"]):
    """Result of a phase's loss on the toy network."""

    def apply(variables, images, heads, train):
        if heads == ("features",):
            return {"features": images}, variables["batch_stats"]
        return toy.apply(variables, images, heads, train)

    x = typed.stream((images(),), jnp.asarray(LABELS), index=jnp.arange(4))
    return phase.loss(
        base.Net(apply, [], None),
        params,
        typed.batch(x=x),
        draws,
        typed.division(),
        carry,
    )


def log_probs(images):
    logits = toy.apply(VARIABLES, images, ("logits",), False)[0]["logits"]
    return np.log(softmax(logits))


def test_ce_is_the_mean_over_rows():
    expected = -log_probs(images())[np.arange(4), LABELS].mean()
    found = result(make().phase(0), carry="kept")
    assert found.carry == "kept" and found.terms == {"loss_ce": found.loss}
    np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


def test_mixup_mixes_images_and_labels_alike():
    draws = MixupDraws(jnp.float32(0.3), np.array([1, 2, 3, 0]))
    mixed, targets = (
        0.3 * rows + 0.7 * rows[draws.permutation]
        for rows in (images(), np.eye(3)[LABELS])
    )
    expected = -(targets * log_probs(mixed)).sum(-1).mean()
    value = result(make(",loss=mixup").phase(0), draws).loss
    np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_mixup_draws_are_not_folded(monkeypatch):
    seen = []
    monkeypatch.setattr(
        erm.mixmatch, "mixup_draws", lambda *a, **k: seen.append((a, k))
    )
    make(",loss=mixup").phase(0).draws("key", {"x": 6})
    assert seen == [(("key", 1.0, 6), {"folded": False})]
    assert make().phase(0).draws("key", {"x": 6}) == ()


def test_fields_reach_the_method():
    method = make(",num_nets=2,view=strong")
    assert method.num_nets == 2
    assert method.phase(0).views == {"x": ("strong",)}
    assert method.phases() == (method.phase(3),)
    assert make().num_nets == 1
    assert make().phase(0).views == {"x": ("weak",)}
    votes = [{"logits": np.ones((1, 3))}, {"logits": np.full((1, 3), 2.0)}]
    np.testing.assert_array_equal(method.predict(votes, None), [[3, 3, 3]])


def test_losses_by_their_formulas():
    p = np.exp(log_probs(images()))[np.arange(4), LABELS]
    total = log_probs(images()).sum(1)
    expected = {
        "nce_rce": np.log(p) / total - np.log(1e-4) * (1 - p),
        "nmae": (1 - p) / 4,
        "focal": -((1 - p) ** 2) * np.log(p),
        "gce": (1 - p**0.7) / 0.7,
        "sce": -0.1 * np.log(p) + 4 * (1 - p),
    }
    for loss, value in expected.items():
        found = result(make(f",loss={loss}").phase(0))
        assert found.terms == {f"loss_{loss}": found.loss}
        np.testing.assert_allclose(found.loss, value.mean(), rtol=1e-5)
    prior = np.bincount(LABELS) / 4
    logits = toy.apply(VARIABLES, images(), ("logits",), False)[0]["logits"]
    for loss in ("balanced_softmax", "logit_adjustment"):
        balanced = softmax(np.asarray(logits) + np.log(prior))
        expected = -np.log(balanced[np.arange(4), LABELS]).mean()
        found = result(make(f",loss={loss}").phase(0))
        np.testing.assert_allclose(found.loss, expected, rtol=1e-5)


def test_every_named_loss_trains_the_classifier():
    for loss in (*get_args(erm.ActivePassive), "dmi"):
        phase = make(f",loss={loss}").phase(0)
        value, grad = jax.value_and_grad(
            lambda params, phase=phase: result(phase, params=params).loss
        )(VARIABLES["params"])
        assert np.isfinite(value), loss
        assert np.isfinite(grad["logits"]).all() and grad["logits"].any(), loss


def test_elr_keeps_a_target_of_every_sample():
    method = make(",loss=elr")
    carry = method.init_carry()
    assert carry.targets.shape == (4, toy.CLASSES)
    assert not carry.targets.any()
    carry = jax.tree.map(jnp.asarray, carry)
    found = result(method.phase(0), carry=carry)
    p = np.exp(log_probs(images()))
    np.testing.assert_allclose(found.carry.targets, 0.3 * p, atol=1e-3)
    ce = -np.log(p[np.arange(4), LABELS])
    inner = (np.asarray(found.carry.targets) * p).sum(-1)
    expected = np.mean(ce + 3 * np.log(1 - inner))
    np.testing.assert_allclose(found.loss, expected, rtol=1e-2)


def state(seed):
    rng = np.random.default_rng(seed)
    head = {"kernel": rng.normal(size=(5, 3)), "bias": rng.normal(size=3)}
    params = {"logits": head, "backbone": rng.normal(size=3)}
    made = base.init_state({"params": params, "batch_stats": {}}, ())
    return made.with_momentum(jax.tree.map(np.ones_like, params))


def assert_unit(head):
    lengths = np.linalg.norm(head["kernel"], axis=0)
    np.testing.assert_allclose(lengths, 1, rtol=1e-6)
    assert not head["bias"].any()


def test_ldam_is_a_cosine_classifier():
    """Its loss: the golden tests of RoLT's."""
    method = make(",loss=ldam_drw")
    assert not method.train.trainable(("logits", "bias"))
    assert method.train.trainable(("logits", "kernel"))
    (after,) = method.end_epoch(method.train, [state(0)])
    assert_unit(after.params["logits"])


def test_drw_is_a_second_phase():
    method = make(",second=drw,epochs=10")
    names = [method.phase(epoch).name for epoch in (0, 7, 8, 10)]
    assert names == ["train", "train", "drw", "drw"]


def test_sampling_reaches_the_streams():
    labels = np.repeat(np.arange(3), (40, 8, 2))
    info = base.DataInfo(labels, 3)
    for sampling, largest in (
        ("instance", 40),
        ("square_root", 30),
        ("class_balanced", 17),
    ):
        config = erm_config.get_config(f"digits,sampling={sampling}")
        with config.unlocked():
            config.batch_size = 10
        phase = erm.Method(config, info).phase(0)
        rows = phase.streams(base.trust_all(info), np.random.default_rng(0))
        assert rows["x"].shape == (5, 10)
        assert abs((labels[rows["x"]] == 0).sum() - largest) <= 1


def entered(method, epoch=1):
    (after,), _ = method.enter(epoch, [state(0)], None, lambda: [state(1)])
    return after


def test_crt_begins_with_a_new_classifier():
    method = make(",second=crt,epochs=2")
    after, new = entered(method), state(1).params
    for name, values in after.params["logits"].items():
        np.testing.assert_array_equal(values, new["logits"][name])
    assert not after.momentum["logits"]["kernel"].any()
    old = state(0).params["backbone"]
    np.testing.assert_array_equal(after.params["backbone"], old)
    assert method.second.trainable(("logits", "kernel"))
    assert not method.second.trainable(("backbone", "conv", "kernel"))
    jax.tree.map(
        np.testing.assert_array_equal,
        entered(method, 0).params,
        state(0).params,
    )


def test_tau_norm_rescales_the_classifier():
    assert_unit(entered(make(",second=tau_norm,epochs=2")).params["logits"])
