"""How fast a method trains on this machine: ``python -m jaxnlt.benchmark``."""

import contextlib
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, TypeVar

import jax
import ml_collections
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxnlt import models, train
from jaxnlt.bench import command
from jaxnlt.bench import torch as bench_torch
from jaxnlt.bench.command import Figures
from jaxnlt.data import imbalance, load, registry
from jaxnlt.data.records import Benchmark, Dataset, Split
from jaxnlt.method import (
    DataInfo,
    Method,
    Outputs,
    Phase,
    PyTree,
    Selection,
    Selector,
    TrainState,
    trust_all,
)
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import EpochResult, Trainer

T = TypeVar("T")

USAGE = """\
usage: python -m jaxnlt.benchmark --config=METHOD[:BENCHMARK[,KEY=VALUE,...]]
           [--repeats=5] [--steps=10] [--samples=N] [--json=FILE]
           [--config.FIELD=VALUE ...]

Prints for every phase of the method compile time and images/s, then images/s
of inference, seconds of the selection and, where PyTorch is installed, the
speed of the same warm-up step there.  Where the benchmark's files are absent,
synthetic images of their shape are trained on.

  --repeats        timings; medians are printed
  --steps          training steps a network in each; fewer on a slow machine
  --samples        how many samples are divided (default: the training set's)
  --json           file to which the figures are written

  python -m jaxnlt.benchmark --config=configs/dasc.py:cifar10 --steps=2
"""


def measure(
    config: ml_collections.ConfigDict,
    repeats: int = 5,
    steps: int = 10,
    samples: int = 0,
) -> Figures:
    """Times every phase, inference, every selector, and PyTorch if present.

    Training goes through ``Trainer.train``, as in a run: all networks, the
    host's share included, selection excluded.

    Args:
      config: as ``get_config`` of a file in configs/ returns it.
      repeats: timings; medians are given.
      steps: training steps a network, and inference batches, a timing; fewer
        where an epoch has fewer.
      samples: how many samples the selectors divide; 0 takes the size of the
        training set.

    Returns:
      ``rows`` (dicts of ``what``, ``compile_seconds``, ``seconds``, ``images``,
      ``images_per_second``), ``pytorch``, and a description of the machine and
      the configuration.

    Raises:
      UserError: bad fields, or files that the benchmark needs.
    """
    command.check_least(
        {"repeats": (repeats, 1), "steps": (steps, 1), "samples": (samples, 0)}
    )
    load_average = [round(value, 2) for value in os.getloadavg()]
    config = config.copy_and_resolve_references()
    dataset, origin = _dataset(config)
    with _no_compilation_cache():
        trainer = Trainer(config, dataset)
        states = trainer.put(trainer.init_states())
        rows = []
        for epoch, phase in _phases(config, trainer.method):
            row, states = _phase(trainer, epoch, phase, states, repeats, steps)
            rows.append(row)
        rows.append(_inference(trainer, states[0], repeats, steps))
        size = samples or len(dataset.train)
        for epoch, phase in _phases(config, trainer.method):
            if phase.selector is not None:
                rows.append(
                    _selection(trainer, epoch, phase, states[0], repeats, size)
                )
        pytorch = None
        if bench_torch.available():
            pytorch = bench_torch.compare(config, dataset, repeats, steps)
    width, blocks = models.sizes(config.model)
    return {
        "method": config.method,
        "benchmark": config.benchmark,
        "images": origin,
        "device": train.describe_device(trainer.mesh.devices.size),
        "cores": bench_torch.threads(),
        "load_average": load_average,
        "jax": jax.__version__,
        "dtype": config.model.dtype,
        "width": width,
        "blocks": list(blocks),
        "batch_size": config.batch_size,
        "warmup_batch_size": config.warmup_batch_size,
        "eval_batch_size": config.eval_batch_size,
        "networks": trainer.method.num_nets,
        "repeats": repeats,
        "steps": steps,
        "rows": rows,
        "pytorch": pytorch,
    }


