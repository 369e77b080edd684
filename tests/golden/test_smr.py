"""SMR's losses, steps, selection, noise and phases against the authors'."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import confusion_matrix

from configs import smr as smr_config
from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.data import noise
from jaxnlt.losses import mixmatch
from jaxnlt.methods import smr
from jaxnlt.results import metrics
from jaxnlt.selection import mixtures
from tests.golden.cases import golden
from tests.golden.precision import PRECISIONS, precision
from tests.golden.scripted import spy

near = partial(np.testing.assert_allclose, rtol=0, atol=1e-5)


def method(num_classes=10, arg="cifar10", labels=None, fields=None, **options):
    """SMR with the given options; the labels do not matter to a step."""
    config = smr_config.get_config(arg)
    with config.unlocked():
        config.update_from_flattened_dict(fields or {})
        config.smr.update(options)
    if labels is None:
        labels = np.arange(num_classes)
    return smr.Method(config, base.DataInfo(labels, num_classes))


# Losses ----------------------------------------------------------------------


def numbered(case):
    """Prefixes case0_, case1_ ... of a file."""
    found = [f"case{i}_" for i in range(int(case["n_cases"]))]
    assert found
    return found


@PRECISIONS
@golden("smr_mixup_loss")
def test_mixup_loss(case, dtype):
    for prefix in numbered(case):
        with precision(dtype):
            value, grad = jax.value_and_grad(
                lambda z, c=prefix: losses.mixup_cross_entropy(
                    z,
                    jnp.asarray(case[f"{c}y_a"]),
                    jnp.asarray(case[f"{c}y_b"]),
                    float(case[f"{c}lam"]),
                ).mean()
            )(jnp.asarray(case[f"{prefix}logits"], dtype))
        tolerance = {"rtol": 1e-5, "atol": 1e-6}
        near(value, case[f"{prefix}loss"], **tolerance)
        near(grad, case[f"{prefix}grad_logits"], **tolerance)


@golden("smr_mixup_loss")
def test_mixing_weight_is_folded(case, monkeypatch):
    """Of both phases that mix."""
    made = method()
    with precision(np.float64):
        for raw, folded in zip(
            case["beta_raw"], case["lam_folded"], strict=True
        ):
            monkeypatch.setattr(jax.random, "beta", lambda *a, r=raw: r)
            for phase in (made.warmup, made.semi):
                draws = phase.draws(jax.random.key(0), {"x": 2, "u": 2})
                near(draws.coefficient, folded, atol=1e-12)


@PRECISIONS
@golden("smr_neg_entropy")
def test_negative_entropy(case, dtype):
    tolerance = {"rtol": 1e-5, "atol": 1e-6}
    for prefix in numbered(case):
        with precision(dtype):
            value, grad = jax.value_and_grad(
                lambda z: losses.negative_entropy(z).mean()
            )(jnp.asarray(case[f"{prefix}logits"], dtype))
        near(value, case[f"{prefix}value_stable_f64"], **tolerance)
        expected = case[f"{prefix}grad_torch_f32"]
        assert np.isfinite(grad).all()
        finite = np.isfinite(expected)
        near(grad[finite], expected[finite], **tolerance)


@PRECISIONS
@golden("smr_ssl_losses")
def test_ssl_losses(case, dtype):
    tolerance = {"rtol": 2e-5, "atol": 1e-6}
    warmup, weight = int(case["warm_up"]), float(case["lambda_u"])
    length = method().options.ramp
    with precision(dtype):
        x, u, t_x, t_u = (
            jnp.asarray(case[name], dtype)
            for name in ("logits_x", "logits_u", "targets_x", "targets_u")
        )
        time = jnp.asarray(case["epoch_fraction"], dtype)
        lamb = weight * mixmatch.ramp(time, warmup, length)
        near(lamb, case["lamb"], **tolerance)

        def total(x, u):
            z, t = jnp.concatenate([x, u]), jnp.concatenate([t_x, t_u])
            ce, mse = mixmatch.terms(z, t, len(x))
            penalty = losses.prior_penalty(z)
            return ce + lamb * mse + penalty, (ce, mse, penalty)

        (value, terms), grads = jax.value_and_grad(total, (0, 1), has_aux=True)(
            x, u
        )
        near(value, case["loss"], **tolerance)
        for term, name in zip(terms, ("Lx", "Lu", "penalty"), strict=True):
            near(term, case[name], **tolerance)
        near(grads[0], case["grad_logits_x"], **tolerance)
        near(grads[1], case["grad_logits_u"], **tolerance)
        prefix = "ramp_value_warmup"
        for key in (k for k in case.keys() if k.startswith(prefix)):
            times = jnp.asarray(case["ramp_epoch"], dtype)
            start = int(key.removeprefix(prefix))
            ramp = weight * mixmatch.ramp(times, start, length)
            near(ramp, case[key], **tolerance)
        for kind in ("uniform", "collapsed"):
            logits = jnp.asarray(case[f"penalty_{kind}_logits"], dtype)
            expected = case[f"penalty_{kind}"]
            near(losses.prior_penalty(logits), expected, **tolerance)


# Selection -------------------------------------------------------------------


def logits_of(values, labels, num_classes):
    """Logits whose cross-entropy with the labels has the given values."""
    values = values.astype(np.float64)
    with np.errstate(divide="ignore"):
        others = np.log(-np.expm1(-values) / (num_classes - 1))
    logits = np.repeat(others[:, None], num_classes, axis=1)
    logits[np.arange(len(labels)), labels] = -values
    return logits


@golden("smr_gmm_split")
def test_selection(case, monkeypatch):
    suffix = "_gmm_input"
    tags = [k.removesuffix(suffix) for k in case.keys() if k.endswith(suffix)]
    assert tags
    for tag in tags:
        labels = case[f"{tag}_labels"]
        classes = int(labels.max()) + 1
        rate = float(case[f"{tag}_r"]) if f"{tag}_r" in case else 0.5
        made = method(classes, f"cifar10,noise=sym_count,rate={rate}", labels)
        selector = made.semi.selector
        several = f"{tag}_ce_losses_all_epochs"
        epochs = case[several] if several in case else None
        if epochs is None:
            epochs = case[f"{tag}_ce_losses"][None]
        memory = selector.init_memory()
        with monkeypatch.context() as patch:
            fitted = spy(patch, selection, "gmm_probability")
            made_mixtures = spy(patch, mixtures, "GaussianMixture")
            for epoch, values in enumerate(epochs):
                outputs = [{"logits": logits_of(values, labels, classes)}]
                rng = np.random.default_rng(epoch)
                chosen, memory = selector.select(
                    outputs, 0, made.data, memory, epoch, rng
                )
        (gmm_input, *_), _ = fitted[-1]
        near(gmm_input, case[f"{tag}_gmm_input"], atol=1e-6)
        name = f"{tag}_normalized_losses_all_epochs"
        if name in case and len(memory.losses):
            kept = case[name][-len(memory.losses) :]
            near(memory.losses, kept, atol=1e-6)
        clean = chosen.clean_probability
        near(clean, case[f"{tag}_prob"], atol=1e-4)
        exact = f"{tag}_prob_when_fitted_in_float64"
        if exact in case:
            near(clean, case[exact], atol=1e-4)
        trusted = np.isin(np.arange(len(labels)), chosen.labelled)
        pred = case[f"{tag}_prob"] > 0.5
        if f"{tag}_pred" in case:
            pred = case[f"{tag}_pred"]
        np.testing.assert_array_equal(trusted, pred)
        mixture = made_mixtures[-1][1]
        order = mixture.means_[:, 0].argsort()
        for got, name in (
            (mixture.means_[:, 0], "means"),
            (mixture.covariances_[:, 0, 0], "vars"),
            (mixture.weights_, "weights"),
        ):
            near(got[order], case[f"{tag}_gmm_{name}_sorted"], atol=1e-4)
        if f"{tag}_logits" in case:
            values = selection.cross_entropy(case[f"{tag}_logits"], labels)
            near(values, epochs[-1], atol=1e-5)


# Noise, metrics, phases ------------------------------------------------------


@golden("smr_label_noise")
def test_label_noise(case):
    tags = [
        k.removesuffix("_noisy") for k in case.keys() if k.endswith("_noisy")
    ]
    assert tags
    for tag in tags:
        clean = case[f"{tag}_clean"].astype(np.int64)
        classes = len(case[f"{tag}_transition_counts"])
        kind = {"sym": "sym_count"}.get(
            str(case[f"{tag}_mode"]), str(case[f"{tag}_mode"])
        )
        seed = int(case[f"{tag}_python_random_seed"])
        drawn = noise.draw(kind, clean, classes, float(case[f"{tag}_r"]), seed)
        np.testing.assert_array_equal(drawn, case[f"{tag}_noisy"])
        counts = confusion_matrix(clean, drawn, labels=range(classes))
        expected = case[f"{tag}_transition_counts"]
        np.testing.assert_array_equal(counts, expected)
        changed = case[f"{tag}_fraction_changed"]
        near((drawn != clean).mean(), changed, atol=1e-12)


@golden("smr_test_metrics")
def test_test_metrics(case):
    outputs = [{"logits": case[f"logits_net{n}"]} for n in (1, 2)]
    labels, classes = case["labels"], case["logits_net1"].shape[1]
    scores = method(classes).predict(outputs, None)
    predicted = scores.argmax(1)
    np.testing.assert_array_equal(predicted, case["ensemble_pred"])
    counts = np.ones(classes, int)
    got = metrics.test_metrics(scores, labels, counts)
    tight = {"rtol": 0, "atol": 1e-9}
    near(100 * got["test_accuracy"], case["accuracy_pct"], **tight)
    matrix = confusion_matrix(labels, predicted, labels=range(classes))
    np.testing.assert_array_equal(matrix, case["confusion"])
    for name, value in metrics.macro_scores(predicted, labels).items():
        near(100 * value, case[f"{name}_pct"], **tight)


@golden("smr_schedules")
def test_schedules(case):
    names = [
        k.removeprefix("smr_").removesuffix("_phase")
        for k in case.keys()
        if k.startswith("smr_") and k.endswith("_phase")
    ]
    assert names
    codes = ["warmup", "recalibration", "semi"]
    assert len(case["phase_codes"]) == len(codes)
    for name in names:
        for arg in ("", ",as_released"):
            made = method(arg=name + arg)
            phases, rates = case[f"smr_{name}_phase"], case[f"smr_{name}_lr"]
            assert made.config.epochs == len(phases)
            got = [codes.index(made.phase(e).name) for e in range(len(phases))]
            np.testing.assert_array_equal(got, phases)
            got = [made.learning_rate(e) for e in range(len(rates))]
            if name == "animal10n" and not arg:  # B1: what was meant
                assert set(got[80:140]) == {0.001}
                got[80:140] = [0.01] * 60
            near(got, rates, rtol=1e-12, atol=0)
        if f"smr_{name}_order_net" in case:
            # As trainer.Trainer.train goes over the networks.
            assert {p.order for p in made.phases()} == {"in_turn"}
            nets = np.tile(np.arange(made.num_nets), len(phases)) + 1
            epochs = np.repeat(np.arange(len(phases)), made.num_nets)
            order = case[f"smr_{name}_order_net"]
            np.testing.assert_array_equal(order, nets)
            order = case[f"smr_{name}_order_epoch"]
            np.testing.assert_array_equal(order, epochs)
