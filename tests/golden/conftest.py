"""The precision that a golden test computes in."""

import numpy as np
import pytest

from tests.golden.precision import precision


@pytest.fixture(params=[np.float32, np.float64])
def dtype(request):
    """JAX computes in it during the whole test."""
    with precision(request.param):
        yield request.param
