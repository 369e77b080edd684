"""SMR's training steps, on the authors' small net."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt import step
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dividemix
from tests import typed
from tests.golden.cases import golden
from tests.golden.scripted import spy
from tests.golden.test_smr import method, near

LAYERS = ("fc1", "bn", "fc2")


def apply(variables, images, heads, train):
    """The authors' small net: linear, batch norm, ReLU, linear."""
    p, stats = variables["params"], variables["batch_stats"]
    h = images @ p["fc1"]["weight"].T + p["fc1"]["bias"]
    mean, var = stats["running_mean"], stats["running_var"]
    if train:
        n = len(images)
        mean, var = h.mean(0), h.var(0)
        stats = {
            "running_mean": 0.9 * stats["running_mean"] + 0.1 * mean,
            "running_var": 0.9 * stats["running_var"] + 0.1 * var * n / (n - 1),
        }
    h = (h - mean) / jnp.sqrt(var + 1e-5)
    h = jnp.maximum(h * p["bn"]["weight"] + p["bn"]["bias"], 0)
    return {"logits": h @ p["fc2"]["weight"].T + p["fc2"]["bias"]}, stats


def state_of(case, prefix):
    params = {
        layer: {
            kind: jnp.asarray(case[f"{prefix}_{layer}_{kind}"])
            for kind in ("weight", "bias")
        }
        for layer in LAYERS
    }
    stats = {
        name: jnp.asarray(case[f"{prefix}_bn_{name}"])
        for name in ("running_mean", "running_var")
    }
    return base.init_state({"params": params, "batch_stats": stats}, ())


def check_state(case, prefix, state):
    expected = state_of(case, prefix)
    jax.tree.map(near, state.variables, expected.variables)


def check_momentum(case, state):
    for layer in LAYERS:
        for kind in ("weight", "bias"):
            value = state.momentum[layer][kind]
            near(value, case[f"momentum_final_{layer}_{kind}"])


def optimizer(case):
    return {k: float(case[k]) for k in ("momentum", "weight_decay")}


@golden("smr_ssl_step_cifar", "smr_ssl_step_clothing")
def test_ssl_steps(case):
    made = method(
        case["step0_labels_x"].shape[1],
        fields={"batch_size": int(case["batch_size"])},
        unlabelled_loss="step0_Lu" in case,
        sharpen_temperature=float(case["T"]),
        lambda_u=float(case["lambda_u"]),
        warmup=int(case["warm_up"]),
    )
    phase = made.phase(int(case["epoch"]))
    assert phase is made.semi
    state, peer = state_of(case, "net_init"), state_of(case, "net2_init")
    update = jax.jit(partial(step.update, apply, phase, **optimizer(case)))
    for number in range(sum(k.endswith("_loss") for k in case.keys())):
        state = check_ssl_step(
            case, made, update, state, peer.variables, number
        )
    check_state(case, "net_final", state)
    check_state(case, "net2_final", peer)
    check_momentum(case, state)


def check_ssl_step(case, made, update, state, peer, number):
    def stored(name):
        return case[f"step{number}_{name}"]

    def array(name):
        return jnp.asarray(stored(name))

    x = typed.stream(
        (array("inputs_x"), array("inputs_x2")),
        stored("labels_x").argmax(1),
        array("w_x")[:, 0],
    )
    u = typed.stream((array("inputs_u"), array("inputs_u2")))
    batch = typed.batch(int(case["epoch"]), number, x=x, u=u)
    draws = MixupDraws(float(stored("lam")), array("idx"))
    division = typed.division(num_labelled=np.float32(case["n_labeled"]))
    # Piece by piece, as the loss below calls them.
    net = base.Net(apply, state.batch_stats, peer)
    with pytest.MonkeyPatch.context() as patch:
        averaged = spy(patch, mixmatch, "mean_probs")
        sharpened = spy(patch, mixmatch, "sharpen")
        targets = dividemix.two_view_targets(
            net, state.params, x, u, made.options.sharpen_temperature
        )
    names = (("u11", "u12", "u21", "u22"), ("x", "x2"))
    for ((logits,), _), called in zip(averaged, names, strict=True):
        for got, name in zip(logits, called, strict=True):
            near(got, stored(f"outputs_{name}"))
    for side, ((before, _), _) in zip("xu", sharpened, strict=True):
        near(before, stored(f"p{side}"))
    near(targets.labelled, stored("targets_x"))
    near(targets.unlabelled, stored("targets_u"))
    mixed = mixmatch.mixed_batch(x.views, u.views, targets, draws)
    rows = len(stored("mixed_input"))
    near(mixed.images[:rows], stored("mixed_input"))
    near(mixed.targets[:rows], stored("mixed_target"))
    logits = net(state.params, mixed.images[:rows], ("logits",))["logits"]
    near(logits, stored("logits"))
    rate = float(case["lr"])
    state, terms = update(state, peer, batch, draws, division, rate)
    names = {
        "loss": "loss",
        "loss_ce": "Lx",
        "loss_mse": "Lu",
        "lambda_u": "lamb",
        "loss_penalty": "penalty",
    }
    for ours, theirs in names.items():
        assert (ours in terms) == (f"step{number}_{theirs}" in case)
        if ours in terms:
            near(terms[ours], stored(theirs))
    return state


@golden("smr_warmup_then_recalibration")
def test_warmup_then_recalibration(case):
    made = method(
        case["init_fc2_weight"].shape[0],
        f"cifar10,noise={case['noise_mode']},rate=0.4",
    )
    phases = {"warmup": made.phase(0), "recal": made.phase(29)}
    assert phases["recal"].name == "recalibration"
    state = state_of(case, "init")
    names = {"warmup": "warmup", "recal": "recalibration"}
    for kind, name in names.items():
        rate = float(case[f"lr_{name}"])
        update = jax.jit(
            partial(step.update, apply, phases[kind], **optimizer(case))
        )
        number = 0
        while f"{kind}{number}_loss" in case:
            prefix = f"{kind}{number}_"
            images = jnp.asarray(case[f"{prefix}inputs"])
            x = typed.stream((images,), case[f"{prefix}labels"])
            draws, fed = (), images
            if f"{prefix}lam" in case:
                partner = jnp.asarray(case[f"{prefix}idx"])
                draws = MixupDraws(float(case[f"{prefix}lam"]), partner)
                fed = mixmatch.mixup(images, *draws)
                near(fed, case[f"{prefix}mixed_input"])
            net = base.Net(apply, state.batch_stats, None)
            logits = net(state.params, fed, ("logits",))["logits"]
            near(logits, case[f"{prefix}outputs"])
            state, terms = update(
                state, None, typed.batch(x=x), draws, typed.division(), rate
            )
            near(terms["loss"], case[f"{prefix}loss"])
            number += 1
        assert number
        check_state(case, f"after_{name}", state)
    check_momentum(case, state)
