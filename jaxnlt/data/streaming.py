"""Batches of images on disk, decoded by threads a few steps ahead.

A batch is determined by its rows and by the numbers that seed its crops;
nothing else is remembered.  A resumed run, or a run with another number of
threads, therefore reads the same pixels.  The host crops; the device mirrors
and applies policies, as it does to images in memory.
"""

import collections
import concurrent.futures
import functools
import itertools
import math
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh

from jaxnlt.data import decode
from jaxnlt.data.decode import BadImage
from jaxnlt.data.files import CutImages
from jaxnlt.data.records import Split
from jaxnlt.runtime import machine, processes, sharding
from jaxnlt.runtime.errors import UserError, logger

#: Steps that are decoded before they are asked for, and steps that are
#: dispatched before the host waits for the device.  It bounds the memory.
AHEAD = 3

Value = TypeVar("Value")


class Request(NamedTuple):
    """One batch to read.

    Attributes:
      rows: int [B], rows of the set of images.
      views: names of the crops of each image; ``none`` is the evaluation's
        crop, every other name a training crop of its own.
      seeds: non-negative integers, different for every batch.
    """

    rows: np.ndarray
    views: tuple[str, ...]
    seeds: tuple[int, ...]


class Read(NamedTuple):
    """What became of one batch.

    Attributes:
      pixels: for each view uint8 [B, H, W, 3] on the devices, divided along
        B; empty where the images are in memory.
      source: int [B], the position in the batch whose image is used at each
        position.  It differs from the position itself where an image cannot
        be read.  None where the images are in memory.
    """

    pixels: tuple[jax.Array, ...]
    source: np.ndarray | None


class _Pending(NamedTuple):
    """A batch that threads are decoding.

    Attributes:
      size: B, rows of the whole batch.
      own: int [b], positions that this process reads.
      arrays: for each view uint8 [b, H, W, 3], filled by the threads.
      futures: one for each position in ``own``.
    """

    size: int
    own: np.ndarray
    arrays: list[np.ndarray]
    futures: list[concurrent.futures.Future]


