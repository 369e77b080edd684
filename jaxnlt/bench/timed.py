"""A run from its command line, and the CPU seconds of each of its epochs."""

import pathlib
import shlex
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax

from jaxnlt import command_line, train
from jaxnlt.method import Memory, TrainState
from jaxnlt.results import files
from jaxnlt.results.files import Record
from jaxnlt.trainer import Trainer


class Final(NamedTuple):
    """The networks after the last epoch, on the devices.

    Attributes:
      trainer: infers and votes.
      states: of its networks.
      memory: host arrays.
    """

    trainer: Trainer
    states: list[TrainState]
    memory: Memory


class Timed(NamedTuple):
    """What a run leaves.

    Attributes:
      summary: of summary.json.
      epochs: of metrics.jsonl, with ``cpu_seconds`` of the process where this
        call has trained the epoch: from the end of the training before to the
        end of its own, so with the test and the checkpoint of the epoch before.
      final: None where the run had been trained before.
    """

    summary: Record
    epochs: list[Record]
    final: Final | None


def run(arguments: Sequence[str], workdir: pathlib.Path) -> Timed:
    """Trains one run to its end, or goes on with it.

    Args:
      arguments: of jaxnlt.main, without the workdir.
      workdir: of the run.

    Raises:
      UserError: whatever is wrong with them.
    """
    config, _ = command_line.parse(["main", *arguments])
    seconds: list[float] = []
    final: list[Final] = []
    before = time.process_time()

    def observe(
        trainer: Trainer, states: list[TrainState], memory: Memory
    ) -> None:
        nonlocal before
        # The steps have been dispatched; they may not have run.
        jax.block_until_ready(states)
        now = time.process_time()
        seconds.append(now - before)
        final[:] = [Final(trainer, states, memory)]
        before = now

    command = shlex.join(arguments)
    summary = train.run(config, workdir, command, observe=observe, quiet=True)
    epochs = files.read_jsonl(workdir / "metrics.jsonl")
    # A run that went on has measured its last epochs alone.
    for record, spent in zip(epochs[::-1], seconds[::-1], strict=False):
        record["cpu_seconds"] = spent
    return Timed(summary, epochs, final[0] if final else None)
