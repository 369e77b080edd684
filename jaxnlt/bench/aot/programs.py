"""The programs of a run for devices that are not there."""

import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding

from jaxnlt import step
from jaxnlt.data import decode, files, imbalance, load, registry, streaming
from jaxnlt.data.records import Benchmark, Dataset, Split
from jaxnlt.infer import Batches, Inference
from jaxnlt.method import PyTree, TrainState
from jaxnlt.runtime import sharding
from jaxnlt.runtime.errors import logger
from jaxnlt.trainer import Trainer

# Images of each class where only the files say how many there are.
_PER_CLASS = 500


class Program(NamedTuple):
    """One program of a run.

    Attributes:
      what: name of the phase, or ``inference``.
      images: rows of the data set that one call takes.
      batch_sizes: of which the number of chips is a divisor.
      chips: that run it.
      state_bytes: what reading and writing the training state takes, and
        reading the other network's variables.
      lowered: what is to be compiled.
    """

    what: str
    images: int
    batch_sizes: Sequence[int]
    chips: int
    state_bytes: int
    lowered: jax.stages.Lowered


def programs(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    devices: Sequence[jax.Device],
) -> Iterator[Program]:
    """The step of every phase that a run enters, then inference.

    ``Trainer`` trains every phase for one step on this machine, where the step
    itself is replaced by one that notes its arguments and inference by random
    numbers; so the shapes are those of a run.

    Args:
      config: the whole configuration.
      dataset: see ``dataset_of``.
      devices: that the programs are for.

    Yields:
      The programs, one for each name of a phase.

    Raises:
      UserError: fields that a run refuses.
    """
    config = config.copy_and_resolve_references()
    config.max_steps = 1
    trainer = Trainer(config, dataset)
    method = trainer.method
    mesh = sharding.make_mesh(method.batch_sizes, devices)
    everywhere = sharding.replicated(mesh)
    inference = Inference(
        trainer.network, method.outputs, config, dataset, mesh
    )
    trainer.infer = _Guesses(trainer)
    if isinstance(trainer.images, streaming.Streamed):
        trainer.images = _Unread(dataset.train.images, trainer.mesh)
    states = trainer.put(trainer.init_states())
    variables = states[0].variables
    memory = trainer.init_memory(states)
    for epoch in range(config.epochs):
        phase = method.phase(epoch)
        if phase.name in trainer.steps:
            continue
        noted = trainer.steps[phase.name] = _Noted()
        # What random outputs make of a selection is no news.
        logger.addFilter(_nothing)
        try:
            pooled = sharding.fetch(trainer.infer_pools(epoch, phase, states))
            states, memory = trainer.enter(epoch, states, memory)
            states, memory, result = trainer.train(
                epoch, phase, states, pooled, memory, lambda *progress: None
            )
        finally:
            logger.removeFilter(_nothing)
        made: Any = step.make_step(trainer.network, phase, config, mesh)
        state, peer, images, standard, streams, *rest = noted.arguments
        yield Program(
            phase.name,
            result.images // method.num_nets,
            method.batch_sizes,
            mesh.devices.size,
            sum(leaf.nbytes for leaf in jax.tree.leaves((state, state, peer))),
            made.lower(
                _abstract(state, everywhere),
                _abstract(peer, everywhere),
                _abstract_images(images, config, mesh),
                _abstract(standard, everywhere),
                _abstract(streams, sharding.batched(mesh)),
                *_abstract(rest, everywhere),
            ),
        )
    shape = (inference.batch_size, *dataset.train.images.shape[1:])
    dtype = np.float32 if dataset.train.has_features else np.uint8
    batch = jax.ShapeDtypeStruct(shape, dtype, sharding=sharding.batched(mesh))
    yield Program(
        "inference",
        inference.batch_size,
        [inference.batch_size],
        mesh.devices.size,
        0,
        inference.lowered(_abstract(variables, everywhere), batch),
    )


def _nothing(record: Any) -> bool:
    del record
    return False


class _Noted:
    """A training step that notes what it is first called with, and no more."""

    def __init__(self) -> None:
        self.arguments: tuple[Any, ...] = ()

    def __call__(self, *arguments: Any) -> tuple[TrainState, dict[str, Any]]:
        self.arguments = self.arguments or arguments
        return arguments[0], {}


