"""Values equal up to rounding are equal."""

import numpy as np
import pytest

from jaxnlt import selection


@pytest.mark.parametrize("centre", [0.0, 0.3, 1.0, 5e3])
@pytest.mark.parametrize("seed", range(4))
def test_values_equal_up_to_rounding_are_all_trusted(centre, seed):
    noise = np.random.default_rng(seed).uniform(-1, 1, 50)
    values = centre + 3e-7 * max(1, centre) * noise
    np.testing.assert_array_equal(selection.gmm_probability(values), 1)
    np.testing.assert_array_equal(selection.min_max(values), 0)
