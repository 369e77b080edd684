"""The authors' small net: linear, batch norm, ReLU, linear heads."""

import jax
import jax.numpy as jnp


def apply(variables, images, heads, train):
    """As `Network.apply`."""
    p, stats = variables["params"], variables["batch_stats"]

    def linear(name, x):
        return x @ p[name]["weight"].T + p[name]["bias"]

    hidden = linear("backbone", images)
    mean, var = stats["mean"], stats["var"]
    if train:
        mean, var, n = hidden.mean(0), hidden.var(0), len(hidden)
        stats = {
            "mean": 0.9 * stats["mean"] + 0.1 * mean,
            "var": 0.9 * stats["var"] + 0.1 * var * n / (n - 1),
        }
    hidden = (hidden - mean) / jnp.sqrt(var + 1e-5)
    hidden = jax.nn.relu(hidden * p["bn"]["weight"] + p["bn"]["bias"])
    return {head: linear(head, hidden) for head in heads}, stats


def params(stored, layers):
    """Stored weights [out, in]; ``layers``: our name -> the authors'."""
    return {
        ours: {
            kind: jnp.asarray(stored[f"{theirs}_{kind}"])
            for kind in ("weight", "bias")
        }
        for ours, theirs in layers.items()
    }


def variables(stored, layers):
    """Weights and running statistics."""
    stats = {
        kind: jnp.asarray(stored[f"bn_running_{kind}"])
        for kind in ("mean", "var")
    }
    return {"params": params(stored, layers), "batch_stats": stats}
