"""Contrastive losses, term by term; the golden files hold the authors'."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import losses

contrastive = jax.jit(losses.class_balanced_contrastive)


def unit(rows):
    rows = np.asarray(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


# --- class-balanced contrast ------------------------------------------------


def by_loops(features, targets, prototypes, temperature):
    """Loss of every anchor, term by term."""
    n, num_classes = targets.shape
    contrast = np.concatenate([features, prototypes])
    soft = np.concatenate([targets, np.eye(num_classes)])
    classes = soft.argmax(-1)
    count = np.bincount(classes, minlength=num_classes)
    values = []
    for i in range(n):
        others = [j for j in range(len(contrast)) if j != i]
        similar = {j: features[i] @ contrast[j] / temperature for j in others}
        affinity = {j: targets[i] @ soft[j] for j in others}
        denominator = sum(
            math.exp(similar[j]) / (count[classes[j]] - affinity[j])
            for j in others
        )
        numerator = sum(
            affinity[j] * (similar[j] - math.log(denominator)) for j in others
        )
        values.append(-numerator / sum(affinity.values()))
    return np.array(values)


def contrast_case(seed=0):
    """Five rows of three classes, of which class 2 has none."""
    rng = np.random.default_rng(seed)
    features = unit(rng.normal(size=(5, 4)))
    prototypes = unit(rng.normal(size=(3, 4)))
    hard = np.eye(3, dtype=np.float32)[[0, 0, 1, 1, 1]]
    noise = rng.dirichlet(np.ones(3), 5).astype(np.float32)
    return features, hard, 0.8 * hard + 0.2 * noise, prototypes


def test_contrast_is_the_sum_over_all_others():
    features, hard, soft, prototypes = contrast_case()
    for targets in (hard, soft):
        value = contrastive(features, targets, prototypes, 0.5)
        expected = by_loops(features, targets, prototypes, 0.5)
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_contrast_excludes_the_anchor_itself():
    """One row: its prototype is the only positive and no 1/0 arises."""
    features = jnp.asarray([[1.0, 0]])
    prototypes = jnp.asarray([[0.6, 0.8], [0.0, 1.0]])
    value = contrastive(features, jnp.asarray([[1.0, 0]]), prototypes, 0.1)
    # Itself not counted, its class has one element left besides.
    expected = -(6 - math.log(math.exp(6) / 1 + math.exp(0) / 1))
    np.testing.assert_allclose(value, [expected], rtol=1e-4)


def test_contrast_weighs_classes_alike_whatever_their_size():
    """Three equal negatives push as much as one."""
    negative = [0.0, 1.0]
    prototypes = jnp.asarray([[0.8, 0.6], negative])
    first = [
        contrastive(
            jnp.asarray([[1.0, 0]] + [negative] * copies),
            jnp.asarray([[1.0, 0]] + [[0.0, 1]] * copies),
            prototypes,
            0.5,
        )[0]
        for copies in (1, 3)
    ]
    np.testing.assert_allclose(first[0], first[1], rtol=1e-5)


def test_contrast_sees_an_absent_class_through_its_prototype():
    features, hard, _, prototypes = contrast_case()

    def loss(prototypes):
        return contrastive(features, hard, prototypes, 0.5).mean()

    grad = jax.jit(jax.grad(loss))(prototypes)
    assert np.abs(grad[2]).max() > 1e-3
    # It repels: moved towards an anchor it raises the loss.
    nearer = np.array(prototypes)
    nearer[2] = features[0]
    assert loss(nearer) > loss(prototypes)


def test_contrast_has_gradient_for_rows_and_prototypes_not_for_targets():
    features, _, soft, prototypes = contrast_case()
    grads = jax.jit(
        jax.grad(lambda *args: contrastive(*args, 0.5).sum(), (0, 1, 2))
    )(features, soft, prototypes)
    assert np.abs(grads[0]).min() > 0
    np.testing.assert_array_equal(grads[1], np.zeros_like(soft))
    assert np.abs(grads[2]).max() > 0


# --- InfoNCE ----------------------------------------------------------------

QUERIES = unit([[1, 0.2], [0.3, 1], [-1, 0.5]])
KEYS = unit([[1, 0], [0, 1], [-1, -1]])
MEMORY = unit([[5, 1], [1, -1], [0.5, 2], [-2, 1]])


@jax.jit
def nce(fill, target=None, memory=MEMORY, queries=QUERIES, keys=KEYS):
    return losses.info_nce(queries, keys, memory, fill, 0.5, target)


def picked(i, column, fill):
    """Loss of row i for a column of [own key, valid memory rows]."""
    valid = MEMORY[len(MEMORY) - fill :]
    logits = np.array([QUERIES[i] @ KEYS[i], *(valid @ QUERIES[i])]) / 0.5
    return np.log(np.exp(logits).sum()) - logits[column]


def test_info_nce_of_an_empty_memory_is_zero_without_gradient():
    loss = jax.jit(jax.value_and_grad(lambda q: nce(0, queries=q).sum()))
    value, grad = loss(QUERIES)
    assert value == 0
    np.testing.assert_array_equal(grad, np.zeros_like(QUERIES))
    np.testing.assert_array_equal(nce(0, memory=MEMORY[:0]), np.zeros(3))


@pytest.mark.parametrize("fill", [1, 3, 4])
def test_info_nce_counts_the_last_rows_of_the_memory(fill):
    expected = [picked(i, 0, fill) for i in range(3)]
    np.testing.assert_allclose(nce(fill), expected, rtol=1e-5)
    np.testing.assert_allclose(
        nce(fill, np.zeros(3, np.int32)), expected, rtol=1e-5
    )


def test_info_nce_ignores_what_lies_in_invalid_rows():
    other = np.array(MEMORY)
    other[:2] = 7.0
    np.testing.assert_array_equal(nce(2), nce(2, memory=other))


def test_info_nce_arange_picks_the_oldest_valid_rows():
    released = jnp.arange(3)
    for fill in (2, 4):
        expected = [picked(i, i, fill) for i in range(3)]
        np.testing.assert_allclose(nce(fill, released), expected, rtol=1e-5)
    # Row 2 would pick the second valid row, of which there is one.
    expected = [picked(0, 0, 1), picked(1, 1, 1), 0]
    np.testing.assert_allclose(nce(1, released), expected, rtol=1e-5)


def test_info_nce_moves_the_queries_only():
    grads = jax.jit(
        jax.grad(
            lambda q, k, m: nce(3, memory=m, queries=q, keys=k).sum(), (0, 1, 2)
        )
    )(QUERIES, KEYS, MEMORY)
    assert np.abs(grads[0]).min() > 0
    np.testing.assert_array_equal(grads[1], np.zeros_like(KEYS))
    np.testing.assert_array_equal(grads[2], np.zeros_like(MEMORY))
