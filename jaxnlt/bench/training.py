"""How fast a method trains on this machine: `python -m jaxnlt.benchmark`."""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import jax
import ml_collections
import numpy as np
from absl import flags
from jax.experimental.compilation_cache import compilation_cache

from jaxnlt import method as base
from jaxnlt import models, train
from jaxnlt.bench import torch as bench_torch
from jaxnlt.config import base as config_lib
from jaxnlt import command_line
from jaxnlt.data import imbalance, load, registry
from jaxnlt.data.records import Dataset, Split
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import Trainer

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
  --json           writes the figures there, too

  python -m jaxnlt.benchmark --config=configs/dasc.py:cifar10 --steps=2
"""


def measure(
    config: ml_collections.ConfigDict,
    repeats: int = 5,
    steps: int = 10,
    samples: int = 0,
) -> dict[str, Any]:
    """Times every phase, inference, every selector, and PyTorch if present.

    Training goes through `Trainer.train`, as in a run: all networks, the
    host's share included, selection excluded.

    Args:
      config: as `get_config` of a file in configs/ returns it.
      repeats: timings; medians are given.
      steps: training steps a network, and inference batches, a timing; fewer
        where an epoch has fewer.
      samples: how many samples the selectors divide; 0 takes the size of the
        training set.

    Returns:
      JSON-able dict of `rows` (dicts of `what`, `compile_seconds`, `seconds`,
      `images`, `images_per_second`), `pytorch` and facts of the machine.

    Raises:
      UserError: bad fields, or files that the benchmark needs.
    """
    asked = (("repeats", repeats, 1), ("steps", steps, 1))
    for name, value, least in (*asked, ("samples", samples, 0)):
        if value < least:
            raise UserError(f"--{name}: must be at least {least}, is {value}")
    load = [round(value, 2) for value in os.getloadavg()]
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
        "load_average": load,
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
    """A compile time read from a cache would be none."""
    before = jax.config.values["jax_enable_compilation_cache"]
    # JAX asks once whether the cache is on, and remembers until it is reset.
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
        compilation_cache.reset_cache()


def _dataset(config) -> tuple[Dataset, str]:
    """The benchmark, or noise of its shape where its files are absent."""
    load.check(config)
    bench = registry.get(config.benchmark)
    fields = config.data
    try:
        dataset = load.dataset(config)
        return dataset, f"{len(dataset.train)} of {config.benchmark}"
    except UserError as error:
        # Files that were named must be there; others may be stood in for.
        named = fields.path or fields.noise_file or fields.labels_file
        if named or bench.image_size is None:
            raise
        reason = str(error)
    dataset = _synthetic(config, bench)
    size = len(dataset.train)
    return dataset, f"{size} synthetic, for the real are absent ({reason})"


def _synthetic(config, bench: registry.Benchmark) -> Dataset:
    size, channels = bench.image_size, bench.channels
    classes, largest = bench.num_classes, config.data.n_max or bench.n_max
    assert size and channels and classes and largest
    counts = imbalance.class_counts(
        largest, classes, config.data.imb, config.data.imb_type
    )
    labels = np.repeat(np.arange(len(counts)), counts).astype(np.int32)
    images = np.random.default_rng(0).integers(
        *(0, 256, (len(labels), size, size, channels)), dtype=np.uint8
    )
    split = Split(images, labels, labels, np.arange(len(labels)))
    return Dataset(
        train=split,
        test=split.take(np.arange(min(len(labels), 100))),
        class_names=tuple(str(c) for c in range(len(counts))),
        mean=bench.mean or (0.5,) * channels,
        std=bench.std or (0.25,) * channels,
        test_kind="test",
        facts={},
    )


def _phases(config, method: base.Method) -> list[tuple[int, base.Phase]]:
    """Every phase that the run enters, with its first epoch."""
    first: dict[str, tuple[int, base.Phase]] = {}
    for epoch in range(config.epochs):
        phase = method.phase(epoch)
        first.setdefault(phase.name, (epoch, phase))
    return list(first.values())


def _row(what, compiling, seconds, images) -> dict[str, Any]:
    return {
        "what": what,
        "compile_seconds": compiling,
        "seconds": seconds,
        "images": images,
        "images_per_second": images / seconds,
    }


def _timed(call: Callable[[], Any]) -> tuple[Any, float]:
    began = time.perf_counter()
    result = jax.block_until_ready(call())
    return result, time.perf_counter() - began


class _Ready(base.Selector):
    """Stands in for a phase's selector, so that only training is timed."""

    def __init__(self, selection: base.Selection):
        self._selection = selection

    def select(self, outputs, k, data, memory, epoch, rng):
        return self._selection, memory


def _half(info: base.DataInfo) -> base.Selection:
    """Trusts a random half."""
    order = np.random.default_rng(0).permutation(len(info.labels))
    labelled, unlabelled = np.array_split(order, 2)
    return dataclasses.replace(
        base.trust_all(info),
        labelled=np.sort(labelled),
        unlabelled=np.sort(unlabelled),
        counts=np.bincount(info.labels[labelled], minlength=info.num_classes),
        clean_probability=np.full(len(info.labels), 0.5),
    )


