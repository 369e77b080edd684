"""The first-in-first-out memory of MIDL."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.methods import dasc


def appended(held, size, rows, keep):
    """The carry of one-dimensional rows, after rows; what is empty holds -1."""
    values = jnp.asarray([-1.0] * (size - len(held)) + held, jnp.float32)
    carry = dasc.ContrastMemory(values.reshape(size, 1), jnp.int32(len(held)))
    rows = jnp.asarray(rows, jnp.float32).reshape(-1, 1)
    return jax.jit(dasc.fifo)(carry, rows, np.array(keep, bool))


@pytest.mark.parametrize(
    "held, size, rows, keep, expected",
    [
        ([], 4, [1, 2, 3], [1, 1, 1], [1, 2, 3]),
        ([1, 2, 3], 4, [4, 5, 6], [1, 1, 1], [3, 4, 5, 6]),
        ([1], 4, [7, 8, 9], [1, 0, 1], [1, 7, 9]),
        ([1, 2, 3, 4], 4, [7, 8, 9], [1, 0, 1], [3, 4, 7, 9]),
        ([1, 2], 4, [7, 8, 9], [0, 0, 0], [1, 2]),
        ([9], 2, [0, 1, 2, 3, 4], [1] * 5, [3, 4]),
        ([], 0, [0, 1, 2], [1, 1, 1], []),
    ],
)
def test_fifo_keeps_the_order_and_the_newest(held, size, rows, keep, expected):
    carry = appended(held, size, rows, keep)
    assert carry.rows.shape == (size, 1) and carry.fill.dtype == jnp.int32
    valid = carry.rows[size - int(carry.fill) :, 0]
    assert valid.tolist() == expected


def test_fifo_passes_no_gradient():
    grad = jax.grad(lambda rows: appended([1], 4, rows, [1] * 3).rows.sum())
    np.testing.assert_array_equal(grad(np.ones(3, np.float32)), np.zeros(3))
