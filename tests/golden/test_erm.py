"""The long-tail losses of plain training against RoLT's code."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import erm as erm_config
from jaxnlt import losses
from jaxnlt import method as base
from jaxnlt.methods import erm
from jaxnlt.results import metrics
from tests import typed
from tests.golden.cases import golden


def method(case, arg="", **options):
    counts = case["class_counts"]
    labels = np.repeat(np.arange(len(counts)), counts)
    config = erm_config.get_config(f"digits,loss=ldam_drw{arg}")
    with config.unlocked():
        config.erm.update(options)
    return erm.Method(config, base.DataInfo(labels, len(counts)))


@golden("rolt_ldam_drw")
def test_ldam_and_drw(case, monkeypatch):
    """Both phases' losses, the stored cosines in place of the network's."""
    labels = jnp.asarray(case["labels"])
    ours = method(
        case,
        ldam_margin=float(case["max_m"]),
        ldam_scale=float(case["s"]),
    )
    margins = losses.ldam_margins(case["class_counts"], float(case["max_m"]))
    np.testing.assert_allclose(margins, case["margins"], rtol=1e-5)
    monkeypatch.setattr(losses, "cosines", lambda features, kernel: features)

    def apply(variables, images, heads, train):
        assert heads == ("features",)
        return {"features": variables["params"]["features"]}, {}

    batch = typed.batch(x=typed.stream((None,), labels))
    params = {
        "features": jnp.asarray(case["cosine_logits"]),
        "logits": {"kernel": jnp.zeros((1, 1))},
    }
    for phase, name in ((ours.train, "plain"), (ours.second, "drw")):
        value, grad = jax.value_and_grad(
            lambda p, phase=phase: (
                phase.loss(
                    base.Net(apply, {}, None),
                    p,
                    batch,
                    (),
                    typed.division(),
                    (),
                ).loss
            )
        )(params)
        np.testing.assert_allclose(value, case[f"{name}_loss"], rtol=1e-5)
        np.testing.assert_allclose(
            grad["features"], case[f"{name}_grad"], rtol=1e-5, atol=1e-5
        )


@golden("rolt_ldam_drw")
def test_class_weights(case):
    counts = case["class_counts"]
    for name, beta in (("weights_beta_0", 0), ("weights_beta_0p99", 0.99)):
        weights = losses.effective_weights(counts, beta)
        np.testing.assert_allclose(weights, case[name], rtol=1e-12)
    drw = case["drw_weights_beta_0p9999"]
    np.testing.assert_allclose(method(case).class_weights, drw, rtol=1e-12)

    def ce(variables, images, heads, train):
        return {"logits": images}, {}

    ours = method(case, loss="ce")
    images = 5 * jnp.asarray(case["cosine_logits"])
    x = typed.stream((images,), jnp.asarray(case["labels"]))
    net, division = base.Net(ce, {}, None), typed.division()
    total = ours.second.loss(net, {}, typed.batch(x=x), (), division, ()).loss
    expected = case["weighted_ce_of_5x_logits"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)


@golden("rolt_ldam_drw")
def test_cosine_classifier(case):
    cosines = losses.cosines(
        jnp.asarray(case["normed_linear_input"]),
        jnp.asarray(case["normed_linear_weight_in_by_out"]),
    )
    expected = case["normed_linear_output"]
    np.testing.assert_allclose(cosines, expected, rtol=1e-5, atol=1e-5)


@golden("rolt_ldam_drw")
def test_tau_normalisation(case):
    kernel = jnp.asarray(case["tau_weight"].T)
    for name, expected in case.group("tau_norm_").items():
        scaled = losses.tau_normalised(kernel, float(name))
        np.testing.assert_allclose(scaled.T, expected, rtol=1e-5, atol=1e-5)


@golden("rolt_ldam_drw")
def test_accuracies(case):
    labels, preds = case["shot_test_labels"], case["shot_preds"]
    # Classes that nobody has seen fill up to a number that is not ten, whose
    # groups would be those of DaSC's table.
    per_class = case["shot_per_class"]
    classes = len(per_class) + 11
    counts = np.bincount(case["shot_train_labels"], minlength=classes)
    got = metrics.test_metrics(np.eye(classes)[preds], labels, counts, "paper")
    actual = got["accuracy_per_class"][: len(per_class)]
    np.testing.assert_allclose(actual, per_class, rtol=1e-12)
    np.testing.assert_allclose(actual, case["shot_recall"], rtol=1e-12)
    # The release adds 1e-6 to the number of predictions.
    precision = metrics.macro_scores(preds, labels)["macro_precision"]
    expected = case["shot_precision"].mean()
    np.testing.assert_allclose(precision, expected, rtol=1e-6)
    micro = case["micro_acc"]
    np.testing.assert_allclose(got["test_accuracy"], micro, rtol=1e-12)
    groups = [got[f"accuracy_{name}"] or 0 for name in metrics.GROUPS]
    expected = case["shot_many_median_low"]
    np.testing.assert_allclose(groups, expected, rtol=1e-12)
