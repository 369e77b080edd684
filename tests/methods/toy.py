"""A network of matrices that does what the heads do, without a backbone."""

import jax.numpy as jnp
import numpy as np

FEATURES, CLASSES, DIM = 5, 3, 4


def unit(rows):
    return rows / jnp.linalg.norm(rows, axis=-1, keepdims=True)


def apply(variables, images, heads, train):
    """As `Network.apply`; the statistics list the heads of train passes."""
    p, stats = variables["params"], variables["batch_stats"]
    heads_of = {
        "logits": lambda: images @ p["logits"],
        "balanced": lambda: images @ p["balanced"],
        "projection": lambda: unit(images @ p["projector"]),
        "prototypes": lambda: unit(p["logits"].T @ p["prototype_projector"]),
    }
    outputs = {head: heads_of[head]() for head in heads}
    rows = None if images is None else len(images)
    return outputs, [*stats, (tuple(heads), rows)] if train else stats


def variables(seed):
    """Random parameters of a whole DaSC network."""
    rng = np.random.default_rng(seed)

    def matrix(columns):
        values = rng.normal(size=(FEATURES, columns)).astype(np.float32)
        return jnp.asarray(values)

    params = {
        "logits": matrix(CLASSES),
        "balanced": matrix(CLASSES),
        "projector": matrix(DIM),
        "prototype_projector": matrix(DIM),
    }
    return {"params": params, "batch_stats": []}
