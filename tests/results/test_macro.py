"""Class-averaged scores against scikit-learn's."""

import numpy as np
from sklearn.metrics import (
    confusion_matrix,
    precision_recall_fscore_support,
)

from jaxnlt.results import metrics


def test_scores_are_scikit_learn_s():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    predicted = rng.integers(1, 4, 60)  # 0 is never predicted
    matrix = metrics.confusion(predicted, labels, 6)  # 4 and 5 are not there
    expected = confusion_matrix(labels, predicted, labels=range(6))
    np.testing.assert_array_equal(matrix, expected)
    expected = precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )[:3]
    got = metrics.macro_scores(matrix)
    assert list(got) == ["macro_precision", "macro_recall", "macro_f1"]
    np.testing.assert_allclose(list(got.values()), expected)


def test_top_accuracy_by_hand():
    scores = np.array(
        [
            [9.0, 8, 7, 6, 5, 4],
            [9.0, 8, 7, 6, 5, 4],
            [0.0, 0, 0, 0, 0, 1],
            [0.0, 0, 0, 0, 0, 1],
        ]
    )
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
    by_argsort = [
        label in sorted(range(10), key=lambda c: (-row[c], c))[:5]
        for row, label in zip(scores, labels, strict=True)
    ]
    assert metrics.top_accuracy(scores, labels, 5) == np.mean(by_argsort)
