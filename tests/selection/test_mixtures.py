"""Two-component mixtures of losses, over all samples and class by class."""

import numpy as np
import pytest

from jaxnlt import selection


@pytest.mark.parametrize("values", [[], [0.3], [0.3, 0.3], [0.7] * 5])
def test_gmm_of_nothing_to_divide_trusts_all(values):
    probability = selection.gmm_probability(np.array(values))
    np.testing.assert_array_equal(probability, np.ones(len(values)))


def test_gmm_of_two_samples_parts_them():
    np.testing.assert_allclose(
        selection.gmm_probability(np.array([0.9, 0.1])), [0, 1], atol=1e-6
    )


def test_gmm_probability_is_that_of_the_smaller_mean():
    rng = np.random.default_rng(0)
    low, high = rng.normal(0.1, 0.02, 40), rng.normal(0.8, 0.02, 10)
    for parts in ((low, high), (high, low)):
        values = np.concatenate(parts)
        probability = selection.gmm_probability(values)
        np.testing.assert_array_equal(probability > 0.5, values < 0.5)
        assert probability.min() >= 0 and probability.max() <= 1


def test_per_class_gmm_fits_each_given_class_alone():
    """What is large in one class is small in the other."""
    values = np.array([0.0, 0.01, 0.5, 0.51, 0.5, 0.51, 0.9, 0.91, 0.3])
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1, 3])
    probability = selection.per_class_gmm(values, labels, 5)
    expected = [1, 1, 0, 0, 1, 1, 0, 0, 1]
    np.testing.assert_allclose(probability, expected, atol=1e-3)
