"""The authors' accuracies from stored scores (in percent there)."""

import numpy as np

from jaxnlt.results import metrics
from tests.golden.cases import golden
from tests.golden.methods import method
from tests.golden.precision import near

# Average in the file -> the networks and heads in it.
VOTES = {
    "acc_avg_all_four": ("12", ("conventional", "balanced")),
    "acc_conventional_both_nets": ("12", ("conventional",)),
    "acc_balanced_both_nets": ("12", ("balanced",)),
    "acc_net1_both_heads": ("1", ("conventional", "balanced")),
    "acc_net2_both_heads": ("2", ("conventional", "balanced")),
}


def percent(values):
    return 100 * np.array([np.nan if v is None else v for v in values])


@golden("dasc_evaluation")
def test_accuracies(case):
    labels, got = case["labels"], {}
    for name, (nets, heads) in VOTES.items():
        stored = [case[f"logits_net{n}_{head}"] for n in nets for head in heads]
        counts = np.ones(stored[0].shape[1], int)
        found = metrics.test_metrics(sum(stored), labels, counts, "paper")
        accuracy = 100 * found["test_accuracy"]
        near(accuracy, case[name], rtol=1e-12, atol=0)
        got[name] = found
    four = got["acc_avg_all_four"]
    voting = method("dasc:", labels, num_classes=len(counts))
    heads = {"logits": "conventional", "balanced": "balanced"}
    outputs = [
        {head: case[f"logits_net{n}_{name}"] for head, name in heads.items()}
        for n in (1, 2)
    ]
    scores = voting.predict(outputs, {})
    assert metrics.test_metrics(scores, labels, counts, "paper") == four
    per_class = percent(four["accuracy_per_class"])
    near(per_class, case["acc_per_class"], rtol=1e-12, atol=0)
    if "acc_all_many_medium_few" in case:
        groups = percent([four[f"accuracy_{g}"] for g in metrics.GROUPS])
        expected = case["acc_all_many_medium_few"]
        near([np.mean(per_class), *groups], expected, rtol=1e-12, atol=0)
