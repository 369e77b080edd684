"""The long-tail losses of plain training against RoLT's code."""

from functools import partial

import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from jaxnlt.results import metrics
from tests import typed
from tests.golden import methods
from tests.golden.cases import golden
from tests.golden.precision import near
from tests.golden.scripted import loss_and_grads

close = partial(near, rtol=1e-5)
exact = partial(near, rtol=1e-12, atol=0)


def method(case, **options):
    labels = methods.labels_of(case["class_counts"])
    return methods.method("erm:digits,loss=ldam_drw", labels, **options)


@golden("rolt_ldam_drw")
def test_ldam_and_drw(case, monkeypatch):
    """Both phases' losses, the stored cosines in place of the network's."""
    margin, scale = float(case["max_m"]), float(case["s"])
    made = method(case, ldam_margin=margin, ldam_scale=scale)
    margins = losses.ldam_margins(case["class_counts"], margin)
    near(margins, case["margins"], rtol=1e-5, atol=0)
    monkeypatch.setattr(losses, "cosines", lambda features, kernel: features)
    x = typed.stream((None,), jnp.asarray(case["labels"]))
    params = {
        "features": jnp.asarray(case["cosine_logits"]),
        "logits": {"kernel": jnp.zeros((1, 1))},
    }
    for phase, name in ((made.train, "plain"), (made.second, "drw")):
        (value, _), grads = loss_and_grads(phase.loss, params, x)
        near(value, case[f"{name}_loss"], rtol=1e-5, atol=0)
        close(grads["features"], case[f"{name}_grad"])


@golden("rolt_ldam_drw")
def test_class_weights(case):
    counts = case["class_counts"]
    for name, beta in (("weights_beta_0", 0), ("weights_beta_0p99", 0.99)):
        exact(losses.effective_weights(counts, beta), case[name])
    exact(method(case).class_weights, case["drw_weights_beta_0p9999"])
    x = typed.stream((None,), jnp.asarray(case["labels"]))
    params = {"logits": 5 * jnp.asarray(case["cosine_logits"])}
    loss = method(case, loss="ce").second.loss
    (value, _), _ = loss_and_grads(loss, params, x)
    near(value, case["weighted_ce_of_5x_logits"], rtol=1e-5, atol=0)


@golden("rolt_ldam_drw")
def test_cosine_classifier(case):
    names = ("normed_linear_input", "normed_linear_weight_in_by_out")
    close(losses.cosines(*case.jnp(*names)), case["normed_linear_output"])


@golden("rolt_ldam_drw")
def test_tau_normalisation(case):
    kernel = jnp.asarray(case["tau_weight"].T)
    for name, expected in case.group("tau_norm_").items():
        close(losses.tau_normalised(kernel, float(name)).T, expected)


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
    exact(actual, per_class)
    exact(actual, case["shot_recall"])
    # The release adds 1e-6 to the number of predictions.
    precision = metrics.macro_scores(preds, labels)["macro_precision"]
    near(precision, case["shot_precision"].mean(), rtol=1e-6, atol=0)
    exact(got["test_accuracy"], case["micro_acc"])
    groups = [got[f"accuracy_{name}"] or 0 for name in metrics.GROUPS]
    exact(groups, case["shot_many_median_low"])
