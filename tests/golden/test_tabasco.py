"""TABASCO's divergences, scores and selection against the authors'."""

from functools import partial
from types import SimpleNamespace

import numpy as np

from jaxnlt import selection
from jaxnlt.methods import tabasco
from tests.golden.cases import golden
from tests.golden.methods import method

GMM = 1e-3
equal = partial(np.testing.assert_allclose, rtol=1e-6, atol=1e-9)


@golden("dasc_jsd")
def test_divergences(case):
    p, q = case["p"], case["q"]
    one_hot = np.eye(p.shape[1])[case["labels"]]
    equal(selection.kl(p, q), case["kl_pq_f64"])
    equal(selection.jsd(p, q), case["jsd_pq_f64"])
    equal(selection.jsd(p, one_hot), case["jsd_onehot_f64"])


def selecting(case):
    """The selector as a TABASCO run has it, labels, and network outputs."""
    made = method(
        "tabasco:cifar10,as_released",
        case["noisy_labels"],
        num_classes=int(case["num_classes"]),
        mean_batch=int(case["batch_size"]),
    )
    features = case["features"].astype(np.float64)
    weights = case["classifier_w"].astype(np.float64)
    logits = features @ weights.T + case["classifier_b"]
    outputs = {"features": features, "logits": logits}
    return made.semi.selector, made.data, outputs


@golden("dasc_tabasco", "dasc_tabasco_scores")
def test_scores(case):
    selector, info, outputs = selecting(case)
    scores = selector.scores(outputs, info.labels, None)
    for value, name in (
        (scores.average, "avg_pred"),
        (scores.weighted, "avg_pred_weighted"),
        (scores.centroids, "centroids"),
        (scores.wjsd, "wjsd"),
        (scores.acd, "acd"),
    ):
        equal(value, case[f"{name}_f64"])
    np.testing.assert_array_equal(scores.confident, case["num_high_confidence"])
    mean = case["feature_mean_f64"]
    given = tabasco.tabasco_scores(
        outputs["features"],
        selection.softmax(outputs["logits"]),
        info.labels,
        int(case["batch_size"]),
        mean,
    )
    equal(given.acd, scores.acd)
    if "centroid_similarity_softmax_f64" in case:
        equal(scores.similarity, case["centroid_similarity_softmax_f64"])


@golden("dasc_tabasco")
def test_selection(case):
    selector, info, outputs = selecting(case)
    scores = selector.scores(outputs, info.labels, None)
    one_hot = np.eye(info.num_classes)[info.labels]
    probs = selection.softmax(outputs["logits"])
    equal(selection.jsd(probs, one_hot), case["jsd_f64"])
    for c in range(info.num_classes):
        members = np.flatnonzero(info.labels == c)
        for values, name in ((scores.wjsd, "wjsd"), (scores.acd, "acd")):
            scaled = selection.min_max(values[members])
            equal(scaled, case[f"{name}_minmax_f64"][members])
    for seed in range(8):  # the cases' seeds
        # The release's mixtures draw from the global generator in turn.
        random = np.random.RandomState(seed)
        for c in range(info.num_classes):
            members = np.flatnonzero(info.labels == c)
            divided = tabasco.divide_class(
                scores.wjsd[members],
                scores.acd[members],
                tabasco.confusable(scores.similarity, scores.confident, c),
                random,
                selector.options,
            )
            assert divided.used_wjsd == case["used_wjsd_dimension"][c]
            assert divided.cluster == case["chosen_cluster"][c]
            expected = case["used_posterior_small_mean_f64"][members]
            equal(divided.posterior, expected, atol=GMM)
        rng = SimpleNamespace(integers=lambda n, seed=seed: seed)
        chosen, _ = selector.select([outputs], 0, info, (), 10, rng)
        index = case["selected_index_sorted"]
        np.testing.assert_array_equal(chosen.labelled, index)
        expected = case["selected_prob_sorted_by_index_f64"]
        equal(chosen.weights[index], expected, atol=GMM)
