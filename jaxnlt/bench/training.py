"""How fast a method trains on this machine: ``python -m jaxnlt.benchmark``."""

import contextlib
import dataclasses
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import jax
import ml_collections
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxnlt import models
from jaxnlt.bench import command
from jaxnlt.bench.command import Figures
from jaxnlt.bench.torch import compare
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
from jaxnlt.runtime import console, machine
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import EpochResult, Trainer

T = TypeVar("T")

USAGE = """\
usage: python -m jaxnlt.benchmark --config=METHOD[:BENCHMARK[,KEY=VALUE,...]]
           [--repeats=5] [--steps=10] [--samples=N] [--json=FILE]
           [--config.FIELD=VALUE ...]

Prints for every phase of the method compile time and images/s, then images/s
of inference and seconds of the selection.  Where PyTorch is installed, the
same epochs of dasc, dividemix and sfa, and their inference, are timed there in
turn with ours.  Where the benchmark's files are absent, synthetic images of
their shape are trained on.

  --repeats        timings of each side; medians are printed
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
    """Times every phase, inference, every selector, beside PyTorch if present.

    Training goes through ``Trainer.train``, as in a run: all networks, the
    host's share included, selection excluded.

    Args:
      config: as ``get_config`` of a file in configs/ returns it.
      repeats: timings, of ours and of PyTorch in turn; medians are given.
      steps: training steps a network, and inference batches, a timing; fewer
        where an epoch has fewer.
      samples: how many samples the selectors divide; 0 takes the size of the
        training set.

    Returns:
      ``rows``: dicts of ``what``, ``compile_seconds``, median ``seconds``,
      ``images``, ``images_per_second``, ``timings`` (all seconds), and in the
      rows of networks ``ms_per_step`` and ``pytorch``, None or a dict of
      ``layout``, ``losses`` of both sides, ``timings``, median ``seconds``,
      ``ms_per_step``, ``ratio`` (above 1, ours is faster) and ``interval``;
      ``pytorch``: ``version``, ``device``, ``threads`` and ``view``, or only
      ``missing``, the reason why nothing was compared; and what describes
      machine and configuration.

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
        states, rows = trainer.init_states(), []
        lacking, rival = compare.missing(trainer), None
        if not lacking:
            rival = compare.Rival(_weak(trainer), states)
        states = trainer.put(states)
        for epoch, phase in _phases(config, trainer.method):
            strong = rival and rival.ours is not trainer and _strong(phase)
            row, states = _phase(
                trainer,
                epoch,
                phase,
                states,
                repeats,
                steps,
                None if strong else rival,
            )
            rows.append(row)
            if rival and strong:
                phase = rival.ours.method.phase(epoch)
                row, states = _phase(
                    rival.ours, epoch, phase, states, repeats, steps, rival
                )
                rows.append(row | {"what": f"{phase.name}, weak views"})
        rows.append(_inference(trainer, states[0], repeats, steps, rival))
        size = samples or len(dataset.train)
        for epoch, phase in _phases(config, trainer.method):
            if phase.selector is not None:
                rows.append(
                    _selection(trainer, epoch, phase, states[0], repeats, size)
                )
    width, blocks = models.sizes(config.model)
    return {
        "method": config.method,
        "benchmark": config.benchmark,
        "images": origin,
        "load_average": load_average,
        **dataclasses.asdict(machine.here(trainer.mesh.devices.size)),
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
        "pytorch": rival.about if rival else {"missing": lacking},
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


def _strong(phase: Phase) -> bool:
    """Whether a view of the phase is strong."""
    return any("strong" in views for views in phase.views.values())


def _weak(trainer: Trainer) -> Trainer:
    """A trainer whose views are all weak; the same one if its views are.

    PyTorch has no policies for batches, and with Pillow's it would wait.
    """
    augment = trainer.config.augment
    phases = trainer.method.phases()
    if augment.strong == augment.weak or not any(map(_strong, phases)):
        return trainer
    config = trainer.config.copy_and_resolve_references()
    with config.unlocked():
        config.augment.strong = augment.weak
    return Trainer(config, trainer.dataset)


def _in_turn(
    ours: Callable[[], float], beside: compare.Opponent | None, repeats: int
) -> tuple[list[float], Figures | None]:
    """Seconds of our timings, and the figures of PyTorch's between them."""
    own, other = [], []
    for _ in range(repeats):
        own.append(ours())
        if beside:
            other.append(beside.run())
    if not beside:
        return own, None
    return own, {
        **beside.about,
        "timings": other,
        "seconds": statistics.median(other),
        **compare.ratio(own, other),
    }


def _row(
    what: str, compiling: float, timings: Sequence[float], images: int
) -> Figures:
    seconds = statistics.median(timings)
    return {
        "what": what,
        "compile_seconds": compiling,
        "seconds": seconds,
        "timings": list(timings),
        "images": images,
        "images_per_second": images / seconds,
    }


def _network_row(
    what: str,
    first: float,
    share: float,
    timings: Sequence[float],
    images: int,
    steps: int,
    pytorch: Figures | None,
) -> Figures:
    """A row of networks' steps.

    Args:
      what: was timed.
      first: seconds of the first call, which compiled.
      share: how much of a timing's work the first call did.
      timings: seconds.
      images: of a timing.
      steps: of a timing.
      pytorch: its figures.
    """
    seconds = statistics.median(timings)
    row = _row(what, max(first - share * seconds, 0.0), timings, images)
    if pytorch:
        pytorch["ms_per_step"] = 1e3 * pytorch["seconds"] / steps
    return row | {"ms_per_step": 1e3 * seconds / steps, "pytorch": pytorch}


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
    rival: compare.Rival | None,
) -> tuple[Figures, list[TrainState]]:
    """Times training in one phase; also the states after it."""
    states, memory = trainer.enter(epoch, states, trainer.init_memory(states))
    selection = trust_all(trainer.info)
    if phase.selector is not None:
        selection = _half(trainer.info)
        phase = dataclasses.replace(
            phase, selector=_Fixed(selection), pool=None, order="in_turn"
        )
    result: EpochResult

    def once() -> float:
        nonlocal states, result

        def train() -> list[TrainState]:
            nonlocal result
            trained, _, result = trainer.train(
                epoch, phase, states, [[]], memory, lambda *progress: None
            )
            return trained

        states, took = _timed(train)
        return took

    with trainer.config.unlocked():
        trainer.config.max_steps = 1
        first = once()
        terms = result.terms[0]
        jax.block_until_ready(trainer.add(terms, terms))  # compiles it
        trainer.config.max_steps = steps
    beside = None
    if rival:
        beside = rival.phase(epoch, phase, selection, steps)
    timings, pytorch = _in_turn(once, beside, repeats)
    taken = sum(result.steps)
    row = _network_row(
        phase.name,
        first,
        len(result.steps) / taken,  # one step a network
        timings,
        result.images,
        taken,
        pytorch,
    )
    return row, states


