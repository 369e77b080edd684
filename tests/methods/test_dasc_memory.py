"""The first-in-first-out memory of MIDL."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt.methods import dasc


def memory(values, size):
    """A carry of one-dimensional rows; what is empty holds -1."""
    rows = [-1.0] * (size - len(values)) + list(values)
    return dasc.ContrastMemory(
        jnp.asarray(rows, jnp.float32).reshape(size, 1),
        jnp.int32(len(values)),
    )


@jax.jit
def append(carry, values, keep):
    return dasc.fifo(carry, jnp.reshape(values, (-1, 1)), keep)


def valid(carry):
    rows = np.asarray(carry.rows)[:, 0]
    return rows[len(rows) - int(carry.fill) :].tolist()


def test_fifo_keeps_the_order_and_forgets_the_oldest():
    carry, keep = memory([], 4), np.ones(3, bool)
    carry = append(carry, np.array([1.0, 2, 3], np.float32), keep)
    assert valid(carry) == [1, 2, 3]
    carry = append(carry, np.array([4.0, 5, 6], np.float32), keep)
    assert valid(carry) == [3, 4, 5, 6]
    assert carry.rows.shape == (4, 1)
    assert carry.fill.dtype == jnp.int32


def test_fifo_takes_only_what_is_kept():
    keep = np.array([True, False, True])
    rows = np.array([7.0, 8, 9], np.float32)
    assert valid(append(memory([1], 4), rows, keep)) == [1, 7, 9]
    assert valid(append(memory([1, 2, 3, 4], 4), rows, keep)) == [3, 4, 7, 9]
    none = append(memory([1, 2], 4), rows, np.zeros(3, bool))
    assert valid(none) == [1, 2]


def test_fifo_of_more_rows_than_its_size_keeps_the_last():
    rows = np.arange(5, dtype=np.float32)
    carry = append(memory([9], 2), rows, np.ones(5, bool))
    assert valid(carry) == [3, 4]


def test_fifo_of_size_zero_stays_empty():
    carry = append(
        memory([], 0), np.arange(3, dtype=np.float32), np.ones(3, bool)
    )
    assert carry.rows.shape == (0, 1) and carry.fill == 0


def test_fifo_passes_no_gradient():
    grad = jax.jit(
        jax.grad(
            lambda rows: append(
                memory([1], 4), rows, np.ones(3, bool)
            ).rows.sum()
        )
    )(np.ones(3, np.float32))
    np.testing.assert_array_equal(grad, np.zeros(3))
