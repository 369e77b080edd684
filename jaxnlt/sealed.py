"""Pytrees as named arrays with a SHA-256 each, and as a JSON skeleton."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np

Arrays = dict[str, np.ndarray]


def _escape(part: str) -> str:
    # Orbax joins names with "." and we join them with "/"; a name that holds
    # one of them would collide with another path.
    return part.replace("%", "%25").replace("/", "%2F").replace(".", "%2E")


def path_of(keys: Iterable[Any]) -> str:
    """The name of a leaf, such as ``params/conv/kernel``."""
    keystr = jax.tree_util.keystr
    return "/".join(_escape(keystr((key,), simple=True)) for key in keys)


def flatten(tree: Any) -> Arrays:
    """The leaves of a pytree as numpy arrays, by name."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {path_of(keys): np.asarray(leaf) for keys, leaf in pairs}


def nest(flat: dict[str, Any]) -> dict[str, Any]:
    """Nested dicts from ``a/b/c`` names, which stay escaped."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def unnest(tree: dict[str, Any]) -> Arrays:
    """The inverse of ``nest``."""
    pairs = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(k.key for k in keys): leaf for keys, leaf in pairs}


def encode(
    tree: Any, arrays: Arrays, path: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A JSON-able skeleton of a tree; its arrays are put into ``arrays``.

    Args:
      tree: dicts with string keys, lists, tuples; leaves are arrays or plain
        str, int, float, bool, None.
      arrays: receives every array under its name.
      path: names of the parents.

    Returns:
      One-entry dicts that name the kind of each node.

    Raises:
      TypeError: a dict key is not a string.
    """
    if isinstance(tree, dict):
        if not all(isinstance(key, str) for key in tree):
            raise TypeError(f"memory {'/'.join(path)}: keys must be strings")
        return {
            "dict": {
                key: encode(value, arrays, (*path, _escape(key)))
                for key, value in tree.items()
            }
        }
    if isinstance(tree, list | tuple):
        kind = "list" if isinstance(tree, list) else "tuple"
        return {
            kind: [
                encode(value, arrays, (*path, str(i)))
                for i, value in enumerate(tree)
            ]
        }
    # np.float64 is a float, but its dtype must come back.
    plain = isinstance(tree, str | int | float | bool | None)
    if plain and not isinstance(tree, np.generic):
        return {"value": tree}
    arrays["/".join(path)] = np.asarray(tree)
    return {"array": "/".join(path)}


def decode(skeleton: dict[str, Any], arrays: Arrays) -> Any:
    """The inverse of ``encode``."""
    ((kind, value),) = skeleton.items()
    if kind == "dict":
        return {key: decode(child, arrays) for key, child in value.items()}
    if kind == "array":
        return arrays[value]
    if kind == "value":
        return value
    children = [decode(child, arrays) for child in value]
    return children if kind == "list" else tuple(children)


def array_sha256(array: np.ndarray) -> str:
    """SHA-256 (hex) of an array's dtype, shape and bytes in C order."""
    digest = hashlib.sha256(f"{array.dtype.name}{array.shape}".encode())
    # tobytes serves dtypes without a buffer, such as bfloat16.
    digest.update(array.tobytes())
    return digest.hexdigest()


def json_sha256(obj: Any) -> str:
    """SHA-256 (hex) of a JSON-able object, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(obj, sort_keys=True).encode()).hexdigest()


def weights_sha256(states: Sequence[Any]) -> str:
    """One SHA-256 over all parameters and batch statistics of all networks.

    Args:
      states: one pytree per network with ``params`` and ``batch_stats``.

    Returns:
      The hex digest; names in sorted order, so dict order does not matter.
    """
    digest = hashlib.sha256()
    for k, state in enumerate(states):
        weights = {name: state[name] for name in ("params", "batch_stats")}
        for path, array in sorted(flatten(weights).items()):
            digest.update(f"net{k}/{path} {array_sha256(array)}\n".encode())
    return digest.hexdigest()