def _inference(
    trainer: Trainer,
    state: TrainState,
    repeats: int,
    steps: int,
    rival: compare.Rival | None,
) -> Figures:
    """Times one network's inference."""
    size = trainer.infer.batch_size
    rows = np.arange(steps * size) % len(trainer.dataset.train)

    def infer(some: np.ndarray) -> float:
        return _timed(
            lambda: trainer.infer(state.variables, trainer.images, some)
        )[1]

    first = infer(rows[:size])
    beside = rival.inference(rows.reshape(steps, size)) if rival else None
    timings, pytorch = _in_turn(lambda: infer(rows), beside, repeats)
    return _network_row(
        "inference", first, 1 / steps, timings, steps * size, steps, pytorch
    )


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
    return _row(f"selection for {phase.name}, host", 0.0, times, size)


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
        "{:<28}{:>11}{:>11}{:>11}{:>11}  {}".format(
            *head, "PyTorch ms a step, ratio [95 % interval]"
        ).rstrip(),
        *map(_line, result["rows"]),
    ]
    if result["load_average"][0] > result["cores"] / 2:
        lines.append(
            "the machine was busy: all figures are worse than they could be, "
            "those of PyTorch with several threads most of all"
        )
    return "\n".join([*lines, *_about_pytorch(result)])


def _line(row: Figures) -> str:
    """One row of the table."""
    step_time, pytorch = row.get("ms_per_step"), row.get("pytorch")
    line = f"{row['what']:<28}" + (
        f"{row['compile_seconds']:>11.1f}"
        f"{row['images_per_second']:>11.1f}{step_time:>11.1f}"
        if step_time
        else f"{'':>11}{row['images_per_second']:>11.0f}{'':>11}"
    )
    line += f"{row['seconds']:>11.3f}"
    if pytorch:
        line += f"{pytorch['ms_per_step']:>11.1f}{pytorch['ratio']:>8.2f}"
        if pytorch["interval"]:
            line += " [{:.2f}, {:.2f}]".format(*pytorch["interval"])
    return line


def _about_pytorch(result: Figures) -> list[str]:
    """What was compared, or why nothing was."""
    about = result["pytorch"]
    if "missing" in about:
        return [f"PyTorch: not compared, {about['missing']}"]
    rows = [row for row in result["rows"] if row.get("pytorch")]
    layouts = {row["what"]: row["pytorch"]["layout"] for row in rows}
    lines = [
        f"PyTorch {about['version']} on {about['device']}, {about['threads']} "
        "threads, eager, fused SGD, the faster layout ("
        + ", ".join(f"{what}: {layout}" for what, layout in layouts.items())
        + "); ratio: how many times as fast ours is",
        "compared: the same rows of the same images in memory, every view by "
        f"{about['view']}, both networks in turn; timings of ours and of "
        "PyTorch alternate",
    ]
    for row in rows:
        losses = row["pytorch"].get("losses")
        if losses:
            lines.append(
                f"loss of {row['what']} with equal weights, views and draws: "
                f"{losses['jax']:.6f} here, {losses['torch']:.6f} in PyTorch"
            )
    return lines


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
