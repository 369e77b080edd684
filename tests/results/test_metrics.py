import warnings

import numpy as np
import pytest

from jaxnlt.results import metrics
from jaxnlt.runtime.errors import UserError


def groups(counts, kind="auto"):
    found = metrics.accuracy_groups(np.array(counts), kind)
    return found and {name: ids.tolist() for name, ids in found.items()}


def test_groups_by_size_where_all_three_are_filled():
    assert groups([19, 101, 20, 100, 300]) == {
        "many": [1, 4],
        "medium": [2, 3],
        "few": [0],
    }


def test_groups_by_thirds_otherwise():
    assert groups([134, 20, 80, 60, 50, 40, 30, 30, 25, 21]) == {
        "many": [0, 2, 3],
        "medium": [4, 5, 6, 7],
        "few": [1, 8, 9],
    }
    assert groups([5, 9]) == {"many": [1], "medium": [], "few": [0]}


def test_groups_absent_where_balanced():
    assert groups([50] * 10) is None


def test_groups_of_the_papers():
    ten = {"many": [0, 1], "medium": [2, 3, 4, 5, 6], "few": [7, 8, 9]}
    assert groups(range(10), "paper") == ten
    assert groups([50] * 10, "paper") == ten
    assert groups([101, 50], "paper") == {"many": [0], "medium": [1], "few": []}
    with pytest.raises(UserError, match="config.groups"):
        groups([1, 2], "papers")


def test_accuracies_by_hand():
    scores = np.eye(4)[[0, 0, 1, 2, 0, 0]]
    labels = np.array([0, 0, 1, 1, 2, 2])
    got = metrics.test_metrics(scores, labels, np.array([300, 200, 50, 5]))
    assert got == {
        "test_accuracy": 0.5,
        "accuracy_per_class": [1.0, 0.5, 0.0, None],
        "accuracy_many": 0.75,
        "accuracy_medium": 0.0,
        "accuracy_few": None,
    }
    balanced = metrics.test_metrics(scores, labels, np.full(4, 7))
    assert set(balanced) == {"test_accuracy", "accuracy_per_class"}


def test_group_accuracy_is_a_mean_over_classes():
    labels = np.array([0] * 9 + [1])
    scores = np.eye(3)[[0] * 9 + [0]]
    got = metrics.test_metrics(scores, labels, np.array([200, 150, 3]), "paper")
    assert got["test_accuracy"] == 0.9 and got["accuracy_many"] == 0.5


def test_selection_by_hand():
    given = np.array([0, 0, 1, 1, 1])
    true = np.array([0, 1, 1, 1, 0])
    selected = np.array([True, True, True, False, False])
    got = metrics.selection_metrics(
        np.array([0.9, 0.6, 0.8, 0.4, 0.1]), selected, given, true
    )
    assert got == pytest.approx(
        {
            "selection_auc": 5 / 6,
            "clean_precision": 2 / 3,
            "clean_recall": 2 / 3,
            "noise_precision": 1 / 2,
            "noise_recall": 1 / 2,
        }
    )


@pytest.mark.parametrize(
    "selected, true, undefined",
    [
        ([1, 1], [0, 1], {"selection_auc", "noise_precision", "noise_recall"}),
        ([1, 0], [0, 1], {"selection_auc", "noise_recall"}),
        ([0, 0], [0, 0], {"clean_precision"}),
        ([0, 1], [1, 0], {"selection_auc", "clean_recall"}),
        (
            [],
            [],
            {
                "selection_auc",
                "clean_precision",
                "clean_recall",
                "noise_precision",
                "noise_recall",
            },
        ),
    ],
)
def test_selection_degenerate(selected, true, undefined):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = metrics.selection_metrics(
            np.array([0.2, 0.3][: len(true)]),
            np.array(selected),
            [0, 1][: len(true)],
            true,
        )
    assert {name for name, value in got.items() if value is None} == undefined


def test_macro_scores_by_hand():
    labels = np.array([0, 0, 1, 1, 3])
    predicted = np.array([0, 1, 1, 1, 1])  # 2 is not there, 3 never predicted
    assert metrics.macro_scores(predicted, labels) == {
        "macro_precision": pytest.approx((1 + 1 / 2 + 0) / 3),
        "macro_recall": pytest.approx((1 / 2 + 1 + 0) / 3),
        "macro_f1": pytest.approx((2 / 3 + 2 / 3 + 0) / 3),
    }


def test_top_accuracy_by_hand():
    scores = np.array([[9.0, 8, 7, 6, 5, 4]] * 2 + [[0.0, 0, 0, 0, 0, 1]] * 2)
    # Of equals the first win: after class 5 come 0, 1, 2 and 3.
    labels = np.array([4, 5, 3, 4])
    assert metrics.top_accuracy(scores, labels, 5) == 0.5
    assert metrics.top_accuracy(scores, labels, 6) == 1
    assert metrics.top_accuracy(scores[:, :4], labels % 4, 5) == 1
    assert metrics.top_accuracy(scores, np.array([0, 0, 5, 0]), 1) == 0.75


def test_equal_and_missing_scores_make_no_more_hits():
    labels = np.arange(50)
    for scores in (np.zeros((50, 50)), np.full((50, 50), np.nan)):
        assert metrics.top_accuracy(scores, labels, 5) == 0.1
    scores = np.zeros((50, 50))
    scores[labels, labels] = np.nan
    assert metrics.top_accuracy(scores, labels, 5) == 0


def test_the_first_place_is_that_of_the_test_accuracy():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 4, (200, 10)).astype(float)  # many ties
    labels = rng.integers(0, 10, 200)
    expected = metrics.test_metrics(scores, labels, np.ones(10))
    got = metrics.top_accuracy(scores, labels, 1)
    assert got == expected["test_accuracy"]


def test_a_term_that_is_not_finite_is_named():
    terms = [{"loss": np.float32(2), "mse": np.float32(4)}] * 2
    assert metrics.mean_terms(terms, [2, 4], 0) == {"loss": 0.75, "mse": 1.5}
    terms[1] = terms[1] | {"mse": np.float32("nan")}
    with pytest.raises(UserError, match=r"^epoch 8: .*\bmse\b"):
        metrics.mean_terms(terms, [2, 4], 7)
