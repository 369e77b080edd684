"""UNICON's selection, contrast, schedules and whole steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from jaxnlt import method as base
from jaxnlt.data import noise
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import unicon
from jaxnlt.models.layers import l2_normalise
from tests import typed
from tests.golden import perceptron
from tests.golden.cases import golden
from tests.golden.methods import method
from tests.golden.precision import near
from tests.golden.test_smr_steps import LAYERS, check_mixing, updater


@golden("unicon_jsd")
def test_disagreement(case):
    logits, labels = (case["logits_net1"], case["logits_net2"]), case["labels"]
    n, classes = int(case["n_scored"]), logits[0].shape[1]
    scores = unicon.disagreement(logits, labels, "e")
    near(scores[:n], case["jsd"])
    paper = unicon.disagreement(logits, labels, "2")
    near(paper[:n] * float(case["ln2"]), case["jsd"])
    # The release's d_u is never exceeded in nats, any below the mean is.
    near(unicon.cutoff(case["jsd"], 0.7, 5.0), case["threshold_mean"])
    cut = unicon.cutoff(case["jsd"], 0.0, 5.0)
    near(cut, case["threshold_if_d_u_exceeded_tau5"])
    assert np.mean(case["jsd"] < cut) == case["select_ratio_if_d_u_exceeded"]
    # The selector counts by the same cutoff.
    outputs = [{"logits": z[:n]} for z in logits]
    text = "unicon:digits,as_released"
    made = method(text, labels[:n], num_classes=classes)
    chosen, _ = made.selector().select(outputs, 0, made.data, (), 0, None)
    assert chosen.shared.share == case["select_ratio"]
    first = slice(int(case["quirk_n"]))
    near(scores[first], case["quirk_jsd_intended"])


@golden("unicon_uniform_selection")
def test_uniform_selection(case):
    for tag in case.prefixes("_labels"):
        arrays = case.group(f"{tag}_")
        labels, scores = arrays["labels"], arrays["jsd"]
        share = float(arrays["select_ratio"])
        # Every class is read, and every class of the files has a sample.
        classes = labels.max() + 1
        call = partial(unicon.select_uniform, scores, labels, classes, share)
        released, intended = call(True), call(False)
        np.testing.assert_array_equal(released, arrays["selected_index"])
        assert len(released) == arrays["selected_total"]
        padding = len(released) - len(intended)
        single = np.bincount(labels) == 1
        if not single.any():
            expected = arrays["selected_index"][: len(intended)]
            np.testing.assert_array_equal(intended, expected)
            times = (released == 0).sum()
            assert times == arrays["duplicates_of_index0"]
            assert padding == times - (intended == 0).sum()
        unlabelled = np.setdiff1d(np.arange(len(labels)), released)
        np.testing.assert_array_equal(unlabelled, arrays["unlabeled_index"])
        weights = unicon.refinement_weights(scores)[released]
        near(weights, arrays["refine_weight"], atol=1e-6)
        kept = np.where(scores < 0.5, 0, scores)
        np.testing.assert_array_equal(kept, arrays["jsd_after_call"])
        exact = unicon.unlabelled_batch(64, share, False)
        assert exact == arrays["unlabeled_batch_size_for_64"]


@golden("unicon_supcon")
def test_contrast(case):
    for i in range(int(case["n_cases"])):
        c = case.group(f"case{i}_")
        labels = None if len(c["labels"]) == 1 else jnp.asarray(c["labels"])
        temperatures = float(c["temperature"]), float(c["base_temperature"])

        @jax.jit
        @jax.value_and_grad
        def loss(raw, c=c, labels=labels, temperatures=temperatures):
            rows = l2_normalise(raw) if c["normalized"] else raw
            return losses.view_contrast(rows, *temperatures, labels).mean()

        value, grad = loss(jnp.asarray(c["raw_features"]))
        near(value, c["loss"], rtol=1e-4, atol=0)
        near(grad, c["grad_raw"], atol=1e-4)


@golden("unicon_schedules")
def test_learning_rates(case):
    for name, arg in (("cifar_lr", "cifar10"), ("clothing_lr", "clothing1m")):
        made = method(f"unicon:{arg}", range(10))
        assert made.config.epochs == len(case[name])
        rates = [made.learning_rate(e) for e in range(len(case[name]))]
        near(rates, case[name], atol=1e-12)


@golden("unicon_schedules")
def test_webvision_s_passes(case):
    """Which network goes first is a matter of their names."""
    codes = ["warmup", "restart", "semi"]
    made = method("unicon:webvision", range(50))
    epochs, nets = case["webvision_epoch"], case["webvision_net"]
    assert made.config.epochs == epochs[-1] + 1
    names = np.array([made.phase(e).name for e in range(made.config.epochs)])
    rates = [made.learning_rate(e) for e in range(made.config.epochs)]
    for net in set(nets):
        rows = nets == net
        np.testing.assert_array_equal(epochs[rows], np.arange(len(names)))
        expected = np.take(codes, case["webvision_phase"][rows])
        np.testing.assert_array_equal(names, expected)
        near(rates, case["webvision_lr"][rows], atol=1e-12)


@golden("unicon_cifar100_asym")
def test_asymmetric_noise(case):
    labels, rate = case["labels"], float(case["r"])
    seed = int(case["numpy_randomstate_seed"])
    matrix = noise.transition("asym_block", rate, 100)
    near(matrix, case["transition"], atol=1e-12)
    drawn = noise.draw("asym_block", labels, 100, rate, seed)
    np.testing.assert_array_equal(drawn, case["noisy"])
    near((drawn != labels).mean(), case["fraction_changed"], rtol=1e-12, atol=0)


def variables(case, prefix):
    layers = LAYERS | {"embedding": "proj"}
    return perceptron.variables(case.group(prefix), layers)


@golden("unicon_ssl_step_cifar", "unicon_ssl_step_clothing")
def test_whole_steps(case):
    close = partial(near, atol=2e-5)
    squares = "step0_Lu" in case
    made = method(
        "unicon:digits",
        range(case["step0_labels_x"].shape[1]),
        {"batch_size": int(case["batch_size"])},
        unlabelled_loss=squares,
        warmup=int(case["warm_up"]),
        lambda_u=float(case["lambda_u"]),
        ramp=16.0,
        contrast_weight=float(case["lambda_c"]),
        sharpen_temperature=float(case["T"]),
    )
    # The CIFAR script counts weak views first, the Clothing1M script last.
    order = ("", "2", "3", "4") if squares else ("3", "4", "", "2")
    state = base.init_state(variables(case, "net_init_"), ())
    peer = variables(case, "net2_init_")
    update = updater(case, made.semi)
    steps = parts = len(case.prefixes("_loss"))
    if squares:  # from the ramp: lambda_u at step 1 over that at step 0
        later = float(case["step1_lamb"] / case["lambda_u"]) * 16
        fraction = later + float(case["warm_up"]) - float(case["epoch"])
        parts = round(1 / fraction)
    division = typed.division(
        num_labelled=(parts - 1.0) * int(case["batch_size"])
    )
    for j in range(steps):
        stored = case.group(f"step{j}_")
        arrays = {name: jnp.asarray(value) for name, value in stored.items()}
        x = typed.stream(
            (arrays[f"inputs_x{v}"] for v in order),
            stored["labels_x"].argmax(1),
            arrays["w_x"][:, 0],
        )
        u = typed.stream(arrays[f"inputs_u{v}"] for v in order)
        epoch = jnp.float32(case["epoch"])
        batch = typed.batch(epoch, jnp.float32(j), x=x, u=u)
        drawn = float(stored["beta_raw"])
        lam = max(drawn, 1 - drawn)
        near(lam, stored["lam"], rtol=1e-12, atol=0)
        draws = MixupDraws(jnp.float32(lam), arrays["idx"])
        net = base.Net(perceptron.apply, state.batch_stats, peer)
        temperature = float(case["T"])
        check_mixing(net, state.params, x, u, draws, stored, temperature, close)
        for name, view in zip(("f1", "f2"), u.views[2:], strict=True):
            rows = net(state.params, view, ("embedding",))["embedding"]
            close(l2_normalise(rows), stored[name])
        rate = float(case["lr"])
        state, terms = update(state, peer, batch, draws, division, rate)
        near(terms["loss_contrast"], stored["loss_simCLR"], atol=1e-4)
        names = {"loss_ce": "Lx", "loss_penalty": "penalty", "loss": "loss"}
        if squares:
            names |= {"loss_mse": "Lu", "lambda_u": "lamb"}
        for ours, theirs in names.items():
            close(terms[ours], stored[theirs])
    jax.tree.map(close, state.variables, variables(case, "net_final_"))