class Streamed:
    """A set of images on disk, read in batches.

    Args:
      images: the files and how they are cut.
      mesh: devices.
      on_bad_image: ``stop`` or ``skip``, see ``config.data.on_bad_image``.
      workers: threads that decode; 0 starts one for each core.

    Attributes:
      bad: paths of the files found unreadable since the last ``count_bad``.
      waited: seconds spent waiting for batches.
      workers: threads that decode.
    """

    def __init__(
        self,
        images: CutImages,
        mesh: Mesh,
        on_bad_image: str = "stop",
        workers: int = 0,
    ):
        self._images, self._skip = images, on_bad_image == "skip"
        self.workers = workers or machine.cores()
        self._mesh, self._sharding = mesh, sharding.batched(mesh)
        self.bad: set[str] = set()
        self.waited = 0.0

    def read(
        self, steps: Iterable[Mapping[str, Request]]
    ) -> Iterator[dict[str, Read]]:
        """Reads the batches of every step, ``AHEAD`` steps in advance.

        Args:
          steps: for every step a request for each stream.

        Yields:
          For every step the batch of each stream.

        Raises:
          BadImage: the first image in order that cannot be read, unless bad
            images are skipped.
          UserError: no image of a batch can be read.
        """
        wanted = iter(steps)
        with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:

            def start(step: Mapping[str, Request]) -> dict[str, _Pending]:
                return {name: self._start(pool, r) for name, r in step.items()}

            begun = collections.deque(
                map(start, itertools.islice(wanted, AHEAD))
            )
            try:
                while begun:
                    ready = {
                        name: self._finish(pending)
                        for name, pending in begun.popleft().items()
                    }
                    begun.extend(map(start, itertools.islice(wanted, 1)))
                    yield ready
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _start(
        self, pool: concurrent.futures.Executor, request: Request
    ) -> _Pending:
        """Lets threads decode the rows of a batch that this process holds."""
        size = len(request.rows)
        own = sharding.own_rows(self._mesh, size)
        arrays = [
            np.empty((len(own), *self._images.shape[1:]), np.uint8)
            for _ in request.views
        ]
        # Drawn for the whole batch, so that the crops depend neither on the
        # threads nor on the number of processes.
        shape = (size, len(request.views), decode.UNIFORMS)
        uniforms = np.random.default_rng(request.seeds).random(shape)

        def fill(place: int) -> None:
            position = own[place]
            cuts = decode.views(
                self._images.files.picture(request.rows[position]),
                self._images.transform,
                [
                    None if view == "none" else numbers
                    for view, numbers in zip(
                        request.views, uniforms[position], strict=True
                    )
                ],
            )
            for array, cut in zip(arrays, cuts, strict=True):
                array[place] = cut

        futures = [pool.submit(fill, i) for i in range(len(own))]
        return _Pending(size, own, arrays, futures)

    def _finish(self, pending: _Pending) -> Read:
        """Waits for a batch, replaces bad images and puts it on the devices."""
        size, own, arrays, futures = pending
        began = time.perf_counter()
        good: list[int] = []
        bad: list[tuple[int, BadImage]] = []
        for place, future in enumerate(futures):
            try:
                future.result()
                good.append(place)
            except BadImage as error:
                if not self._skip:
                    raise
                bad.append((place, error))
        self.waited += time.perf_counter() - began
        source = np.arange(len(own))
        for place, reason in bad:
            if not good:
                raise UserError(
                    f"{reason}; nor can any other image of its batch be read"
                )
            if reason.path not in self.bad:
                logger.warning(
                    "%s: %s; skipped",
                    reason.path,
                    reason.reason,
                    extra=processes.OWN,
                )
                self.bad.add(reason.path)
            # The next image that can be read; after the last one the first.
            later = [i for i in good if i > place]
            source[place] = (later or good)[0]
        places = [place for place, _ in bad]
        for array in arrays:
            array[places] = array[source[places]]
        everywhere = np.arange(size)
        everywhere[own] = own[source]
        pixels = (
            jax.make_array_from_process_local_data(
                self._sharding, array, (size, *array.shape[1:])
            )
            for array in arrays
        )
        return Read(tuple(pixels), everywhere)

    def readable(self, bad: Collection[str]) -> np.ndarray:
        """Which images are not among the bad ones.

        Args:
          bad: paths as in ``bad``.

        Returns:
          bool [N].
        """
        files = self._images.files
        return np.array([str(files.root / p) not in bad for p in files.paths])

    def infer(
        self, batches: np.ndarray, view: str, seeds: Sequence[int]
    ) -> Iterator[jax.Array]:
        """Reads one view of every batch, for inference.

        Args:
          batches: int [batches, B] rows.
          view: ``none`` for the evaluation's crop.
          seeds: of a training crop; non-negative integers.

        Yields:
          uint8 [B, H, W, 3] on the devices.

        Raises:
          UserError: see ``read``.
        """
        steps = (
            {"x": Request(rows, (view,), (*seeds, i))}
            for i, rows in enumerate(batches)
        )
        for step in self.read(steps):
            yield step["x"].pixels[0]


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["rows"],
    meta_fields=["shape"],
)
@dataclass(frozen=True)
class InMemory:
    """Images or rows of features in memory, of the host or of the devices.

    Attributes:
      rows: [N, H*W*C] or [N, D].  In four axes TPUs would store them with N
        innermost, and turn the whole set around in every step that gathers.
      shape: of one of them, (H, W, C) or (D,).
    """

    rows: Any
    shape: tuple[int, ...]

    @classmethod
    def of(cls, images: np.ndarray) -> "InMemory":
        """Images [N, H, W, C] or rows of features [N, D]."""
        return cls(images.reshape(len(images), -1), images.shape[1:])

    def take(self, index: jax.Array) -> jax.Array:
        """Gathers images [B, ...] by int [B] row numbers; call it under jit."""
        return self.rows[index].reshape(len(index), *self.shape)


#: What ``hold`` returns.
Images = InMemory | Streamed


