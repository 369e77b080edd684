"""SMR's losses, selection, noise, metrics and phases against the authors'."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.metrics import confusion_matrix

from jaxnlt import losses, selection
from jaxnlt.data import noise
from jaxnlt.losses import mixmatch
from jaxnlt.results import metrics
from jaxnlt.selection import mixtures
from tests.golden.cases import golden
from tests.golden.methods import method
from tests.golden.precision import near, precision
from tests.golden.scripted import spy

close = partial(near, rtol=1e-5, atol=1e-6)


@golden("smr_mixup_loss")
def test_mixup_loss(case, dtype):
    @jax.jit
    @jax.value_and_grad
    def loss(logits, y_a, y_b, lam):
        return losses.mixup_cross_entropy(logits, y_a, y_b, lam).mean()

    for prefix in case.prefixes("_grad_logits"):
        stored = case.group(f"{prefix}_")
        logits, labels = jnp.asarray(stored["logits"], dtype), stored["y_a"]
        value, grad = loss(logits, labels, stored["y_b"], float(stored["lam"]))
        close(value, stored["loss"])
        close(grad, stored["grad_logits"])


@golden("smr_mixup_loss")
def test_mixing_weight_is_folded(case, monkeypatch):
    """Of both phases that mix."""
    made = method("smr:cifar10", range(10))
    weights = zip(case["beta_raw"], case["lam_folded"], strict=True)
    with precision(np.float64):
        for raw, folded in weights:
            monkeypatch.setattr(jax.random, "beta", lambda *a, r=raw: r)
            for phase in (made.warmup, made.semi):
                draws = phase.draws(jax.random.key(0), {"x": 2, "u": 2})
                near(draws.coefficient, folded, atol=1e-12)


@golden("smr_neg_entropy")
def test_negative_entropy(case, dtype):
    found = jax.value_and_grad(lambda z: losses.negative_entropy(z).mean())
    for prefix in case.prefixes("_value_stable_f64"):
        (logits,) = case.jnp(f"{prefix}_logits", dtype=dtype)
        value, grad = jax.jit(found)(logits)
        close(value, case[f"{prefix}_value_stable_f64"])
        assert np.isfinite(grad).all()
        expected = case[f"{prefix}_grad_torch_f32"]
        finite = np.isfinite(expected)
        close(grad[finite], expected[finite])


@golden("smr_ssl_losses")
def test_ssl_losses(case, dtype):
    close = partial(near, rtol=2e-5, atol=1e-6)
    warmup, weight = int(case["warm_up"]), float(case["lambda_u"])
    length = method("smr:cifar10", range(10)).options.ramp
    inputs = ("logits_x", "logits_u", "targets_x", "targets_u")
    x, u, t_x, t_u = case.jnp(*inputs, dtype=dtype)
    time, times = case.jnp("epoch_fraction", "ramp_epoch", dtype=dtype)
    lamb = weight * mixmatch.ramp(time, warmup, length)
    close(lamb, case["lamb"])

    def total(x, u):
        z, t = jnp.concatenate([x, u]), jnp.concatenate([t_x, t_u])
        ce, mse = mixmatch.terms(z, t, len(x))
        penalty = losses.prior_penalty(z)
        return ce + lamb * mse + penalty, (ce, mse, penalty)

    found = jax.value_and_grad(total, (0, 1), has_aux=True)
    (value, terms), grads = jax.jit(found)(x, u)
    close(value, case["loss"])
    for term, name in zip(terms, ("Lx", "Lu", "penalty"), strict=True):
        close(term, case[name])
    close(grads[0], case["grad_logits_x"])
    close(grads[1], case["grad_logits_u"])
    for start, expected in case.group("ramp_value_warmup").items():
        ramp = weight * mixmatch.ramp(times, int(start), length)
        close(ramp, expected)
    for kind in ("uniform", "collapsed"):
        (logits,) = case.jnp(f"penalty_{kind}_logits", dtype=dtype)
        close(losses.prior_penalty(logits), case[f"penalty_{kind}"])


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
    for tag in case.prefixes("_gmm_input"):
        stored = case.group(f"{tag}_")
        labels = stored["labels"]
        classes, rate = int(labels.max()) + 1, float(stored.get("r", 0.5))
        text = f"smr:cifar10,noise=sym_count,rate={rate}"
        made = method(text, labels)
        selector = made.semi.selector
        epochs = stored.get("ce_losses_all_epochs")
        if epochs is None:
            epochs = stored["ce_losses"][None]
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
        near(gmm_input, stored["gmm_input"], atol=1e-6)
        normalised = stored.get("normalized_losses_all_epochs")
        if normalised is not None and len(memory.losses):
            kept = normalised[-len(memory.losses) :]
            near(memory.losses, kept, atol=1e-6)
        for name in ("prob", "prob_when_fitted_in_float64"):
            if name in stored:
                near(chosen.clean_probability, stored[name], atol=1e-4)
        trusted = np.isin(np.arange(len(labels)), chosen.labelled)
        expected = stored.get("pred", stored["prob"] > 0.5)
        np.testing.assert_array_equal(trusted, expected)
        mixture = made_mixtures[-1][1]
        order = mixture.means_[:, 0].argsort()
        for got, name in (
            (mixture.means_[:, 0], "means"),
            (mixture.covariances_[:, 0, 0], "vars"),
            (mixture.weights_, "weights"),
        ):
            near(got[order], stored[f"gmm_{name}_sorted"], atol=1e-4)
        if "logits" in stored:
            values = selection.cross_entropy(stored["logits"], labels)
            near(values, epochs[-1])


@golden("smr_label_noise")
def test_label_noise(case):
    for tag in case.prefixes("_noisy"):
        stored = case.group(f"{tag}_")
        clean, expected = stored["clean"], stored["transition_counts"]
        classes, kind = len(expected), str(stored["mode"])
        kind = "sym_count" if kind == "sym" else kind
        rate, seed = float(stored["r"]), int(stored["python_random_seed"])
        drawn = noise.draw(kind, clean.astype(int), classes, rate, seed)
        np.testing.assert_array_equal(drawn, stored["noisy"])
        counts = confusion_matrix(clean, drawn, labels=range(classes))
        np.testing.assert_array_equal(counts, expected)
        near((drawn != clean).mean(), stored["fraction_changed"], atol=1e-12)


@golden("smr_test_metrics")
def test_test_metrics(case):
    outputs = [{"logits": case[f"logits_net{n}"]} for n in (1, 2)]
    labels, classes = case["labels"], case["logits_net1"].shape[1]
    scores = method("smr:cifar10", range(classes)).predict(outputs, None)
    predicted = scores.argmax(1)
    np.testing.assert_array_equal(predicted, case["ensemble_pred"])
    counts = np.ones(classes, int)
    got = metrics.test_metrics(scores, labels, counts)
    near(100 * got["test_accuracy"], case["accuracy_pct"], atol=1e-9)
    matrix = confusion_matrix(labels, predicted, labels=range(classes))
    np.testing.assert_array_equal(matrix, case["confusion"])
    for name, value in metrics.macro_scores(predicted, labels).items():
        near(100 * value, case[f"{name}_pct"], atol=1e-9)


@golden("smr_schedules")
def test_schedules(case):
    codes = ["warmup", "recalibration", "semi"]
    assert len(case["phase_codes"]) == len(codes)
    for name in case.prefixes("_phase"):
        if not name.startswith("smr_"):
            continue
        phases, rates = case[f"{name}_phase"], case[f"{name}_lr"]
        for arg in ("", ",as_released"):
            made = method(name.replace("_", ":", 1) + arg, range(10))
            assert made.config.epochs == len(phases)
            got = [codes.index(made.phase(e).name) for e in range(len(phases))]
            np.testing.assert_array_equal(got, phases)
            got = [made.learning_rate(e) for e in range(len(rates))]
            if name == "smr_animal10n" and not arg:  # B1: what was meant
                assert set(got[80:140]) == {0.001}
                got[80:140] = [0.01] * 60
            near(got, rates, rtol=1e-12, atol=0)
        if f"{name}_order_net" in case:
            # As trainer.Trainer.train goes over the networks.
            assert {p.order for p in made.phases()} == {"in_turn"}
            nets = np.tile(np.arange(made.num_nets), len(phases)) + 1
            epochs = np.repeat(np.arange(len(phases)), made.num_nets)
            np.testing.assert_array_equal(case[f"{name}_order_net"], nets)
            np.testing.assert_array_equal(case[f"{name}_order_epoch"], epochs)