@contextlib.contextmanager
def _no_compilation_cache() -> Iterator[None]:
    """Turns off the cache, from which a program comes without compiling."""
    before = jax.config.values["jax_enable_compilation_cache"]
    # JAX asks once whether the cache is on, and remembers until it is reset.
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _dataset(config: ml_collections.ConfigDict) -> tuple[Dataset, str]:
    """The benchmark, or noise of its shape where its files are absent."""
    load.check(config)
    bench = registry.get(config.benchmark)
    fields = config.data
    try:
        dataset = load.dataset(config)
        return dataset, f"{len(dataset.train)} of {config.benchmark}"
    except UserError as error:
        # Files that were named must be there; others may be replaced.
        named = fields.path or fields.noise_file or fields.labels_file
        if named or bench.image_size is None:
            raise
        reason = str(error)
    dataset = _synthetic(config, bench)
    size = len(dataset.train)
    return dataset, f"{size} synthetic, the real ones are absent ({reason})"


def _synthetic(config: ml_collections.ConfigDict, bench: Benchmark) -> Dataset:
    """Random images of a benchmark's shape and class sizes."""
    size, channels = bench.image_size, bench.channels
    classes, largest = bench.num_classes, config.data.n_max or bench.n_max
    assert size and channels and classes and largest
    counts = imbalance.class_counts(
        largest, classes, config.data.imb, config.data.imb_type
    )
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    images = np.random.default_rng(0).integers(
        0, 256, (len(labels), size, size, channels), dtype=np.uint8
    )
    split = Split(images, labels, labels, np.arange(len(labels)))
    return Dataset(
        train=split,
        test=split.take(np.arange(min(len(labels), 100))),
        class_names=tuple(str(c) for c in range(len(counts))),
        mean=bench.mean or (0.5,) * channels,
        std=bench.std or (0.25,) * channels,
        test_kind="test",
    )


def _phases(
    config: ml_collections.ConfigDict, method: Method
) -> list[tuple[int, Phase]]:
    """Every phase that the run enters, with its first epoch."""
    first: dict[str, tuple[int, Phase]] = {}
    for epoch in range(config.epochs):
        phase = method.phase(epoch)
        first.setdefault(phase.name, (epoch, phase))
    return list(first.values())


def _row(what: str, compiling: float, seconds: float, images: int) -> Figures:
    return {
        "what": what,
        "compile_seconds": compiling,
        "seconds": seconds,
        "images": images,
        "images_per_second": images / seconds,
    }


def _timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call returns, and the seconds until its arrays are there."""
    began = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - began


class _Fixed(Selector):
    """Replaces a phase's selector, so that only training is timed."""

    def __init__(self, selection: Selection) -> None:
        super().__init__()
        self._selection = selection

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: PyTree,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, PyTree]:
        """The same selection for every network and epoch."""
        return self._selection, memory


def _half(info: DataInfo) -> Selection:
    """A selection that trusts a random half."""
    order = np.random.default_rng(0).permutation(len(info.labels))
    labelled, unlabelled = np.array_split(order, 2)
    return dataclasses.replace(
        trust_all(info),
        labelled=np.sort(labelled),
        unlabelled=np.sort(unlabelled),
        counts=np.bincount(info.labels[labelled], minlength=info.num_classes),
        clean_probability=np.full(len(info.labels), 0.5),
    )


def _phase(
    trainer: Trainer,
    epoch: int,
    phase: Phase,
    states: list[TrainState],
    repeats: int,
    steps: int,
) -> tuple[Figures, list[TrainState]]:
    """Times training in one phase; also the states after it."""
    states, memory = trainer.enter(epoch, states, trainer.init_memory(states))
    if phase.selector is not None:
        phase = dataclasses.replace(
            phase,
            selector=_Fixed(_half(trainer.info)),
            pool=None,
            order="in_turn",
        )

    def train_some(
        states: list[TrainState],
    ) -> tuple[list[TrainState], EpochResult]:
        states, _, result = trainer.train(
            epoch, phase, states, [[]], memory, lambda *progress: None
        )
        return states, result

    trainer.config.max_steps = 1
    (states, result), first = _timed(partial(train_some, states))
    terms = result.terms[0]
    jax.block_until_ready(trainer.add(terms, terms))  # compiles it
    trainer.config.max_steps = steps
    seconds = []
    for _ in range(repeats):
        (states, result), took = _timed(partial(train_some, states))
        seconds.append(took)
    median = statistics.median(seconds)
    # The first call trained for one step a network.
    taken = sum(result.steps)
    compiling = max(first - median * len(result.steps) / taken, 0.0)
    row = _row(phase.name, compiling, median, result.images)
    return row | {"ms_per_step": 1e3 * median / taken}, states


