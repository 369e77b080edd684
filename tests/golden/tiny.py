"""The small, fully specified network of the golden training steps."""

import jax.numpy as jnp

# PyTorch name -> path in a tree laid out as our networks lay theirs out.
PATHS = {
    "enc": "backbone",
    "cls1": "logits",
    "cls2": "balanced",
    "pr": "projector",
    "pp": "prototype_projector",
}


def _path(name):
    layer, kind = name.split(".")
    if layer[:2] in ("pr", "pp"):
        return PATHS[layer[:2]], layer[2:] + kind
    return PATHS[layer], kind


def tree(arrays, dtype):
    """Stored weights [out, in] as a parameter tree."""
    params: dict = {}
    for name, value in arrays.items():
        group, leaf = _path(name)
        params.setdefault(group, {})[leaf] = jnp.asarray(value, dtype)
    return params


def leaf(params, name):
    """The array of a PyTorch name in the tree."""
    group, key = _path(name)
    return params[group][key]


def _linear(layer, x, prefix=""):
    return x @ layer[prefix + "weight"].T + layer[prefix + "bias"]


def _unit(x):
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def _project(layer, x):
    hidden = jnp.maximum(_linear(layer, x, "1"), 0)
    return _unit(_linear(layer, hidden, "2"))


def apply(variables, images, heads, train):
    """As `Network.apply`; there are no statistics to move."""
    params = variables["params"]
    features = jnp.tanh(_linear(params["backbone"], images))
    outputs = {
        "logits": lambda: _linear(params["logits"], features),
        "balanced": lambda: _linear(params["balanced"], features),
        "projection": lambda: _project(params["projector"], features),
        "prototypes": lambda: _project(
            params["prototype_projector"], params["logits"]["weight"]
        ),
    }
    return {h: outputs[h]() for h in heads}, variables["batch_stats"]
