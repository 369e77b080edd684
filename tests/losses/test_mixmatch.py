"""DivideMix's draws and targets; the golden files hold the values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.losses import mixmatch


def test_mean_probs_has_no_gradient():
    grad = jax.grad(lambda z: mixmatch.mean_probs([z, z])[0, 0])(
        jnp.ones((1, 2))
    )
    np.testing.assert_array_equal(grad, np.zeros((1, 2)))


@pytest.mark.parametrize("drawn", [0.25, 0.75])
def test_mixup_draws_fold_keeps_a_row_near_itself(monkeypatch, drawn):
    def beta(key, a, b):
        assert a == b == 4.0
        return jnp.float32(drawn)  # one for the whole batch

    monkeypatch.setattr(jax.random, "beta", beta)
    key = jax.random.key(0)
    folded = mixmatch.mixup_draws(key, 4.0, 6)
    plain = mixmatch.mixup_draws(key, 4.0, 6, folded=False)
    assert folded.coefficient == 0.75
    assert plain.coefficient == drawn
    np.testing.assert_array_equal(np.sort(folded.permutation), np.arange(6))
    assert (folded.permutation != np.arange(6)).any()
