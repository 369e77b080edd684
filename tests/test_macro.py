"""Class-averaged scores against scikit-learn's."""

import numpy as np
from sklearn.metrics import (
    confusion_matrix,
    precision_recall_fscore_support,
)

from jaxnlt import macro


def test_scores_are_scikit_learn_s():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, 60)
    predicted = rng.integers(1, 4, 60)  # 0 is never predicted
    matrix = macro.confusion(predicted, labels, 6)  # 4 and 5 are not there
    expected = confusion_matrix(labels, predicted, labels=range(6))
    np.testing.assert_array_equal(matrix, expected)
    expected = precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )[:3]
    got = macro.macro_scores(matrix)
    assert list(got) == ["macro_precision", "macro_recall", "macro_f1"]
    np.testing.assert_allclose(list(got.values()), expected)
