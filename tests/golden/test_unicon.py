"""UNICON's selection, contrast, schedules and whole steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from configs import unicon as unicon_config
from jaxnlt import losses, step
from jaxnlt import method as base
from jaxnlt.data import noise
from jaxnlt.losses import mixmatch
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dividemix, unicon
from jaxnlt.models.layers import l2_normalise
from tests import typed
from tests.golden.cases import golden

CLOSE = dict(rtol=0, atol=1e-5)


def method(num_classes, arg="digits", **options):
    config = unicon_config.get_config(arg)
    with config.unlocked():
        config.update_from_flattened_dict(options)
    return unicon.Method(config, base.DataInfo(np.arange(3), num_classes))


@golden("unicon_jsd")
def test_disagreement(case):
    logits, labels = (case["logits_net1"], case["logits_net2"]), case["labels"]
    n = int(case["n_scored"])
    scores = unicon.disagreement(logits, labels, "e")
    np.testing.assert_allclose(scores[:n], case["jsd"], **CLOSE)
    paper = unicon.disagreement(logits, labels, "2")
    ln2 = float(case["ln2"])
    np.testing.assert_allclose(paper[:n] * ln2, case["jsd"], **CLOSE)
    # The release's d_u is never exceeded in nats, any below the mean is.
    for limit, name in ((0.7, "{}_mean"), (0.0, "{}_if_d_u_exceeded_tau5")):
        cut = unicon.cutoff(case["jsd"], limit, 5.0)
        expected = case[name.format("threshold")]
        np.testing.assert_allclose(cut, expected, **CLOSE)
    cut = unicon.cutoff(case["jsd"], 0.0, 5.0)
    assert np.mean(case["jsd"] < cut) == case["select_ratio_if_d_u_exceeded"]
    # The selector counts by the same cutoff.
    outputs = [{"logits": z[:n]} for z in logits]
    selector = method(logits[0].shape[1], "digits,as_released").selector()
    info = base.DataInfo(labels[:n], logits[0].shape[1])
    chosen, _ = selector.select(outputs, 0, info, (), 0, None)
    assert chosen.shared.share == case["select_ratio"]
    first = slice(int(case["quirk_n"]))
    np.testing.assert_allclose(
        scores[first], case["quirk_jsd_intended"], **CLOSE
    )


@golden("unicon_uniform_selection")
def test_uniform_selection(case):
    tags = [
        key.removesuffix("_labels")
        for key in case.keys()
        if key.endswith("_labels")
    ]
    assert tags
    for tag in tags:
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
            np.testing.assert_array_equal(
                intended, arrays["selected_index"][: len(intended)]
            )
            times = (released == 0).sum()
            assert times == arrays["duplicates_of_index0"]
            assert padding == times - (intended == 0).sum()
        unlabelled = np.setdiff1d(np.arange(len(labels)), released)
        np.testing.assert_array_equal(unlabelled, arrays["unlabeled_index"])
        weights = unicon.refinement_weights(scores)[released]
        expected = arrays["refine_weight"]
        np.testing.assert_allclose(weights, expected, rtol=0, atol=1e-6)
        np.testing.assert_array_equal(
            np.where(scores < 0.5, 0, scores), arrays["jsd_after_call"]
        )
        exact = unicon.unlabelled_batch(64, share, False)
        assert exact == arrays["unlabeled_batch_size_for_64"]


@golden("unicon_supcon")
def test_contrast(case):
    for i in range(int(case["n_cases"])):
        c = case.group(f"case{i}_")
        labels = None if len(c["labels"]) == 1 else jnp.asarray(c["labels"])

        def loss(raw, c=c, labels=labels):
            rows = l2_normalise(raw) if c["normalized"] else raw
            values = losses.view_contrast(
                rows,
                float(c["temperature"]),
                float(c["base_temperature"]),
                labels,
            )
            return jnp.mean(values)

        value, grad = jax.value_and_grad(loss)(jnp.asarray(c["raw_features"]))
        np.testing.assert_allclose(value, c["loss"], rtol=1e-4)
        np.testing.assert_allclose(grad, c["grad_raw"], rtol=0, atol=1e-4)


@golden("unicon_schedules")
def test_learning_rates(case):
    for name, arg in (("cifar_lr", "cifar10"), ("clothing_lr", "clothing1m")):
        ours = method(10, arg)
        assert ours.config.epochs == len(case[name])
        rates = [ours.learning_rate(e) for e in range(len(case[name]))]
        np.testing.assert_allclose(rates, case[name], rtol=0, atol=1e-12)


@golden("unicon_schedules")
def test_webvision_s_passes(case):
    """Which network goes first is a matter of their names."""
    codes, ours = ["warmup", "restart", "semi"], method(50, "webvision")
    epochs, nets = case["webvision_epoch"], case["webvision_net"]
    assert ours.config.epochs == epochs[-1] + 1
    names = np.array([ours.phase(e).name for e in range(ours.config.epochs)])
    rates = [ours.learning_rate(e) for e in range(ours.config.epochs)]
    for net in set(nets):
        rows = nets == net
        np.testing.assert_array_equal(epochs[rows], np.arange(len(names)))
        expected = np.take(codes, case["webvision_phase"][rows])
        np.testing.assert_array_equal(names, expected)
        np.testing.assert_allclose(
            rates, case["webvision_lr"][rows], rtol=0, atol=1e-12
        )


@golden("unicon_cifar100_asym")
def test_asymmetric_noise(case):
    matrix = noise.transition("asym_block", float(case["r"]), 100)
    np.testing.assert_allclose(matrix, case["transition"], atol=1e-12)
    drawn = noise.draw(
        "asym_block",
        case["labels"],
        100,
        float(case["r"]),
        int(case["numpy_randomstate_seed"]),
    )
    np.testing.assert_array_equal(drawn, case["noisy"])
    changed = (drawn != case["labels"]).mean()
    np.testing.assert_allclose(changed, case["fraction_changed"], rtol=1e-12)


LAYERS = {
    "fc1": "backbone",
    "bn": "bn",
    "fc2": "logits",
    "proj": "embedding",
}


def variables(case, prefix):
    """Stored weights [out, in] of the small network."""
    stored = case.group(prefix)
    params = {
        ours: {
            kind: jnp.asarray(stored[f"{theirs}_{kind}"])
            for kind in ("weight", "bias")
        }
        for theirs, ours in LAYERS.items()
    }
    stats = {
        kind: jnp.asarray(stored[f"bn_running_{kind}"])
        for kind in ("mean", "var")
    }
    return {"params": params, "batch_stats": stats}


def apply(variables, images, heads, train):
    """As `Network.apply`: Linear, BatchNorm, ReLU, two linear heads."""
    p, stats = variables["params"], variables["batch_stats"]

    def linear(name, x):
        return x @ p[name]["weight"].T + p[name]["bias"]

    hidden = linear("backbone", images)
    mean, var = stats["mean"], stats["var"]
    if train:
        mean, var, n = hidden.mean(0), hidden.var(0), len(hidden)
        stats = {
            "mean": 0.9 * stats["mean"] + 0.1 * mean,
            "var": 0.9 * stats["var"] + 0.1 * var * n / (n - 1),
        }
    hidden = (hidden - mean) / jnp.sqrt(var + 1e-5)
    hidden = jax.nn.relu(hidden * p["bn"]["weight"] + p["bn"]["bias"])
    return {head: linear(head, hidden) for head in heads}, stats


@golden("unicon_ssl_step_cifar", "unicon_ssl_step_clothing")
def test_whole_steps(case):
    close = dict(rtol=0, atol=2e-5)
    squares = "step0_Lu" in case
    ours = method(
        case["step0_labels_x"].shape[1],
        **{
            "batch_size": int(case["batch_size"]),
            "unicon.unlabelled_loss": squares,
            "unicon.warmup": int(case["warm_up"]),
            "unicon.lambda_u": float(case["lambda_u"]),
            "unicon.ramp": 16.0,
            "unicon.contrast_weight": float(case["lambda_c"]),
            "unicon.sharpen_temperature": float(case["T"]),
        },
    )
    # The CIFAR script counts weak views first, the Clothing1M script last.
    order = ("", "2", "3", "4") if squares else ("3", "4", "", "2")
    optimizer = {
        name: float(case[name]) for name in ("momentum", "weight_decay")
    }
    state = base.init_state(variables(case, "net_init_"), ())
    peer = variables(case, "net2_init_")
    update = jax.jit(partial(step.update, apply, ours.semi, **optimizer))
    steps = 0
    while f"step{steps + 1}_loss" in case:
        steps += 1
    parts = steps + 1
    if squares:  # from the ramp: lambda_u at step 1 over that at step 0
        later = float(case["step1_lamb"] / case["lambda_u"]) * 16
        fraction = later + float(case["warm_up"]) - float(case["epoch"])
        parts = round(1 / fraction)
    division = typed.division(
        num_labelled=(parts - 1.0) * int(case["batch_size"])
    )
    for j in range(steps + 1):
        it = f"step{j}_"

        def views(side, it=it):
            return tuple(
                jnp.asarray(case[f"{it}inputs_{side}{v}"]) for v in order
            )

        x = typed.stream(
            views("x"),
            case[it + "labels_x"].argmax(1),
            jnp.asarray(case[it + "w_x"][:, 0]),
        )
        u = typed.stream(views("u"))
        epoch = jnp.float32(case["epoch"])
        batch = typed.batch(epoch, jnp.float32(j), x=x, u=u)
        drawn = float(case[it + "beta_raw"])
        lam = max(drawn, 1 - drawn)
        np.testing.assert_allclose(lam, case[it + "lam"], rtol=1e-12)
        draws = MixupDraws(jnp.float32(lam), jnp.asarray(case[it + "idx"]))
        net = base.Net(apply, state.batch_stats, peer)
        targets = dividemix.two_view_targets(
            net, state.params, x, u, float(case["T"])
        )
        np.testing.assert_allclose(targets[0], case[it + "targets_x"], **close)
        np.testing.assert_allclose(targets[1], case[it + "targets_u"], **close)
        mixed = mixmatch.mixed_batch(x.views[2:], u.views[2:], targets, draws)
        for got, name in zip(mixed[:2], ("input", "target"), strict=True):
            expected = case[f"{it}mixed_{name}"]
            np.testing.assert_allclose(got[: len(expected)], expected, **close)
        for name, view in zip(("f1", "f2"), u.views[2:], strict=True):
            rows = net(state.params, view, ("embedding",))["embedding"]
            expected = case[it + name]
            np.testing.assert_allclose(l2_normalise(rows), expected, **close)
        expected = case[it + "logits"]
        rows = net(state.params, mixed.images[: len(expected)], ("logits",))
        np.testing.assert_allclose(rows["logits"], expected, **close)
        state, terms = update(
            state, peer, batch, draws, division, float(case["lr"])
        )
        np.testing.assert_allclose(
            terms["loss_contrast"], case[it + "loss_simCLR"], rtol=0, atol=1e-4
        )
        names = {"loss_ce": "Lx", "loss_penalty": "penalty", "loss": "loss"}
        if squares:
            names |= {"loss_mse": "Lu", "lambda_u": "lamb"}
        for ours_name, theirs in names.items():
            np.testing.assert_allclose(
                terms[ours_name], case[it + theirs], **close
            )
    final = variables(case, "net_final_")
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, **close),
        state.variables,
        final,
    )
