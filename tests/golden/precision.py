"""Runs a golden test in float32 and in float64, with the tolerance of each."""

import contextlib
import functools

import jax
import numpy as np
import pytest

near = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
PRECISIONS = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def precision(dtype):
    """Context in which JAX computes in the given dtype."""
    if dtype == np.float64:
        return jax.enable_x64(True)
    return contextlib.nullcontext()


def close(actual, expected, dtype, grad=False):
    """Compares with the authors' float64 numbers, at the measured tolerance."""
    rtol, atol = (1e-4 if grad else 2e-5), 2e-6
    if dtype == np.float64:  # relative to the largest entry of the array
        rtol, atol = 1e-6, 1e-6 * float(np.max(np.abs(expected), initial=0))
    actual = np.asarray(actual, np.float64)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)
