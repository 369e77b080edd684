"""The authors' accuracies from stored scores (in percent there)."""

import numpy as np

from jaxnlt.results import metrics
from tests.golden import tiny
from tests.golden.cases import golden

VOTES = {
    "acc_avg_all_four": [
        "net1_conventional",
        "net1_balanced",
        "net2_conventional",
        "net2_balanced",
    ],
    "acc_conventional_both_nets": ["net1_conventional", "net2_conventional"],
    "acc_balanced_both_nets": ["net1_balanced", "net2_balanced"],
    "acc_net1_both_heads": ["net1_conventional", "net1_balanced"],
    "acc_net2_both_heads": ["net2_conventional", "net2_balanced"],
}


def percent(values):
    return 100 * np.array([np.nan if v is None else v for v in values])


@golden("dasc_evaluation")
def test_accuracies(case):
    labels = case["labels"]
    got = {}
    for name, heads in VOTES.items():
        scores = sum(case[f"logits_{head}"] for head in heads)
        counts = np.ones(scores.shape[1], int)
        got[name] = metrics.test_metrics(scores, labels, counts, "paper")
        expected = case[name]
        actual = percent([got[name]["test_accuracy"]])[0]
        np.testing.assert_allclose(actual, expected, rtol=1e-12)
    four = got["acc_avg_all_four"]
    voting = tiny.method(labels, scores.shape[1], 1)
    heads = {"logits": "conventional", "balanced": "balanced"}
    outputs = [
        {head: case[f"logits_net{n}_{name}"] for head, name in heads.items()}
        for n in (1, 2)
    ]
    scores = voting.predict(outputs, {})
    assert metrics.test_metrics(scores, labels, counts, "paper") == four
    per_class = percent(four["accuracy_per_class"])
    np.testing.assert_allclose(per_class, case["acc_per_class"], rtol=1e-12)
    if "acc_all_many_medium_few" in case:
        groups = percent([four[f"accuracy_{g}"] for g in metrics.GROUPS])
        expected = case["acc_all_many_medium_few"]
        mean = np.mean(per_class)
        np.testing.assert_allclose([mean, *groups], expected, rtol=1e-12)