def _phase(
    trainer: Trainer, epoch: int, phase: base.Phase, states, repeats, steps
) -> tuple[dict[str, Any], list]:
    memory = trainer.init_memory(states)
    states, memory = trainer.enter(epoch, states, memory)
    if phase.selector is not None:
        ready = _Ready(_half(trainer.info))
        phase = dataclasses.replace(
            phase, selector=ready, pool=None, order="in_turn"
        )

    def train_some(states):
        return trainer.train(
            epoch, phase, states, [[]], memory, lambda *progress: None
        )

    trainer.config.max_steps = 1
    (states, _, facts), first = _timed(partial(train_some, states))
    terms = facts["terms"][0]
    jax.block_until_ready(trainer.add(terms, terms))  # compiles it
    trainer.config.max_steps = steps
    seconds = []
    for _ in range(repeats):
        (states, _, facts), took = _timed(partial(train_some, states))
        seconds.append(took)
    median = statistics.median(seconds)
    # The first call trained for one step a network.
    compiling = first - median * len(facts["steps"]) / sum(facts["steps"])
    row = _row(phase.name, max(compiling, 0.0), median, facts["images"])
    return row | {"ms_per_step": 1e3 * median / sum(facts["steps"])}, states


def _inference(trainer: Trainer, state, repeats, steps) -> dict[str, Any]:
    size = trainer.infer.batch_size

    def infer(batches):
        rows = np.arange(batches * size) % len(trainer.dataset.train)
        return trainer.infer(state, trainer.images, rows)

    _, first = _timed(lambda: infer(1))
    times = [_timed(lambda: infer(steps))[1] for _ in range(repeats)]
    median = statistics.median(times)
    compiling = max(first - median / steps, 0.0)
    row = _row("inference", compiling, median, steps * size)
    return row | {"ms_per_step": 1e3 * median / steps}


def _selection(
    trainer: Trainer, epoch: int, phase: base.Phase, state, repeats, size
) -> dict[str, Any]:
    """One network's selection among random outputs."""
    selector = phase.selector
    assert selector is not None
    rng = np.random.default_rng(0)
    one_batch = trainer.infer(state, trainer.images, np.arange(1))[0]
    outputs = {
        name: rng.standard_normal((size, *one_batch[name].shape[1:])).astype(
            one_batch[name].dtype
        )
        for name in selector.outputs
    }
    info = base.DataInfo(
        np.resize(trainer.info.labels, size), trainer.info.num_classes
    )
    everyone = [outputs] * trainer.method.num_nets
    times = []
    for _ in range(repeats):
        memory = selector.init_memory()
        began = time.perf_counter()
        selector.select(
            *(everyone, 0, info, memory, epoch, np.random.default_rng(0))
        )
        times.append(time.perf_counter() - began)
    median = statistics.median(times)
    return _row(f"selection for {phase.name}, host", 0.0, median, size)


def table(result: dict[str, Any], config) -> str:
    """The measurements as text.

    Args:
      result: what `measure` returned.
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
            "the machine was busy: all is slower than it could be, PyTorch "
            "with several threads most of all"
        )
    if result["pytorch"] is None:
        lines.append("PyTorch: not installed, not compared")
    else:
        lines.append(bench_torch.sentence(result["pytorch"], config))
    return "\n".join(lines)


def write_json(path: str, result: dict[str, Any]) -> None:
    """Writes the measurements; UserError where that is not possible."""
    try:
        pathlib.Path(path).write_text(json.dumps(result, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def read_command(argv: Sequence[str], **integers: int):
    """Reads the command line of a benchmark.

    Args:
      argv: program name and arguments.
      **integers: its own flags and their defaults.

    Returns:
      The run's configuration, and a `FlagValues` of the own flags and `json`.

    Raises:
      UserError: whatever the user can mend.
    """
    values = flags.FlagValues()
    for name, default in integers.items():
        flags.DEFINE_integer(name, default, "", flag_values=values)
    flags.DEFINE_string("json", None, "", flag_values=values)
    known = "|".join((*integers, "json"))
    own, rest = [argv[0]], [argv[0]]
    for text in argv[1:]:
        is_own = re.match(rf"--?({known})(=|$)", text)
        (own if is_own else rest).append(text)
    console.parse_flags(values, own)
    try:
        config, workdir = command_line.parse(rest)
    except config_lib.HelpRequested:
        raise UserError("--config: help is given by jaxnlt.main") from None
    if workdir is not None:
        raise UserError("--workdir: a benchmark leaves nothing")
    return config, values


def _command(argv: list[str]) -> None:
    if console.HELP_FLAGS & set(argv[1:]):
        print(USAGE, end="")
        return
    config, values = read_command(argv, repeats=5, steps=10, samples=0)
    if config.deterministic:
        raise UserError(
            "config.deterministic: set "
            "XLA_FLAGS=--xla_gpu_deterministic_ops=true to measure this"
        )
    result = measure(config, values.repeats, values.steps, values.samples)
    print(table(result, config))
    if values.json is not None:
        write_json(values.json, result)


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status, as `cli.guarded` says.
    """
    return console.guarded(_command, argv, "interrupted")


if __name__ == "__main__":
    sys.exit(main(sys.argv))
