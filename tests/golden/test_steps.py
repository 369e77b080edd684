"""Training steps against the authors' loops, and SGD against PyTorch's."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import method as base
from jaxnlt import step
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dividemix
from tests import typed
from tests.golden import perceptron, tiny
from tests.golden.cases import golden
from tests.golden.methods import labels_of, method
from tests.golden.precision import close, near
from tests.golden.test_losses import queue, valid


def hyper(case):
    """Options of config.dasc and the optimizer, as stored or as released."""
    names = {
        "SBCL_lambda": "contrast_weight",
        "SBCL_temp": "contrast_temperature",
        "MIDL_lambda": "midl_weight",
        "MIDL_temp": "midl_temperature",
        "T": "sharpen_temperature",
        "conf_mask_threshold": "confidence_threshold",
        "lambda_u": "lambda_u",
        "warm_up": "warmup",
    }
    stored = case.group("hp__")
    options = {
        ours: (int if ours == "warmup" else float)(stored[theirs])
        for theirs, ours in names.items()
        if theirs in stored
    }
    rate = float(stored.get("lr", 0.02))
    optimizer = {
        "momentum": float(stored.get("momentum", 0.9)),
        "weight_decay": float(stored.get("weight_decay", 1e-4)),
    }
    return options, optimizer, rate


def start(case, prefix, dtype):
    params = tiny.tree(case.group(prefix), dtype)
    carry = queue(case["memory_init"], int(case["memory_size"]), dtype)
    return base.init_state({"params": params, "batch_stats": {}}, carry)


def check_params(case, prefix, suffix, params, dtype):
    names = [
        key.removeprefix(prefix).removesuffix(suffix)
        for key in case.keys()
        if key.startswith(prefix) and key.endswith(suffix)
    ]
    assert names
    for name in names:
        expected = case[f"{prefix}{name}{suffix}"]
        close(tiny.leaf(params, name), expected, dtype, grad=True)


@golden("dasc_warmup_step")
def test_warmup_steps(case, dtype):
    options, optimizer, rate = hyper(case)
    options |= {
        "warmup": 30,
        "contrast_start": 10,
        "memory_size": int(case["memory_size"]),
    }
    fields = {"batch_size": 1}
    made = method("dasc:", labels_of(case["noisy_counts"]), fields, **options)
    phase = made.phase(int(case["epoch"]))
    state = start(case, "net_init__", dtype)
    everyone = typed.division(jnp.asarray(case["noisy_counts"], dtype))
    update = jax.jit(partial(step.update, tiny.apply, phase, **optimizer))
    for j in range(int(case["n_iters"])):
        it = f"it{j}__"
        views = case.jnp(it + "x1", it + "x2", dtype=dtype)
        x = typed.stream(views, jnp.asarray(case[it + "y"]))
        batch = typed.batch(x=x)
        state, terms = update(state, None, batch, (), everyone, rate)
        ce = case[it + "ce_view1_f64"] + case[it + "ce_view2_f64"]
        balanced = case[it + "bal_view1_f64"] + case[it + "bal_view2_f64"]
        close(terms["loss_ce"], ce / 2, dtype)
        close(terms["loss_balanced_ce"], balanced / 2, dtype)
        close(terms["loss"], case[it + "total_loss_f64"], dtype)
        if it + "sbcl_loss_f64" in case:
            close(terms["loss_contrast"], case[it + "sbcl_loss_f64"], dtype)
        close(valid(state.carry), case[it + "memory_after_f64"], dtype)
        prefix = it + "params_after__"
        check_params(case, prefix, "_f64", state.params, dtype)


@golden("dasc_ssl_step")
def test_semi_supervised_steps(case, dtype):
    labels = [
        label
        for label in ("zero", "arange")
        if f"it0__total_loss__{label}_f64" in case
    ]
    assert labels
    for label in labels:
        check_steps(case, dtype, label)


TERMS = {
    "loss_ce": "Lx",
    "loss_mse": "Lu",
    "loss_balanced_ce": "Lx_bal",
    "loss_balanced_mse": "Lu_bal",
    "loss_penalty": "penalty",
    "loss_midl": "midl_loss",
}


def check_steps(case, dtype, label):
    """All steps of one variant of MIDL."""
    options, optimizer, rate = hyper(case)
    counts, size = case["clean_counts"], len(case["it0__y"])
    options |= {"ramp": 16.0, "midl_label": label}
    fields = {"batch_size": size}
    made = method("dasc:", range(len(counts)), fields, **options)
    state = start(case, "net_init__", dtype)
    peer = start(case, "net2__", dtype).variables
    update = jax.jit(partial(step.update, tiny.apply, made.semi, **optimizer))
    labelled = (int(case["num_iter"]) - 1.0) * size
    division = typed.division(jnp.asarray(counts, dtype), labelled)

    @jax.jit
    @jax.grad
    def gradients(params, *inputs):
        net = base.Net(tiny.apply, {}, peer)
        return made.semi_loss(net, params, *inputs).loss

    for j in range(int(case["n_iters"])):
        it = f"it{j}__"

        def expected(name, it=it):
            both, one = f"{it}{name}_f64", f"{it}{name}__{label}_f64"
            return case[one] if one in case else case[both]

        streams = {}
        given = jnp.asarray(case[it + "y"])
        for side in "xu":
            names = (f"{it}{side}{v}" for v in (1, 2, 3))
            *views, weights = case.jnp(*names, it + "w", dtype=dtype)
            streams[side] = typed.stream(views, given, weights)
        time = jnp.asarray([case["epoch"], j], dtype)
        batch = typed.batch(*time, **streams)
        (coefficient,) = case.jnp(it + "mix_lambda", dtype=dtype)
        draws = MixupDraws(coefficient, jnp.asarray(case[it + "perm"]))

        net = base.Net(tiny.apply, {}, peer)
        targets = made.targets(net, state.params, batch.x, batch.u)
        close(targets[0], expected("targets_x"), dtype)
        close(targets[1], expected("targets_u"), dtype)
        contrast = expected("sbcl_loss")
        # No confident row: the authors divide 0 by 0 and go on with NaN; the
        # term is 0 here, and nothing after it compares.
        defined = np.isfinite(contrast)
        if j == 0 and defined:  # gradients, without weight decay
            grads = gradients(state.params, batch, draws, division, state.carry)
            suffix = f"__{label}_f64"
            check_params(case, "it0__grad__", suffix, grads, dtype)
        state, terms = update(state, peer, batch, draws, division, rate)
        close(terms["lambda_u"], case[it + "lambda_u_ramp"], dtype)
        for ours, theirs in TERMS.items():
            close(terms[ours], expected(theirs), dtype)
        if not defined:
            assert terms["loss_contrast"] == 0
            assert np.isfinite(terms["loss"])
            break
        close(terms["loss_contrast"], contrast, dtype)
        close(terms["loss"], expected("total_loss"), dtype)
        memory = expected("memory_after")
        close(valid(state.carry), memory, dtype, grad=True)
        prefix, suffix = f"{it}params_after__", f"__{label}_f64"
        check_params(case, prefix, suffix, state.params, dtype)


LAYERS = {"backbone": "fc", "bn": "bn", "logits": "out", "unused": "unused"}


def phase(loss, **fields):
    """A phase of which only the loss matters."""

    def result(net, params, batch, draws, division, carry):
        return base.LossResult(loss(net, params, batch.x), {}, carry)

    return base.Phase("toy", result, lambda selection, rng: {}, {}, **fields)


@golden("smr_sgd_trajectory")
def test_sgd_trajectory(case):
    close = partial(near, rtol=1e-6, atol=1e-6)
    trained = phase(
        lambda net, params, x: dividemix.given_label_loss(net, params, x)[0],
        trainable=lambda path: path[0] != "unused",
    )
    for run in ("", "_big_wd"):
        initial = perceptron.variables(case.group(f"init{run}_"), LAYERS)
        state = base.init_state(initial, {})
        update = partial(
            step.update,
            perceptron.apply,
            trained,
            momentum=float(case["momentum"]),
            weight_decay=float(case[f"weight_decay{run}"]),
        )
        update, j = jax.jit(update), 0
        while f"step{j}{run}_x" in case:
            x, y = case.jnp(f"step{j}{run}_x", f"step{j}{run}_y")
            batch = typed.batch(x=typed.stream([x], y))
            rate = float(case[f"step{j}{run}_lr"])
            state, terms = update(state, None, batch, (), None, rate)
            close(terms["loss"], case[f"step{j}{run}_loss"])
            after = case.group(f"after{j}{run}_")
            expected = perceptron.variables(after, LAYERS)
            jax.tree.map(close, state.variables, expected)
            j += 1
        assert j


@golden("smr_sgd_trajectory")
def test_sgd_on_a_quadratic(case):
    with jax.enable_x64(True):
        a = jnp.asarray(case["q_a"])
        quadratic = phase(lambda net, p, x: 0.5 * jnp.sum(a * p["x"] ** 2))
        for run in ("q", "q_wd"):
            trajectory = case[f"{run}_trajectory"]
            x = {"x": jnp.asarray(trajectory[0])}
            state = base.init_state({"params": x, "batch_stats": {}}, {})
            update = partial(
                step.update,
                None,
                quadratic,
                momentum=float(case["momentum"]),
                weight_decay=float(case[f"{run}_weight_decay"]),
            )
            rate, batch = float(case[f"{run}_lr"]), typed.batch(x=None)
            for expected in trajectory[1:]:
                state, _ = update(state, None, batch, (), None, rate)
                near(state.params["x"], expected, atol=1e-12)
