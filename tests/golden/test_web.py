"""Clothing1M's balanced subset and WebVision's tail beside the authors'."""

import random

import numpy as np

from jaxnlt.data import imbalance, sampling
from tests.golden.cases import golden


class PythonShuffles:
    """Draws what the authors' code draws from Python's own generator."""

    def __init__(self, seed):
        self.random = random.Random(seed)

    def permutation(self, x):
        values = list(x)
        self.random.shuffle(values)
        return np.array(values, dtype=np.asarray(x).dtype)


@golden("smr_clothing_subset")
def test_balanced_subset(case):
    labels, size = case["noisy_labels"], int(case["num_samples"])
    assert len(labels) == len(case["key_list"])
    classes = len(case["available_per_class"])
    rng = PythonShuffles(int(case["python_random_seed"]))
    rows = sampling.balanced_subset(labels, classes, size, rng)
    np.testing.assert_array_equal(rows, case["selected_positions_in_order"])
    counts = np.bincount(labels[rows], minlength=classes)
    np.testing.assert_array_equal(counts, case["selected_per_class"])
    assert size / classes == case["class_cap"]
    np.testing.assert_array_equal(
        np.bincount(labels, minlength=classes), case["available_per_class"]
    )
    assert len(rows) == case["selected_total"]


@golden("smr_clothing_subset")
def test_sizes_from_another_generator(case):
    """What holds whoever shuffles, while the total is not reached."""
    labels, size = case["noisy_labels"], int(case["num_samples"])
    available = case["available_per_class"]
    wanted = np.minimum(available, np.ceil(float(case["class_cap"])))
    rows = sampling.balanced_subset(
        labels, len(available), size, np.random.default_rng(0)
    )
    counts = np.bincount(labels[rows], minlength=len(available))
    if wanted.sum() <= size:
        np.testing.assert_array_equal(counts, wanted)
    assert len(rows) == min(size, wanted.sum())


@golden("sfa_data")
def test_tail_of_webvision(case):
    raw = case["web_raw_counts"]
    found = case.group("web_counts_exp_")
    assert found
    for factor, counts in found.items():
        got = imbalance.natural_tail(raw, int(raw.max()), float(factor), "exp")
        np.testing.assert_array_equal(got, counts)
