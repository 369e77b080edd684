"""Batches of images that stay on disk, decoded a few steps ahead by threads.

A batch is named by its rows and by numbers that seed its crops; nothing here
remembers where an epoch stands.  That is why a resumed run, or one with
another number of threads, sees the same bytes.  Flips and policies are the
device's: the step receives the crops as it would find them in memory.
"""

import collections
import concurrent.futures
import itertools
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxnlt.data import decode
from jaxnlt.data.files import BadImage
from jaxnlt.data.records import Split
from jaxnlt.runtime import processes, sharding
from jaxnlt.runtime.errors import UserError, logger

# Steps that are decoded, or computed, before the device has caught up: the
# memory they take does not depend on the number of files.
AHEAD = 3


class Want(NamedTuple):
    """One batch to read.

    Attributes:
      rows: int [B].
      views: a crop of every image for each; 'none' is the evaluation's, any
        other a training crop of its own.
      seeds: non-negative integers that nothing else shares.
    """

    rows: np.ndarray
    views: tuple[str, ...]
    seeds: tuple[int, ...]


class Batch(NamedTuple):
    """What became of it.

    Attributes:
      pixels: a view each, uint8 [B, H, W, 3] on the devices, divided over
        them along B.
      source: int [B], the position whose image stands at each; its own but
        where an image of this process cannot be read.
    """

    pixels: tuple[jax.Array, ...]
    source: np.ndarray


class Streamed:
    """A set of images on disk, read in batches.

    Args:
      images: the files and how they are cut.
      options: `on_bad_image` and `workers` of config.data.
      mesh: devices.

    Attributes:
      bad: the files found unreadable since `count_bad` was last called.
      waited: seconds that batches were waited for.
      workers: threads that decode.
    """

    def __init__(self, images: decode.CutImages, options: Any, mesh: Mesh):
        self._images, self._skip = images, options.on_bad_image == "skip"
        self.workers = options.workers or _cores()
        self._mesh, self._sharding = mesh, sharding.batched(mesh)
        self.bad: set[str] = set()
        self.waited = 0.0

    def read(
        self, wanted: Iterable[Mapping[str, Want]]
    ) -> Iterator[dict[str, Batch]]:
        """Reads batch after batch, `AHEAD` of them before they are asked for.

        Args:
          wanted: the streams of every step.

        Yields:
          For each step its streams.

        Raises:
          BadImage: the first in order that cannot be read, unless such
            images are skipped.
          UserError: no image of a batch can be read.
        """
        steps = iter(wanted)
        with concurrent.futures.ThreadPoolExecutor(self.workers) as pool:

            def start(step):
                return {name: self._start(pool, w) for name, w in step.items()}

            begun = collections.deque(
                map(start, itertools.islice(steps, AHEAD))
            )
            try:
                while begun:
                    ready = {
                        name: self._finish(*pending)
                        for name, pending in begun.popleft().items()
                    }
                    begun.extend(map(start, itertools.islice(steps, 1)))
                    yield ready
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, pool, want: Want):
        """Threads fill the host's arrays, an image each.

        Of a batch that is divided over processes, each reads its own rows.
        """
        size = len(want.rows)
        own = sharding.own_rows(self._mesh, size)
        arrays = [
            np.empty((len(own), *self._images.shape[1:]), np.uint8)
            for _ in want.views
        ]
        # All numbers of a batch at once, whoever will use which of them.
        shape = (size, len(want.views), decode.UNIFORMS)
        uniforms = np.random.default_rng(want.seeds).random(shape)

        def fill(place: int) -> None:
            position = own[place]
            cuts = decode.views(
                self._images.files.open(want.rows[position]),
                self._images.transform,
                [
                    None if view == "none" else numbers
                    for view, numbers in zip(
                        want.views, uniforms[position], strict=True
                    )
                ],
            )
            for array, cut in zip(arrays, cuts, strict=True):
                array[place] = cut

        futures = [pool.submit(fill, i) for i in range(len(own))]
        return size, own, arrays, futures

    def _finish(
        self, size: int, own: np.ndarray, arrays: list, futures: list
    ) -> Batch:
        """Waits for a batch, mends it and hands it to the devices."""
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
                    *("%s: %s; skipped", reason.path, reason.reason),
                    extra=processes.OWN,
                )
                self.bad.add(reason.path)
            # The next one that can be read, round the end.
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
        return Batch(tuple(pixels), everywhere)

    def infer(
        self, batches: np.ndarray, view: str, seeds: Sequence[int]
    ) -> Iterator[jax.Array]:
        """One view of every batch, for inference.

        Args:
          batches: int [batches, B] rows.
          view: 'none' is the evaluation's crop.
          seeds: of a training crop.

        Yields:
          uint8 [B, H, W, 3] on the devices.

        Raises:
          UserError: as `read`.
        """
        wanted = (
            {"x": Want(rows, (view,), (*seeds, i))}
            for i, rows in enumerate(batches)
        )
        for step in self.read(wanted):
            yield step["x"].pixels[0]


