"""Rows that are mixed are flat where chips exchange them."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt.losses import mixmatch


def test_images_are_mixed_as_flat_rows():
    images = np.random.default_rng(0).normal(size=(5, 4, 4, 3))
    images = images.astype(np.float32)
    order = jnp.array([4, 2, 0, 1, 3])

    def mix(images):
        return mixmatch.mixup(images, 0.75, order)

    wanted = 0.75 * images + 0.25 * images[np.asarray(order)]
    np.testing.assert_allclose(mix(images), wanted, rtol=1e-6, atol=1e-7)
    program = str(jax.make_jaxpr(mix)(images))
    assert "gather[" in program and "f32[5,48] = gather" in program
