import numpy as np
import pytest

from jaxnlt.data import imbalance
from jaxnlt.runtime.errors import UserError


def test_step_of_an_odd_number_of_classes():
    counts = imbalance.class_counts(99, 5, 0.1, "step")
    assert counts.tolist() == [99, 99, 9, 9, 9]


@pytest.mark.parametrize("imb", [None, 1, 1.0])
@pytest.mark.parametrize("kind", imbalance.TYPES)
def test_balanced(imb, kind):
    assert imbalance.class_counts(7, 3, imb, kind).tolist() == [7, 7, 7]


@pytest.mark.parametrize("imb", [0, -0.1, 1.5, float("nan")])
def test_imb_out_of_range(imb):
    with pytest.raises(UserError, match="^config.data.imb: "):
        imbalance.class_counts(10, 3, imb)


def test_natural_tail():
    available = np.array([5, 100, 80, 100])
    counts = imbalance.natural_tail(available, 100, 0.027, "exp")
    # The second of the two largest classes is the second of the tail.
    assert counts.tolist() == [2, 100, 9, 30]
    for imb in (None, 1):
        counts = imbalance.natural_tail(available, 90, imb, "exp")
        assert counts.tolist() == [5, 90, 80, 90]


def test_subset_splits_each_class_without_loss():
    labels = np.random.default_rng(0).integers(0, 3, 60)
    kept, unused = imbalance.draw_subset(
        labels, np.array([5, 99, 0]), np.random.RandomState(0)
    )
    sizes = np.bincount(labels)
    assert [len(k) for k in kept] == [5, sizes[1], 0]
    for k in range(3):
        rows = np.concatenate([kept[k], unused[k]])
        assert sorted(rows) == np.flatnonzero(labels == k).tolist()


def test_subsets_are_nested_in_the_ratio():
    labels = np.repeat(np.arange(3), 50)
    small, large = (
        imbalance.draw_subset(
            labels,
            imbalance.class_counts(50, 3, imb),
            np.random.RandomState(1),
        )[0]
        for imb in (0.1, 0.5)
    )
    for a, b in zip(small, large, strict=True):
        assert set(a) <= set(b)
