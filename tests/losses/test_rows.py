"""Rows that are joined and mixed are flat where chips exchange them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt.losses import mixmatch


def test_views_are_joined_and_mixed_as_flat_rows():
    views = [np.random.default_rng(n).normal(size=(n, 4, 4, 3)) for n in (2, 3)]
    order = jnp.array([4, 2, 0, 1, 3])

    def mix(views):
        return mixmatch.mixup(mixmatch.join(views), 0.75, order)

    rows = np.concatenate(views).astype(np.float32)
    wanted = 0.75 * rows + 0.25 * rows[np.asarray(order)]
    np.testing.assert_allclose(mix(views), wanted, rtol=1e-6)
    moves = [
        max(arg.aval.ndim for arg in equation.invars)
        for equation in jax.make_jaxpr(mix)(views).jaxpr.eqns
        if equation.primitive.name in ("concatenate", "gather")
    ]
    assert len(moves) >= 2 and max(moves) == 2
