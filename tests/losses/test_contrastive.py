"""What the golden files leave open of the contrastive losses."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses

contrastive = jax.jit(losses.class_balanced_contrastive)


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_contrast_excludes_the_anchor_itself():
    """One row: its prototype is the only positive and no 1/0 arises."""
    features = jnp.asarray([[1.0, 0]])
    prototypes = jnp.asarray([[0.6, 0.8], [0.0, 1.0]])
    value = contrastive(features, jnp.asarray([[1.0, 0]]), prototypes, 0.1)
    # Itself not counted, its class has one element left besides.
    expected = -(6 - math.log(math.exp(6) / 1 + math.exp(0) / 1))
    np.testing.assert_allclose(value, [expected], rtol=1e-4)


def test_contrast_moves_rows_and_prototypes_but_not_targets():
    """An absent class, too, repels through its prototype."""
    rng = np.random.default_rng(0)
    features, prototypes = unit(rng.normal(size=(5, 4))), unit(np.eye(3, 4))
    hard = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 1]]

    @jax.jit
    def loss(*args):
        return contrastive(*args, 0.5).sum()

    grads = jax.jit(jax.grad(loss, (0, 1, 2)))(features, hard, prototypes)
    assert np.abs(grads[0]).min() > 0
    np.testing.assert_array_equal(grads[1], np.zeros_like(hard))
    assert np.abs(grads[2][2]).max() > 5e-3
    nearer = np.array(prototypes)
    nearer[2] = features[0]
    assert loss(features, hard, nearer) > loss(features, hard, prototypes)


QUERIES = unit([[1, 0.2], [0.3, 1], [-1, 0.5]])
KEYS = unit([[1, 0], [0, 1], [-1, -1]])
MEMORY = unit([[5, 1], [1, -1], [0.5, 2], [-2, 1]])


@jax.jit
def nce(fill, target=None, memory=MEMORY, queries=QUERIES, keys=KEYS):
    return losses.info_nce(queries, keys, memory, fill, 0.5, target)


def test_info_nce_of_an_empty_memory_is_zero_without_gradient():
    loss = jax.jit(jax.value_and_grad(lambda q: nce(0, queries=q).sum()))
    value, grad = loss(QUERIES)
    assert value == 0
    np.testing.assert_array_equal(grad, np.zeros_like(QUERIES))
    np.testing.assert_array_equal(nce(0, memory=MEMORY[:0]), np.zeros(3))


def test_info_nce_ignores_what_lies_in_invalid_rows():
    other = np.array(MEMORY)
    other[:2] = 7.0
    np.testing.assert_array_equal(nce(2), nce(2, memory=other))


def test_info_nce_of_a_column_past_the_valid_rows_is_zero():
    found = nce(1, np.arange(3))
    assert (found[:2] > 0).all() and found[2] == 0


def test_info_nce_moves_the_queries_only():
    grads = jax.jit(
        jax.grad(
            lambda q, k, m: nce(3, memory=m, queries=q, keys=k).sum(), (0, 1, 2)
        )
    )(QUERIES, KEYS, MEMORY)
    assert np.abs(grads[0]).min() > 0
    np.testing.assert_array_equal(grads[1], np.zeros_like(KEYS))
    np.testing.assert_array_equal(grads[2], np.zeros_like(MEMORY))