def _inference(
    trainer: Trainer, state: TrainState, repeats: int, steps: int
) -> Figures:
    """Times one network's inference."""
    size = trainer.infer.batch_size

    def infer(batches: int) -> list[Any]:
        rows = np.arange(batches * size) % len(trainer.dataset.train)
        return trainer.infer(state.variables, trainer.images, rows)

    _, first = _timed(lambda: infer(1))
    times = [_timed(lambda: infer(steps))[1] for _ in range(repeats)]
    median = statistics.median(times)
    compiling = max(first - median / steps, 0.0)
    row = _row("inference", compiling, median, steps * size)
    return row | {"ms_per_step": 1e3 * median / steps}


def _selection(
    trainer: Trainer,
    epoch: int,
    phase: Phase,
    state: TrainState,
    repeats: int,
    size: int,
) -> Figures:
    """Times one network's selection among random outputs."""
    selector = phase.selector
    assert selector is not None
    rng = np.random.default_rng(0)
    batch = trainer.infer(state.variables, trainer.images, np.arange(1))[0]
    outputs = {
        name: rng.standard_normal((size, *batch[name].shape[1:])).astype(
            batch[name].dtype
        )
        for name in selector.outputs
    }
    info = DataInfo(
        np.resize(trainer.info.labels, size), trainer.info.num_classes
    )
    times = []
    for _ in range(repeats):
        memory = selector.init_memory()
        began = time.perf_counter()
        selector.select(
            [outputs] * trainer.method.num_nets,
            0,
            info,
            memory,
            epoch,
            np.random.default_rng(0),
        )
        times.append(time.perf_counter() - began)
    median = statistics.median(times)
    return _row(f"selection for {phase.name}, host", 0.0, median, size)


def table(result: Figures, config: ml_collections.ConfigDict) -> str:
    """The measurements as text.

    Args:
      result: what ``measure`` returned.
      config: what was measured.

    Returns:
      Lines without a newline at the end.
    """
    head = ("", "compile s", "images/s", "ms a step", "seconds")
    lines = [
        f"{result['method']} on {result['benchmark']}; images: "
        f"{result['images']}",
        f"{result['device']}, {result['cores']} cores, load average before: "
        f"{result['load_average'][0]}; jax {result['jax']}, "
        f"{result['dtype']}, width {result['width']}, blocks "
        f"{tuple(result['blocks'])}, batch {result['batch_size']}, warm-up "
        f"{result['warmup_batch_size']}, inference "
        f"{result['eval_batch_size']}; {result['networks']} network(s)",
        f"medians of {result['repeats']} timings of {result['steps']} steps a "
        "network; images/s counts rows of the data set, whatever the views; "
        "inference and selection are those of one network",
        "{:<28}{:>11}{:>11}{:>11}{:>11}".format(*head),
    ]
    for row in result["rows"]:
        step_time = row.get("ms_per_step")
        lines.append(
            f"{row['what']:<28}"
            + (
                f"{row['compile_seconds']:>11.1f}"
                f"{row['images_per_second']:>11.1f}{step_time:>11.1f}"
                if step_time
                else f"{'':>11}{row['images_per_second']:>11.0f}{'':>11}"
            )
            + f"{row['seconds']:>11.3f}"
        )
    if result["load_average"][0] > result["cores"] / 2:
        lines.append(
            "the machine was busy: all figures are worse than they could be, "
            "those of PyTorch with several threads most of all"
        )
    if result["pytorch"] is None:
        lines.append("PyTorch: not installed, not compared")
    else:
        lines.append(bench_torch.sentence(result["pytorch"], config))
    return "\n".join(lines)


def _command(argv: list[str]) -> None:
    config, values = command.read_config(
        argv, {"repeats": 5, "steps": 10, "samples": 0}
    )
    if config.deterministic:
        raise UserError(
            "config.deterministic: set "
            "XLA_FLAGS=--xla_gpu_deterministic_ops=true to measure this"
        )
    result = measure(config, values.repeats, values.steps, values.samples)
    command.show(table(result, config), result, values.json)


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status, see ``console.guarded``.
    """
    return console.guarded(_command, argv, "interrupted", USAGE)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
