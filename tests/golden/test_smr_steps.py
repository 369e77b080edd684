"""SMR's training steps, on the authors' small net."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest

from jaxnlt import method as base
from jaxnlt import step
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dividemix
from tests import typed
from tests.golden import perceptron
from tests.golden.cases import golden
from tests.golden.methods import method
from tests.golden.precision import near
from tests.golden.scripted import spy

LAYERS = {"backbone": "fc1", "bn": "bn", "logits": "fc2"}


def variables(case, prefix):
    return perceptron.variables(case.group(f"{prefix}_"), LAYERS)


def check_momentum(case, state):
    expected = perceptron.params(case.group("momentum_final_"), LAYERS)
    jax.tree.map(near, state.momentum, expected)


def updater(case, phase):
    """The compiled step with the stored optimizer."""
    optimizer = {k: float(case[k]) for k in ("momentum", "weight_decay")}
    return jax.jit(partial(step.update, perceptron.apply, phase, **optimizer))


def check_mixing(net, params, x, u, draws, stored, temperature, near=near):
    """Targets, mixed rows and their logits, piece by piece."""
    targets = dividemix.two_view_targets(net, params, x, u, temperature)
    near(targets.labelled, stored["targets_x"])
    near(targets.unlabelled, stored["targets_u"])
    mixed = mixmatch.mixed_batch(x.views[-2:], u.views[-2:], targets, draws)
    rows = len(stored["mixed_input"])
    near(mixed.images[:rows], stored["mixed_input"])
    near(mixed.targets[:rows], stored["mixed_target"])
    logits = net(params, mixed.images[:rows], ("logits",))["logits"]
    near(logits, stored["logits"])


@golden("smr_ssl_step_cifar", "smr_ssl_step_clothing")
def test_ssl_steps(case):
    made = method(
        "smr:cifar10",
        range(case["step0_labels_x"].shape[1]),
        {"batch_size": int(case["batch_size"])},
        unlabelled_loss="step0_Lu" in case,
        sharpen_temperature=float(case["T"]),
        lambda_u=float(case["lambda_u"]),
        warmup=int(case["warm_up"]),
    )
    phase = made.phase(int(case["epoch"]))
    assert phase is made.semi
    state = base.init_state(variables(case, "net_init"), ())
    peer = variables(case, "net2_init")
    update = updater(case, phase)
    for number in range(len(case.prefixes("_loss"))):
        state = check_ssl_step(case, made, update, state, peer, number)
    jax.tree.map(near, state.variables, variables(case, "net_final"))
    jax.tree.map(near, peer, variables(case, "net2_final"))
    check_momentum(case, state)


def check_ssl_step(case, made, update, state, peer, number):
    stored = case.group(f"step{number}_")
    arrays = {name: jnp.asarray(value) for name, value in stored.items()}
    x = typed.stream(
        (arrays["inputs_x"], arrays["inputs_x2"]),
        stored["labels_x"].argmax(1),
        arrays["w_x"][:, 0],
    )
    u = typed.stream((arrays["inputs_u"], arrays["inputs_u2"]))
    batch = typed.batch(int(case["epoch"]), number, x=x, u=u)
    draws = MixupDraws(float(stored["lam"]), arrays["idx"])
    division = typed.division(num_labelled=jnp.float32(case["n_labeled"]))
    # Piece by piece, as the loss below calls them.
    net = base.Net(perceptron.apply, state.batch_stats, peer)
    with pytest.MonkeyPatch.context() as patch:
        averaged = spy(patch, mixmatch, "mean_probs")
        sharpened = spy(patch, mixmatch, "sharpen")
        temperature = made.options.sharpen_temperature
        check_mixing(net, state.params, x, u, draws, stored, temperature)
    names = (("u11", "u12", "u21", "u22"), ("x", "x2"))
    for ((logits,), _), called in zip(averaged, names, strict=True):
        for got, name in zip(logits, called, strict=True):
            near(got, stored[f"outputs_{name}"])
    for side, ((before, _), _) in zip("xu", sharpened, strict=True):
        near(before, stored[f"p{side}"])
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
        assert (ours in terms) == (theirs in stored)
        if ours in terms:
            near(terms[ours], stored[theirs])
    return state


@golden("smr_warmup_then_recalibration")
def test_warmup_then_recalibration(case):
    made = method(
        f"smr:cifar10,noise={case['noise_mode']},rate=0.4",
        range(case["init_fc2_weight"].shape[0]),
    )
    state = base.init_state(variables(case, "init"), ())
    for kind, name, epoch in (
        ("warmup", "warmup", 0),
        ("recal", "recalibration", 29),
    ):
        phase, rate = made.phase(epoch), float(case[f"lr_{name}"])
        assert phase.name == name
        update, number = updater(case, phase), 0
        while f"{kind}{number}_loss" in case:
            stored = case.group(f"{kind}{number}_")
            images = jnp.asarray(stored["inputs"])
            x = typed.stream((images,), stored["labels"])
            draws, fed = (), images
            if "lam" in stored:
                partner = jnp.asarray(stored["idx"])
                draws = MixupDraws(float(stored["lam"]), partner)
                fed = mixmatch.mixup(images, *draws)
                near(fed, stored["mixed_input"])
            net = base.Net(perceptron.apply, state.batch_stats, None)
            logits = net(state.params, fed, ("logits",))["logits"]
            near(logits, stored["outputs"])
            state, terms = update(
                state, None, typed.batch(x=x), draws, typed.division(), rate
            )
            near(terms["loss"], stored["loss"])
            number += 1
        assert number
        expected = variables(case, f"after_{name}")
        jax.tree.map(near, state.variables, expected)
    check_momentum(case, state)
