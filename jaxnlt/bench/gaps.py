"""How long a device waits for the host: ``python -m jaxnlt.bench.gaps``.

Reads the trace that ``jax.profiler`` writes, in Chrome's trace event format.
"""

import contextlib
import gzip
import json
import pathlib
import re
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxnlt.bench import command
from jaxnlt.bench.command import Figures
from jaxnlt.data import load
from jaxnlt.runtime import console, machine, sharding
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import Trainer

USAGE = """\
usage: python -m jaxnlt.bench.gaps --config=METHOD[:BENCHMARK[,KEY=VALUE,...]]
           [--steps=50] [--json=FILE] [--config.FIELD=VALUE ...]

Profiles training steps of the method's first epoch and of its first selecting
one, after steps that compile, and prints for which share of the time nothing
ran on the device.

  --steps  how many are profiled in each, of all networks together
  --json   file to which the figures are written
"""

# Threads of a trace on which what runs is a device's work.  Others sum it up
# (a whole program, a step) and know no gaps.
_GPU, _TPU = re.compile(r"Stream #"), re.compile(r"XLA Ops$")
_CPU = re.compile(r"tf_XLA")


def measure(config: ml_collections.ConfigDict, steps: int = 50) -> Figures:
    """Profiles training.

    Args:
      config: as ``get_config`` of a file in configs/ returns it.
      steps: profiled in each phase, of all networks together.

    Returns:
      ``device``, ``dtype``, ``batch_size`` and ``phases``: name -> ``steps``
      and the figures of ``gaps``.

    Raises:
      UserError: bad fields or files, or a device that the trace does not show.
    """
    command.check_least({"steps": (steps, 1)})
    config = config.copy_and_resolve_references().unlock()
    trainer = Trainer(config, load.dataset(config))
    method = trainer.method
    selecting = (e for e in range(config.epochs) if method.phase(e).selector)
    states = trainer.put(trainer.init_states())
    phases = {}
    for epoch in dict.fromkeys([0, next(selecting, 0)]):
        phase, memory = method.phase(epoch), trainer.init_memory(states)
        pooled = sharding.fetch(trainer.infer_pools(epoch, phase, states))
        states, memory = trainer.enter(epoch, states, memory)
        with tempfile.TemporaryDirectory() as folder:
            profiler = jax.profiler.trace(folder)
            for most, profiling in (
                (1, contextlib.nullcontext()),  # compiles
                (-(-steps // method.num_nets), profiler),
            ):
                config.max_steps = most
                with profiling:
                    states, memory, result = trainer.train(
                        epoch, phase, states, pooled, memory, lambda *_: None
                    )
                    jax.block_until_ready((states, result.terms))
            found = gaps(read(pathlib.Path(folder)))
        if found is None:
            raise UserError(
                f"bench.gaps: the trace shows no work of {jax.devices()[0]}"
            )
        phases[phase.name] = {"steps": sum(result.steps), **found}
    return {
        "device": machine.here(trainer.mesh.devices.size).device,
        "dtype": config.model.dtype,
        "batch_size": config.batch_size,
        "phases": phases,
    }


def read(folder: pathlib.Path) -> list[dict[str, Any]]:
    """The events of the trace in a folder of ``jax.profiler``.

    Args:
      folder: given to ``jax.profiler.start_trace``.

    Raises:
      UserError: there is not one trace.
    """
    files = sorted(folder.rglob("*.trace.json.gz"))
    if len(files) != 1:
        raise UserError(f"{folder}: holds {len(files)} traces, not one")
    with gzip.open(files[0], "rt", encoding="utf-8") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return events


def gaps(events: Sequence[dict[str, Any]]) -> Figures | None:
    """When nothing ran on the devices, between their first and last work.

    Args:
      events: ``traceEvents``; the names of processes and threads among them.

    Returns:
      ``wall_ms``; ``busy_share``, in which at least one thread of a device
      worked (a mean over devices); ``gap_share``, the rest; ``longest_gap_ms``;
      ``threads``, the names of those looked at; None where the trace has none.
    """
    names: dict[tuple[str, Any, Any], str] = {}
    for event in events:
        if event.get("ph") == "M" and event["name"].endswith("_name"):
            place = event["pid"], event.get("tid")
            if event["name"] == "process_name":
                place = event["pid"], None
            names[(event["name"], *place)] = event["args"]["name"]
    work: dict[Any, list[tuple[float, float]]] = {}
    threads = set()
    for event in events:
        if event.get("ph") != "X":
            continue
        process = names.get(("process_name", event["pid"], None), "")
        thread = names.get(("thread_name", event["pid"], event["tid"]), "")
        if not _works(process, thread):
            continue
        threads.add(thread.partition("/")[0])
        begin = event["ts"]
        work.setdefault(event["pid"], []).append(
            (begin, begin + event.get("dur", 0.0))
        )
    if not work:
        return None
    first = min(begin for spans in work.values() for begin, _ in spans)
    last = max(end for spans in work.values() for _, end in spans)
    idle = [_idle(spans, first, last) for spans in work.values()]
    wall = max(last - first, 1e-9)
    gap_share = float(np.mean([sum(own) for own in idle])) / wall
    return {
        "wall_ms": wall / 1e3,
        "busy_share": 1 - gap_share,
        "gap_share": gap_share,
        "longest_gap_ms": max(max(own) for own in idle) / 1e3,
        "threads": sorted(threads),
    }


def _works(process: str, thread: str) -> bool:
    """Whether a thread of a trace is a device at work."""
    if "/device:GPU" in process:
        return _GPU.match(thread) is not None
    if "/device:TPU" in process:
        return _TPU.match(thread) is not None
    return "CPU" in process and _CPU.match(thread) is not None


def _idle(
    spans: Sequence[tuple[float, float]], first: float, last: float
) -> list[float]:
    """Lengths of the gaps between spans of time, 0 among them."""
    found, until = [0.0], first
    for begin, end in sorted(spans):
        found.append(max(begin - until, 0.0))
        until = max(until, end)
    return [*found, last - until]


def table(result: Figures) -> str:
    """The measurements as text.

    Args:
      result: what ``measure`` returned.

    Returns:
      Lines without a newline at the end.
    """
    lines = [
        f"{result['device']}, {result['dtype']}, batches of "
        f"{result['batch_size']}"
    ]
    for name, found in result["phases"].items():
        lines.append(
            f"{name}: {found['steps']} steps in {found['wall_ms']:.0f} ms, "
            f"nothing ran for {100 * found['gap_share']:.1f} % of it, at most "
            f"{found['longest_gap_ms']:.2f} ms at a time"
        )
    return "\n".join(lines)


def _command(argv: list[str]) -> None:
    config, values = command.read_config(argv, {"steps": 50})
    result = measure(config, values.steps)
    command.show(table(result), result, values.json)


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
