"""Inference in batches of one shape, and the vote of the networks."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh
from jax.stages import Lowered

from jaxnlt import models
from jaxnlt.augment import table
from jaxnlt.data import streaming
from jaxnlt.method import (
    DeviceOutputs,
    Memory,
    Method,
    Outputs,
    PyTree,
    TrainState,
)
from jaxnlt.runtime import cpu, sharding
from jaxnlt.runtime.errors import UserError

#: Outputs of one network on consecutive batches, the last one padded.
Batches = list[DeviceOutputs]


class Inference:
    """Outputs of networks on any rows, in batches of one shape.

    Gathering is a program of its own, so that training and test images, whose
    numbers differ, share the compiled network.

    Args:
      network: the model.
      heads: what to compute.
      config: ``eval_batch_size``, the model's dtype, names of augmentations.
      dataset: mean and standard deviation of the images.
      mesh: devices.
    """

    def __init__(
        self,
        network: models.Network,
        heads: tuple[str, ...],
        config: ml_collections.ConfigDict,
        dataset: table.ImageStatistics,
        mesh: Mesh,
    ):
        self._mesh, devices = mesh, mesh.devices.size
        self.batch_size = -(-config.eval_batch_size // devices) * devices
        everywhere, rowwise = sharding.replicated(mesh), sharding.batched(mesh)
        dtype = models.DTYPES[config.model.dtype][1]
        self._statistics = table.as_arrays(dataset, dtype)

        def infer(
            variables: PyTree,
            images: jax.Array,
            statistics: table.StatisticsArrays,
        ) -> DeviceOutputs:
            mean, std = statistics
            images = table.normalise(images, mean, std, dtype)
            return network.apply(variables, images, heads, False)[0]

        def infer_view(
            variables: PyTree,
            images: jax.Array,
            statistics: table.StatisticsArrays,
            key: jax.Array,
            view: str,
            train: bool,
        ) -> tuple[DeviceOutputs, PyTree]:
            names = config.augment.to_dict()
            images = table.prepare(images, key, view, statistics, dtype, names)
            apply = network.seeded(jax.random.fold_in(key, 1))
            return apply(variables, images, heads, train)

        self._take = jax.jit(
            streaming.InMemory.take,
            in_shardings=(None, rowwise),
            out_shardings=rowwise,
        )
        self._infer = jax.jit(
            infer,
            in_shardings=(everywhere, rowwise, everywhere),
            out_shardings=rowwise,
            compiler_options=cpu.options(),
        )
        self._infer_view = jax.jit(
            infer_view,
            static_argnums=(4, 5),
            in_shardings=(everywhere, rowwise, everywhere, everywhere),
            out_shardings=(rowwise, everywhere),
            compiler_options=cpu.options(),
        )

    def lowered(self, variables: PyTree, images: PyTree) -> Lowered:
        """The program of one batch, for tools that compile it elsewhere.

        Args:
          variables: of the network; shapes with their sharding suffice.
          images: [batch_size, ...], the same.
        """
        return self._infer.lower(variables, images, self._statistics)

    def _batches(
        self,
        images: streaming.Images,
        rows: np.ndarray,
        view: str = "none",
        key: jax.Array | None = None,
    ) -> Iterable[jax.Array]:
        """Images of every batch; the first rows fill the last one up."""
        batches = -(-len(rows) // self.batch_size)
        padded = np.resize(rows, (batches, self.batch_size)).astype(np.int32)
        if isinstance(images, streaming.Streamed):
            # The key's numbers seed the crops as well.
            seeds = () if key is None else jax.random.key_data(key).tolist()
            return images.infer(padded, view, seeds)
        return (
            self._take(images, sharding.rows(index, self._mesh))
            for index in padded
        )

    def __call__(
        self, variables: PyTree, images: streaming.Images, rows: np.ndarray
    ) -> Batches:
        """Eval-mode outputs of one network, on the devices, for ``collect``.

        Args:
          variables: the network's ``params`` and ``batch_stats``.
          images: what ``streaming.hold`` returned of N images.
          rows: int [n] which of them.

        Returns:
          A dict of [batch_size, ...] arrays for each batch.
        """
        return self.all([variables], images, rows)[0]

    def all(
        self,
        networks: Sequence[PyTree],
        images: streaming.Images,
        rows: np.ndarray,
    ) -> list[Batches]:
        """What a call returns, for each of several networks.

        Images on disk are read once for all of them.

        Args:
          networks: variables of every network.
          images: as for a call.
          rows: int [n] which of them.

        Returns:
          The outputs of every network.
        """
        outputs: list[Batches] = [[] for _ in networks]
        if not networks:
            return outputs
        throttle = streaming.Throttle(images)
        for batch in self._batches(images, rows):
            for variables, own in zip(networks, outputs, strict=True):
                own.append(self._infer(variables, batch, self._statistics))
            throttle(outputs[-1][-1])
        return outputs

    def view(
        self,
        state: TrainState,
        images: streaming.Images,
        rows: np.ndarray,
        key: jax.Array,
        view: str,
        train: bool,
    ) -> tuple[Batches, TrainState]:
        """Outputs of one network on an augmented view of the images.

        Args:
          state: the network's training state.
          images: what ``streaming.hold`` returned of N images.
          rows: int [n] which of them, in the order in which they are batched.
          key: JAX key of the view; every batch folds its number in.
          view: 'weak', 'strong' or 'none'.
          train: whether every batch is normalised by its own statistics, which
            move the running ones.

        Returns:
          The outputs, and the state after them.
        """
        outputs, throttle = [], streaming.Throttle(images)
        for i, batch in enumerate(self._batches(images, rows, view, key)):
            out, batch_stats = self._infer_view(
                state.variables,
                batch,
                self._statistics,
                jax.random.fold_in(key, i),
                view,
                train,
            )
            outputs.append(throttle(out))
            if train:
                state = replace(state, batch_stats=batch_stats)
        return outputs, state


class _Joined(Mapping[str, np.ndarray]):
    """See ``collect``."""

    def __init__(self, batches: Sequence[Outputs], size: int) -> None:
        self._batches, self._size = batches, size

    def __getitem__(self, head: str) -> np.ndarray:
        whole = np.concatenate([batch[head] for batch in self._batches])
        return whole[: self._size]

    def __iter__(self) -> Iterator[str]:
        return iter(self._batches[0])

    def __len__(self) -> int:
        return len(self._batches[0])


def collect(batches: Sequence[Outputs], size: int) -> Outputs:
    """Joins fetched outputs of ``Inference`` and drops the padding.

    Args:
      batches: a dict of [batch_size, ...] arrays for each batch.
      size: how many rows were asked for.

    Returns:
      Head -> [size, ...] array, a copy that is made when it is read and not
      kept: those of all heads and networks take as much as their batches.
    """
    return _Joined(batches, size)


#: What helps where training made outputs infinite.
SMALLER_STEPS = (
    "training diverged, try a smaller config.optimizer.learning_rate"
)


def require_finite(outputs: PyTree, where: str, way_out: str) -> None:
    """Refuses outputs that no selection or vote can read.

    Args:
      outputs: fetched outputs of ``Inference``, in any containers.
      where: epoch or folder, for the message.
      way_out: what the user can do, for the message.

    Raises:
      UserError: a value is infinite or not a number.
    """
    for path, values in jax.tree_util.tree_leaves_with_path(outputs):
        if not np.isfinite(values).all():
            raise UserError(
                f"{where}: the networks' outputs are not finite "
                f"({path[-1].key}); {way_out}"
            )


def voters(states: Sequence[TrainState]) -> list[PyTree]:
    """Variables of the networks that vote: the averaged ones, if there are."""
    return [(state.average or state).variables for state in states]


class Votes(NamedTuple):
    """What the networks say together.

    Attributes:
      scores: [N, C], means over the voting heads of all networks; the largest
        is the prediction.
      suggested: [N, C] scores behind suggested labels; None where the mean vote
        over training suggests.
    """

    scores: np.ndarray
    suggested: np.ndarray | None


def vote(
    method: Method,
    outputs: Sequence[Sequence[Mapping[str, np.ndarray]]],
    size: int,
    memory: Memory,
) -> Votes:
    """The vote of all networks.

    Args:
      method: how its networks vote.
      outputs: fetched batches of every network.
      size: N.
      memory: host arrays.
    """
    collected: list[Outputs] = [collect(batches, size) for batches in outputs]
    voters = method.num_nets * len(method.vote)
    return Votes(
        method.predict(collected, memory) / voters,
        method.suggest(collected, memory),
    )
