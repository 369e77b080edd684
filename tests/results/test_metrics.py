import warnings

import numpy as np
import pytest

from jaxnlt.results import metrics
from jaxnlt.runtime.errors import UserError

SELECTION = ["selection_auc", "clean_precision", "clean_recall"]
SELECTION += ["noise_precision", "noise_recall"]


def groups(counts, kind="auto"):
    found = metrics.accuracy_groups(np.array(counts), kind)
    return found and {name: ids.tolist() for name, ids in found.items()}


@pytest.mark.parametrize(
    "counts, kind, many, medium, few",
    [
        ([19, 101, 20, 100, 300], "auto", [1, 4], [2, 3], [0]),
        # By thirds where one of the three would be empty.
        (
            [134, 20, 80, 60, 50, 40, 30, 30, 25, 21],
            "auto",
            [0, 2, 3],
            [4, 5, 6, 7],
            [1, 8, 9],
        ),
        ([5, 9], "auto", [1], [], [0]),
        (range(10), "paper", [0, 1], [2, 3, 4, 5, 6], [7, 8, 9]),
        ([50] * 10, "paper", [0, 1], [2, 3, 4, 5, 6], [7, 8, 9]),
        ([101, 50], "paper", [0], [1], []),
    ],
)
def test_groups(counts, kind, many, medium, few):
    expected = {"many": many, "medium": medium, "few": few}
    assert groups(counts, kind) == expected


def test_no_groups():
    assert groups([50] * 10) is None
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
    scores = np.array([0.9, 0.6, 0.8, 0.4, 0.1])
    got = metrics.selection_metrics(scores, selected, given, true)
    assert list(got) == SELECTION
    by_hand = [5 / 6, 2 / 3, 2 / 3, 1 / 2, 1 / 2]
    assert list(got.values()) == pytest.approx(by_hand)


@pytest.mark.parametrize(
    "selected, true, undefined",
    [
        ([1, 1], [0, 1], {"selection_auc", "noise_precision", "noise_recall"}),
        ([1, 0], [0, 1], {"selection_auc", "noise_recall"}),
        ([0, 0], [0, 0], {"clean_precision"}),
        ([0, 1], [1, 0], {"selection_auc", "clean_recall"}),
        ([], [], SELECTION),
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
    assert {k for k, value in got.items() if value is None} == set(undefined)


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
