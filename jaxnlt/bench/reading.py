"""How fast images are read from disk: ``python -m jaxnlt.bench.reading``."""

import sys
import time
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np

from jaxnlt.bench import command
from jaxnlt.bench.command import Figures
from jaxnlt.bench.torch import loader
from jaxnlt.data import files, load, streaming
from jaxnlt.data.records import Dataset
from jaxnlt.runtime import console, sharding
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import Trainer

USAGE = """\
usage: python -m jaxnlt.bench.reading --config=METHOD:BENCHMARK[,...]
           --config.data.path=DIR [--batches=50] [--steps=20] [--json=FILE]
           [--config.FIELD=VALUE ...]

For a benchmark whose images are streamed from disk: images/s of decoding,
resizing and cropping for training, beside PyTorch's DataLoader with Pillow on
the same files where PyTorch is installed; the share of a training step that
waits for images, in the method's first phase; and the process's peak memory.

  --batches   how many are decoded, of config.warmup_batch_size images
  --steps     training steps after the one that compiles; 0 trains nothing
  --json      file to which the figures are written
"""


def measure(
    config: ml_collections.ConfigDict, batches: int = 50, steps: int = 20
) -> Figures:
    """Times reading alone, then reading and training.

    Args:
      config: as ``get_config`` of a file in configs/ returns it.
      batches: how many are read, two at least.
      steps: of training, after the one that compiles; 0 trains nothing.

    Returns:
      ``images_per_second``, ``torch_images_per_second`` (None without PyTorch),
      ``waiting_share`` of training and ``ms_per_step`` (None without training),
      ``peak_mib`` of the process, ``workers``, ``batch_size``, ``files``.

    Raises:
      UserError: bad fields or files, or a benchmark whose images are in memory.
    """
    command.check_least({"batches": (batches, 2), "steps": (steps, 0)})
    dataset = load.dataset(config)
    images = dataset.train.images
    if not isinstance(images, files.CutImages):
        raise UserError(
            f"config.benchmark: {config.benchmark} is held in memory"
        )
    size = config.warmup_batch_size
    order = np.random.default_rng(0).permutation(len(images))
    rows = np.resize(order, (batches, size))
    mesh = sharding.make_mesh([size])
    streamed = streaming.Streamed(
        images, mesh, config.data.on_bad_image, config.data.workers
    )
    began = time.perf_counter()
    for batch in streamed.infer(rows, "weak", (0,)):
        jax.block_until_ready(batch)
    reading = time.perf_counter() - began
    result: Figures = {
        "files": len(images),
        "batch_size": size,
        "workers": streamed.workers,
        "images_per_second": rows.size / reading,
        "torch_images_per_second": None,
        "waiting_share": None,
        "ms_per_step": None,
    }
    if steps:
        result |= _training(config, dataset, steps)
    # Before PyTorch, which takes memory of its own.
    result["peak_mib"] = command.peak_mib()
    if command.has_torch():
        result["torch_images_per_second"] = loader.reading(
            images, rows, streamed.workers
        )
    return result


def _training(
    config: ml_collections.ConfigDict, dataset: Dataset, steps: int
) -> Figures:
    """Milliseconds of a step in training, and the share of waiting in it."""
    config = config.copy_and_resolve_references().unlock()
    trainer = Trainer(config, dataset)
    assert isinstance(trainer.images, streaming.Streamed)
    phase, states = trainer.method.phase(0), trainer.put(trainer.init_states())
    memory = trainer.init_memory(states)
    pooled = sharding.fetch(trainer.infer_pools(0, phase, states))
    states, memory = trainer.enter(0, states, memory)
    figures: Figures = {}
    for config.max_steps in (1, steps):  # the first call compiles
        trainer.images.waited, began = 0.0, time.perf_counter()
        states, _, result = trainer.train(
            0, phase, states, pooled, memory, lambda *progress: None
        )
        jax.block_until_ready(states)
        seconds = time.perf_counter() - began
        figures = {
            "waiting_share": trainer.images.waited / seconds,
            "ms_per_step": 1e3 * seconds / sum(result.steps),
        }
    return figures


def table(result: Figures) -> str:
    """The measurements as text.

    Args:
      result: what ``measure`` returned.

    Returns:
      Lines without a newline at the end.
    """
    lines = [
        f"{result['files']} files, batches of {result['batch_size']}, "
        f"{result['workers']} threads",
        f"decode and crop: {result['images_per_second']:.1f} images/s",
    ]
    theirs = result["torch_images_per_second"]
    if theirs is None:
        lines.append("PyTorch: not installed, not compared")
    else:
        lines.append(
            f"PyTorch's DataLoader with Pillow: {theirs:.1f} images/s, ours "
            f"{result['images_per_second'] / theirs:.2f} times as many"
        )
    if result["waiting_share"] is not None:
        lines.append(
            f"training: {result['ms_per_step']:.1f} ms a step, "
            f"{100 * result['waiting_share']:.1f} % of it waiting for images"
        )
    lines.append(f"peak memory of the process: {result['peak_mib']:.0f} MiB")
    return "\n".join(lines)


def _command(argv: list[str]) -> None:
    config, values = command.read_config(argv, {"batches": 50, "steps": 20})
    result = measure(config, values.batches, values.steps)
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