def _cores() -> int:
    """Cores that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hold(split: Split, config, mesh: Mesh):
    """Makes images ready for the trainer: on the devices, or streamed.

    Args:
      split: whose images are uint8 [N, H, W, C] or `decode.CutImages`.
      config: the whole configuration, `data` of it is read.
      mesh: devices.

    Returns:
      A device array or `Streamed`.

    Raises:
      UserError: images that stay on disk are to be divided over the devices.
    """
    images: Any = split.images
    divided = config.data.get("divided", False)
    if isinstance(images, decode.CutImages):
        if divided:
            raise UserError(
                "config.data.divided: images that stay on disk are on no device"
            )
        return Streamed(images, config.data, mesh)
    if divided:
        return sharding.divide(images, mesh)
    return sharding.put(images, sharding.replicated(mesh))


def count_bad(images) -> int | None:
    """Files found unreadable since the last call.

    Args:
      images: what `hold` returned.

    Returns:
      Their number, None of images in memory.
    """
    if not isinstance(images, Streamed):
        return None
    found = set().union(*processes.everyone(images.bad))
    images.bad.clear()
    return len(found)


def feed(
    images,
    rows: Mapping[str, Mapping[str, np.ndarray]],
    views: Mapping[str, tuple[str, ...]],
    steps: int,
    seeds: tuple[int, ...],
) -> Iterator[dict[str, dict[str, Any]]]:
    """What every step of an epoch takes, as `step.make_step` describes.

    Args:
      images: what `hold` returned.
      rows: [steps, B, ...] arrays of every stream, `index` among them.
      views: of every stream.
      steps: how many are wanted.
      seeds: of this network's epoch.

    Yields:
      For every step and stream its rows; those of streamed images with their
      `pixels`.  Where an image cannot be read, its row is another of the
      batch, the label included.
    """

    def of(i: int, name: str) -> dict[str, Any]:
        return {key: values[i] for key, values in rows[name].items()}

    if not isinstance(images, Streamed):
        for i in range(steps):
            yield {name: of(i, name) for name in rows}
        return
    wanted = (
        {
            name: Want(rows[name]["index"][i], views[name], (*seeds, i, s))
            for s, name in enumerate(sorted(views))
        }
        for i in range(steps)
    )
    for i, read in enumerate(images.read(wanted)):
        yield {
            name: {key: v[batch.source] for key, v in of(i, name).items()}
            | {"pixels": batch.pixels}
            for name, batch in read.items()
        }


def sides(images):
    """What a training step gathers from, and what holds the host back.

    Args:
      images: what `hold` returned.

    Returns:
      The device array, None of streamed images; and their `Throttle`.
    """
    streamed = isinstance(images, Streamed)
    return None if streamed else images, Throttle(images)


class Throttle:
    """Keeps the host from running too far ahead of the devices.

    Every step that is dispatched on streamed images holds its pixels until it
    has run, so `AHEAD` of them may wait.  Of several CPU devices none may: XLA
    lends them as many threads as there are devices, and from its 32nd waiting
    program on it blocks one in launching, so that a collective which needs all
    of them never ends.  Else the host may be ahead as far as it likes.

    Args:
      images: what `hold` returned.
    """

    def __init__(self, images):
        self._ahead: float = math.inf
        if isinstance(images, Streamed):
            self._ahead = AHEAD
        if jax.default_backend() == "cpu" and jax.local_device_count() > 1:
            self._ahead = 0
        self._values: collections.deque = collections.deque()

    def __call__(self, value):
        """Waits for the value of so many calls ago.

        Args:
          value: pytree of device arrays that a step has returned.

        Returns:
          The same.
        """
        if self._ahead < math.inf:
            self._values.append(value)
            if len(self._values) > self._ahead:
                jax.block_until_ready(self._values.popleft())
        return value
