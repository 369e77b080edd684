"""One mesh axis, "data": batches are sharded along it, the rest is replicated.

Under jit with a batch-sharded input, batch statistics, mixup partners and
contrastive denominators are over the global batch, so one device and eight
compute the same function.
"""

import math
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxnlt.runtime import processes
from jaxnlt.runtime.errors import UserError, logger

PyTree = Any


def usable(devices: int, batch_sizes: Iterable[int]) -> int:
    """The most devices, of those that there are, that divide every batch."""
    common = math.gcd(*batch_sizes)
    return max(n for n in range(1, devices + 1) if common % n == 0)


def make_mesh(
    batch_sizes: Iterable[int], devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Mesh over the most devices that divide every batch size.

    Args:
      batch_sizes: rows of every stream in a step.
      devices: None takes all that there are.

    Returns:
      A one-axis mesh; a warning reports unused devices.

    Raises:
      UserError: the devices of several processes do not divide a batch size.
    """
    devices = devices or jax.devices()
    sizes = set(batch_sizes)
    used = usable(len(devices), sizes)
    if used < len(devices) and not processes.alone():
        raise UserError(
            f"config.batch_size: {len(devices)} devices of "
            f"{jax.process_count()} processes must divide the batch sizes "
            f"{sorted(sizes)}"
        )
    if used < len(devices):
        logger.warning(
            "%d of %d devices used: more do not divide the batch sizes %s",
            used,
            len(devices),
            sorted(sizes),
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


def put(tree: PyTree, target: NamedSharding) -> PyTree:
    """Places arrays that every process holds in full.

    Args:
      tree: pytree of arrays, equal on all processes.
      target: where their parts belong.

    Returns:
      Pytree of device arrays.
    """
    if target.is_fully_addressable:
        return jax.device_put(tree, target)

    def place(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == target:
            return leaf
        # device_put would compare the whole array across processes.
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(
            whole.shape, target, lambda part: whole[part]
        )

    return jax.tree.map(place, tree)


def divide(images: np.ndarray, mesh: Mesh) -> jax.Array:
    """Divides images over the devices, where a copy on each does not fit.

    In a program that gathers rows of them, every device looks all rows up in
    its part, and the results are added.

    Args:
      images: [N, ...], equal on all processes.
      mesh: devices.

    Returns:
      [M, ...] with M the next multiple of the number of devices, zeros at the
      end.
    """
    size = -(-len(images) // mesh.devices.size) * mesh.devices.size

    def part(index: Any) -> np.ndarray:
        start, stop, _ = index[0].indices(size)
        own = images[start:stop]
        if len(own) == stop - start:
            return own  # not copied on the host
        missing = np.zeros((stop - start - len(own), *own.shape[1:]), own.dtype)
        return np.concatenate([own, missing])

    return jax.make_array_from_callback(
        (size, *images.shape[1:]), batched(mesh), part
    )


def rows(tree: PyTree, mesh: Mesh) -> PyTree:
    """Makes NumPy batches ready for a program that divides them.

    Args:
      tree: pytree of [B, ...] arrays; only the rows of this process's devices
        are read.
      mesh: devices.

    Returns:
      The same tree where one process has all devices, because the transfer of
      the program itself is the fastest; else global arrays.
    """
    target = batched(mesh)
    if target.is_fully_addressable:
        return tree
    return put(tree, target)


def own_rows(mesh: Mesh, size: int) -> np.ndarray:
    """Rows of a divided batch that are on this process's devices.

    Args:
      mesh: devices.
      size: rows of the batch.

    Returns:
      int, ascending.
    """
    parts = batched(mesh).addressable_devices_indices_map((size,)).values()
    held = {part[0].indices(size) for part in parts if part is not None}
    return np.concatenate([np.arange(*ends) for ends in sorted(held)])


def fetch(tree: PyTree) -> PyTree:
    """Copies values to the host; nothing else waits for values.

    Every process gets the complete arrays, also of those that are divided over
    processes.

    Args:
      tree: pytree of device arrays.

    Returns:
      The same tree of NumPy arrays, copies that no donated buffer can change.
    """

    def own(value: Any) -> np.ndarray:
        # Parts of a divided array have been copied into one; what one CPU
        # device holds is seen in place.
        copied = isinstance(value, np.ndarray) and value.flags.owndata
        return value if copied else np.array(value)

    return jax.tree.map(own, jax.device_get(processes.whole(tree)))


def enable_compilation_cache() -> None:
    """Keeps compiled programs in the user's cache folder, unless one is set."""
    if jax.config.values["jax_compilation_cache_dir"] is None:
        try:
            folder = pathlib.Path.home() / ".cache" / "jaxnlt" / "xla"
        except RuntimeError:  # a container's user without a home
            return
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
