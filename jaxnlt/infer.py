"""TODO."""

from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from jaxnlt import infer as inference
from jaxnlt import method as base
from jaxnlt import models
from jaxnlt.augment import table
from jaxnlt.data import streaming
from jaxnlt.runtime import sharding


class Inference:
    """Outputs of a network on any rows, in batches of one shape.

    Gathering is a program of its own, so that training and test images, of
    different number, share the compiled network.

    Args:
      network: the model.
      heads: what to compute.
      config: `eval_batch_size`, the model's dtype, names of augmentations.
      dataset: mean and standard deviation of its images.
      mesh: devices.
    """

    def __init__(self, network, heads, config, dataset, mesh: Mesh):
        self._mesh, devices = mesh, mesh.devices.size
        self.batch_size = -(-config.eval_batch_size // devices) * devices
        everywhere, rowwise = sharding.replicated(mesh), sharding.batched(mesh)
        dtype = models.DTYPES[config.model.dtype][1]

        def infer(parameters, images):
            images = table.normalise(images, dataset.mean, dataset.std, dtype)
            return network.apply(parameters, images, heads, False)[0]

        def infer_view(parameters, images, key, view, train):
            names = config.augment.to_dict()
            images = table.prepare(images, key, view, dataset, dtype, names)
            apply = network.seeded(jax.random.fold_in(key, 1))
            return apply(parameters, images, heads, train)

        self._take = jax.jit(
            lambda images, index: images[index],
            in_shardings=(None, rowwise),
            out_shardings=rowwise,
        )
        self._infer = jax.jit(
            infer,
            in_shardings=(everywhere, rowwise),
            out_shardings=rowwise,
        )
        self._infer_view = jax.jit(
            infer_view,
            static_argnums=(3, 4),
            in_shardings=(everywhere, rowwise, everywhere),
            out_shardings=(rowwise, everywhere),
        )

    def _batches(self, images, rows: np.ndarray, view="none", key=None):
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

    def __call__(self, state: Mapping, images, rows: np.ndarray) -> list:
        """Eval-mode outputs on the device, a dict a batch, for `collect`.

        Args:
          state: the network's `params` and `batch_stats`.
          images: what `streaming.hold` returned of N images.
          rows: int[n] which of them.

        Returns:
          List of dicts of [batch_size, ...] arrays.
        """
        return self.every([state], images, rows)[0]

    def every(
        self, states: Sequence[Mapping], images, rows: np.ndarray
    ) -> list[list]:
        """What a call returns, for each of several networks.

        Images that lie on disk are read once for all of them.

        Args:
          states: `params` and `batch_stats` of every network.
          images: as a call takes them.
          rows: int[n] which of them.

        Returns:
          A list of outputs for every network.
        """
        outputs: list[list] = [[] for _ in states]
        if not states:
            return outputs
        throttle = streaming.Throttle(images)
        for batch in self._batches(images, rows):
            for state, own in zip(states, outputs, strict=True):
                own.append(self._infer(base.variables(state), batch))
            throttle(outputs[-1][-1])
        return outputs

    def as_trained(
        self,
        state: Mapping,
        images,
        rows: np.ndarray,
        key: jax.Array,
        view: str,
        train: bool,
    ) -> tuple[list, Mapping]:
        """Outputs on a view of the images, in eval or in train mode.

        Args:
          state: the network's training state.
          images: what `streaming.hold` returned of N images.
          rows: int[n] which of them, in the order in which they are batched.
          key: JAX key of the view; every batch folds its number in.
          view: 'weak', 'strong' or 'none'.
          train: whether every batch is normalised by its own statistics, which
            move the running ones.

        Returns:
          Outputs as a plain call returns them, and the state after them.
        """
        outputs, throttle = [], streaming.Throttle(images)
        for i, batch in enumerate(self._batches(images, rows, view, key)):
            out, batch_stats = self._infer_view(
                *(base.variables(state), batch, jax.random.fold_in(key, i)),
                *(view, train),
            )
            outputs.append(throttle(out))
            if train:
                state = {**state, "batch_stats": batch_stats}
        return outputs, state


def collect(batches: list, size: int) -> dict[str, np.ndarray]:
    """Joins fetched outputs of `Inference` and drops the padding.

    Args:
      batches: list of dicts of NumPy arrays.
      size: how many rows were asked for.

    Returns:
      Dict of [size, ...] arrays.
    """
    return {
        name: np.concatenate([batch[name] for batch in batches])[:size]
        for name in batches[0]
    }


def vote(
    method: base.Method, outputs: Sequence[list], size: int, memory: dict
) -> tuple[np.ndarray, np.ndarray]:
    """Scores of the vote and behind suggested labels, from fetched outputs."""
    collected = [inference.collect(batches, size) for batches in outputs]
    return (
        np.asarray(method.predict(collected, memory)),
        np.asarray(method.suggest(collected, memory)),
    )
