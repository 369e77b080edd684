"""One mesh axis, "data": batches are sharded along it, all else replicated.

Under jit with a batch-sharded input, batch statistics, mixup partners and
contrastive denominators are over the global batch, so one device and eight
compute the same function.
"""

import pathlib
from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnlt.errors import logger

PyTree = Any


def make_mesh(batch_sizes: Iterable[int]) -> Mesh:
    """Mesh over the most devices that divide every batch size.

    Args:
      batch_sizes: rows a step of every stream.

    Returns:
      A one-axis mesh; a warning says when devices are left out.
    """
    devices = jax.devices()
    sizes = set(batch_sizes)
    used = max(
        n
        for n in range(1, len(devices) + 1)
        if all(size % n == 0 for size in sizes)
    )
    if used < len(devices):
        logger.warning(
            "%d of %d devices used: more do not divide the batch sizes %s",
            *(used, len(devices), sorted(sizes)),
        )
    return jax.make_mesh(
        (used,), ("data",), axis_types=(AxisType.Auto,), devices=devices[:used]
    )


def replicated(mesh: Mesh) -> NamedSharding:
    """Every device holds the whole array."""
    return NamedSharding(mesh, PartitionSpec())


def batched(mesh: Mesh) -> NamedSharding:
    """The first axis is divided over the devices."""
    return NamedSharding(mesh, PartitionSpec("data"))


def fetch(tree: PyTree) -> PyTree:
    """Brings values to the host, the only place where it waits for them.

    (`streaming.Throttle` waits too, but takes nothing.)

    Args:
      tree: pytree of device arrays.

    Returns:
      The same tree of NumPy arrays, copies that no donated buffer can change.
    """
    return jax.tree.map(lambda leaf: np.array(leaf), jax.device_get(tree))


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, if none is set."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        folder = pathlib.Path.home() / ".cache" / "jaxnlt" / "xla"
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
