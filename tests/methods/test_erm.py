"""The baseline: every loss, resampling and the second phases."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import erm as erm_config
from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import erm
from jaxnlt.runtime.errors import UserError
from jaxnlt.selection.scores import softmax
from tests import runs, typed
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
    partner = np.array([1, 2, 3, 0])
    draws = MixupDraws(jnp.float32(0.3), partner)
    mixed = 0.3 * images() + 0.7 * images()[partner]
    targets = 0.3 * np.eye(3)[LABELS] + 0.7 * np.eye(3)[LABELS[partner]]
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


@pytest.mark.parametrize(
    "arg, field",
    [
        ("loss=hinge", "loss"),
        ("sampling=rare", "sampling"),
        ("second=third", "second"),
        ("view=strongest", "view"),
        ("num_nets=0", "num_nets"),
        ("loss=dmi,second=drw", "second"),
    ],
)
def test_bad_fields_are_refused(arg, field):
    with pytest.raises(UserError, match=f"^config.erm.{field}: "):
        make(f",{arg}")


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


def test_ldam_is_a_cosine_classifier():
    params = {"logits": {"kernel": VARIABLES["params"]["logits"]}}
    params["logits"]["bias"] = jnp.ones(toy.CLASSES)
    method = make(",loss=ldam_drw")
    total = result(method.phase(0), params=params).loss
    kernel = np.asarray(params["logits"]["kernel"])
    f = images() / np.linalg.norm(images(), axis=1, keepdims=True)
    z = np.array(f @ (kernel / np.linalg.norm(kernel, axis=0)))
    margins = 0.5 / np.bincount(LABELS) ** 0.25
    z[np.arange(4), LABELS] -= margins[LABELS]
    expected = -np.log(softmax(30 * z)[np.arange(4), LABELS]).mean()
    np.testing.assert_allclose(total, expected, rtol=1e-4)

    assert not method.train.trainable(("logits", "bias"))
    assert method.train.trainable(("logits", "kernel"))
    state = base.TrainState(params, {}, (), ())
    (state,) = method.end_epoch(method.train, [state])
    head = state.params["logits"]
    np.testing.assert_allclose(
        np.linalg.norm(head["kernel"], axis=0), 1, rtol=1e-6
    )
    assert not head["bias"].any()


def test_drw_weighs_classes_from_the_second_phase_on():
    method = make(",second=drw,epochs=10")
    assert [method.phase(e).name for e in (0, 7, 8, 10)] == [
        "train",
        "train",
        "drw",
        "drw",
    ]
    weights = (1 - 0.9999) / (1 - 0.9999 ** np.bincount(LABELS))
    weights = weights[LABELS]
    ce = -log_probs(images())[np.arange(4), LABELS]
    total = result(method.phase(9)).loss
    expected = (weights * ce).sum() / weights.sum()
    np.testing.assert_allclose(total, expected, rtol=1e-5)


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


@pytest.fixture(scope="module")
def two_phases(tmp_path_factory):
    """States of runs before and in the second phase."""
    states = {}
    for second in ("crt", "tau_norm"):
        config = runs.tiny("erm", f"digits,second={second},epochs=2")
        entered = []
        enter = erm.Method.enter

        def keep(self, *args, entered=entered, enter=enter):
            states = args[1]
            after, memory = enter(self, *args)
            entered.append(jax.device_get((states, after)))
            return after, memory

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(erm.Method, "enter", keep)
            folder = tmp_path_factory.mktemp(second)
            train.run(config, folder)
        rows = runs.records(folder)
        assert [r["phase"] for r in rows] == ["train", second]
        states[second] = entered[1]
    return states


def test_crt_begins_with_a_new_classifier(two_phases):
    ((before,), (after,)) = two_phases["crt"]
    kernels = [s.params["logits"]["kernel"] for s in (before, after)]
    assert kernels[0].shape == kernels[1].shape
    assert not np.allclose(*kernels)
    assert not after.momentum["logits"]["kernel"].any()
    jax.tree.map(
        np.testing.assert_array_equal,
        before.params["backbone"],
        after.params["backbone"],
    )
    method = make(",second=crt")
    phase = method.second
    assert phase.trainable(("logits", "kernel"))
    assert not phase.trainable(("backbone", "conv", "kernel"))


def test_tau_norm_rescales_the_classifier(two_phases):
    ((_,), (after,)) = two_phases["tau_norm"]
    head = after.params["logits"]
    np.testing.assert_allclose(
        np.linalg.norm(head["kernel"], axis=0), 1, rtol=1e-5
    )
    assert not head["bias"].any()


@pytest.mark.parametrize(
    "arg, second", [("loss=elr,second=crt", "crt"), ("loss=ldam_drw", "drw")]
)
def test_resumes_at_the_start_of_the_second_phase(arg, second, tmp_path):
    config = runs.tiny("erm", f"digits,{arg},epochs=3")
    train.run(config, tmp_path / "run")
    rows = runs.records(tmp_path / "run")
    assert [r["phase"] for r in rows] == ["train", "train", second]
    assert all(np.isfinite(r["loss"]) for r in rows)
    runs.check_resume(config, tmp_path / "run")


def test_a_second_phase_needs_its_first_epoch():
    config = erm_config.get_config("digits")
    with config.unlocked():
        config.erm.second = "crt"
    with pytest.raises(UserError, match="^config.erm.second_start: "):
        erm.Method(config, base.DataInfo(LABELS, toy.CLASSES))