class _Guesses(Inference):
    """Inference by random numbers, of the shapes that a trainer's has.

    Args:
      trainer: whose networks are not run.
    """

    def __init__(self, trainer: Trainer) -> None:
        heads, dataset = trainer.method.outputs, trainer.dataset
        super().__init__(
            trainer.network, heads, trainer.config, dataset, trainer.mesh
        )
        self._rng = np.random.default_rng(0)
        shape = (1, *dataset.train.images.shape[1:])
        self._shapes = jax.eval_shape(
            lambda variables, images: trainer.network.apply(
                variables, images, heads
            )[0],
            trainer.network.shapes(shape[1:]),
            jax.ShapeDtypeStruct(shape, trainer.float_dtype),
        )

    def all(
        self,
        networks: Sequence[PyTree],
        images: streaming.Images,
        rows: np.ndarray,
    ) -> list[Batches]:
        """One batch of every network, with all rows."""
        del images
        return [[self._outputs(len(rows))] for _ in networks]

    def view(
        self,
        state: TrainState,
        images: streaming.Images,
        rows: np.ndarray,
        key: jax.Array,
        view: str,
        train: bool,
    ) -> tuple[Batches, TrainState]:
        """The same of one network, which stays as it is."""
        del images, key, view, train
        return [self._outputs(len(rows))], state

    def _outputs(self, size: int) -> dict[str, Any]:
        return {
            head: self._rng.standard_normal((size, *a.shape[1:]), np.float32)
            for head, a in self._shapes.items()
        }


class _Unread(streaming.Streamed):
    """Images on disk that nobody reads: all are black."""

    def read(self, steps: Any) -> Iterator[dict[str, streaming.Read]]:
        for requests in steps:
            yield {name: self._black(r) for name, r in requests.items()}

    def _black(self, request: streaming.Request) -> streaming.Read:
        size = len(request.rows)
        black = jnp.zeros((size, *self._images.shape[1:]), jnp.uint8)
        return streaming.Read((black,) * len(request.views), np.arange(size))


def _abstract(tree: PyTree, where: NamedSharding) -> Any:
    """Shapes and dtypes in the place of arrays."""

    def of(leaf: Any) -> jax.ShapeDtypeStruct:
        kind = jax.typeof(leaf)
        return jax.ShapeDtypeStruct(kind.shape, kind.dtype, sharding=where)

    return jax.tree.map(of, tree)


def _abstract_images(
    images: Any, config: ml_collections.ConfigDict, mesh: Mesh
) -> Any:
    """The training set as ``streaming.hold`` would place it on the mesh."""
    if images is None or not config.data.get("divided", False):
        return _abstract(images, sharding.replicated(mesh))
    devices = mesh.devices.size
    size = -(-len(images) // devices) * devices
    return jax.ShapeDtypeStruct(
        (size, *images.shape[1:]),
        images.dtype,
        sharding=sharding.batched(mesh),
    )


def dataset_of(config: ml_collections.ConfigDict) -> Dataset:
    """The shape of a benchmark's data; its files need not be there.

    Args:
      config: the whole configuration.

    Returns:
      Labels of the long tail that the config asks for, black images that take
      no memory.  Where only the user's files know the shape, these.

    Raises:
      UserError: bad fields, or user's files that cannot be read.
    """
    load.check(config)
    bench = registry.get(config.benchmark)
    if bench.num_classes is None:
        return load.dataset(config)
    labels = _labels(config, bench, bench.num_classes)
    images: Any
    transform = decode.transform_of(config)
    if transform is None:
        assert bench.image_size and bench.channels
        side = bench.image_size
        images = np.broadcast_to(
            np.uint8(0), (len(labels), side, side, bench.channels)
        )
    else:
        paths = np.array([str(row) for row in range(len(labels))])
        absent = files.ImageFiles(pathlib.Path("absent"), paths)
        images = files.CutImages(absent, transform)
    split = Split(images, labels, None, np.arange(len(labels)))
    channels = images.shape[-1]
    return Dataset(
        train=split,
        test=split.take(np.arange(1)),
        class_names=tuple(map(str, range(bench.num_classes))),
        mean=bench.mean or (0.5,) * channels,
        std=bench.std or (0.25,) * channels,
        test_kind="test",
    )


def _labels(
    config: ml_collections.ConfigDict, bench: Benchmark, classes: int
) -> np.ndarray:
    """int32 [N] labels, as many of each class as training would have."""
    largest = config.data.n_max or bench.n_max or _PER_CLASS
    counts = imbalance.class_counts(
        largest, classes, config.data.imb, config.data.imb_type
    )
    return np.repeat(np.arange(classes), counts).astype(np.int32)