def hold(split: Split, config: ml_collections.ConfigDict, mesh: Mesh) -> Images:
    """Puts images on the devices, or prepares images on disk for streaming.

    Args:
      split: its images are uint8 [N, H, W, C], rows of features float32
        [N, D], or ``CutImages``.
      config: the whole configuration; only ``config.data`` is read.
      mesh: devices.

    Returns:
      The images or rows in memory, or ``Streamed``.

    Raises:
      UserError: images on disk are to be divided over the devices.
    """
    images: Any = split.images
    divided = config.data.get("divided", False)
    if isinstance(images, CutImages):
        if divided:
            raise UserError(
                "config.data.divided: images on disk are streamed and cannot "
                "be divided over the devices"
            )
        return Streamed(
            images, mesh, config.data.on_bad_image, config.data.workers
        )
    held = InMemory.of(images)
    if divided:
        return replace(held, rows=sharding.divide(held.rows, mesh))
    return replace(
        held, rows=sharding.put(held.rows, sharding.replicated(mesh))
    )


def readable(images: Images) -> np.ndarray | None:
    """Which images could be read since the last ``count_bad``.

    Args:
      images: what ``hold`` returned of N images.

    Returns:
      bool [N], equal on all processes; None where all could.
    """
    if not isinstance(images, Streamed):
        return None
    bad = set().union(*processes.gathered(images.bad))
    return images.readable(bad) if bad else None


def count_bad(images: Images) -> int | None:
    """Counts the files found unreadable since the last call.

    Args:
      images: what ``hold`` returned.

    Returns:
      The number over all processes; None where the images are in memory.
    """
    if not isinstance(images, Streamed):
        return None
    found = set().union(*processes.gathered(images.bad))
    images.bad.clear()
    return len(found)


def feed(
    images: Images,
    index: Mapping[str, np.ndarray],
    views: Mapping[str, tuple[str, ...]],
    steps: int,
    seeds: tuple[int, ...],
) -> Iterator[dict[str, Read]]:
    """Reads the images of every step of an epoch.

    Args:
      images: what ``hold`` returned.
      index: for every stream int [at least ``steps``, B] rows of ``images``.
      views: for every stream the names of its views.
      steps: how many steps are read.
      seeds: non-negative integers, different for every network and epoch.

    Yields:
      For every step the ``Read`` of each stream in ``views``.  Nothing is
      read where the images are in memory.

    Raises:
      UserError: see ``Streamed.read``.
    """
    if not isinstance(images, Streamed):
        for _ in range(steps):
            yield {name: Read((), None) for name in views}
        return
    yield from images.read(
        {
            name: Request(index[name][i], views[name], (*seeds, i, s))
            for s, name in enumerate(sorted(views))
        }
        for i in range(steps)
    )


def sides(images: Images) -> tuple[InMemory | None, "Throttle"]:
    """Splits images into what a step takes and what limits the host.

    Args:
      images: what ``hold`` returned.

    Returns:
      What a training step gathers from, None where images are streamed; and a
      ``Throttle``.
    """
    if isinstance(images, Streamed):
        return None, Throttle(images)
    return images, Throttle(images)


class Throttle:
    """Keeps the host from dispatching too many steps ahead of the devices.

    A dispatched step keeps the pixels of its streamed images until it has
    run, so at most ``AHEAD`` steps may wait.  With several CPU devices no
    step may wait: XLA gives them as many threads as there are devices, and
    from its 32nd waiting program on it blocks a thread in launching, so that
    a collective which needs all threads never ends.  Otherwise there is no
    limit.

    Args:
      images: what ``hold`` returned.
    """

    def __init__(self, images: Images | np.ndarray):
        self._ahead: float = math.inf
        if isinstance(images, Streamed):
            self._ahead = AHEAD
        if jax.default_backend() == "cpu" and jax.local_device_count() > 1:
            self._ahead = 0
        self._values: collections.deque[Any] = collections.deque()

    def __call__(self, value: Value) -> Value:
        """Waits for the value that was given ``AHEAD`` calls ago.

        Args:
          value: pytree of device arrays that a step has returned.

        Returns:
          The same value.
        """
        if self._ahead < math.inf:
            self._values.append(value)
            if len(self._values) > self._ahead:
                jax.block_until_ready(self._values.popleft())
        return value
