"""What a large training set in memory costs: ``python -m jaxnlt.bench.scale``.

The run is that of ``train.run``; its functions are watched from outside.
"""

import contextlib
import functools
import pathlib
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import command_line, selection, train
from jaxnlt.auditing import verdict
from jaxnlt.bench import command
from jaxnlt.bench.command import Figures
from jaxnlt.data import fingerprint, load, streaming
from jaxnlt.infer import Batches, Inference
from jaxnlt.results import journal, metrics, observing
from jaxnlt.results import labels as labels_csv
from jaxnlt.runtime import checkpoint, console, sharding
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import Trainer

USAGE = """\
usage: python -m jaxnlt.bench.scale [--images=1000000] [--classes=100]
           [--features=128] [--size=32] [--width=2] [--steps=2] [--json=FILE]

Writes a file of random images and trains DaSC on it as any run does, with the
images divided over the devices: one epoch of warm-up, one with contrast, one
semi-supervised, each cut to a few steps, but all images selected from, audited
and listed.  Prints the seconds of each stage of the run and the most memory
that the process held in it.  Needs Linux and, in the folder for temporary
files, room for the images.

  --images    N; further 1000 are the test set
  --classes   C, of a long tail; 40 % of the labels are drawn anew
  --features  D, dimensions that DaCC clusters
  --size      pixels of an image's side
  --width     channels of the network's first stage, one block a stage
  --steps     of each network and epoch
  --inferred  batches that the networks compute when all images are inferred;
              outputs of the other images repeat theirs, in memory of their own;
              0 computes all
  --json      file to which the figures are written

XLA_FLAGS=--xla_force_host_platform_device_count=8 makes eight devices of a CPU.
"""

#: Images of the test set.
TESTED = 1000
_STATUS = pathlib.Path("/proc/self/status")
# What is watched, by the stage that it counts to.  Of a function within
# another one the seconds count to its own stage alone.
_STAGES: tuple[tuple[str, Any, str], ...] = (
    ("read", load, "dataset"),
    ("fingerprint", fingerprint, "of_dataset"),
    ("fingerprint", journal, "Journal"),
    ("put on devices", streaming, "hold"),
    ("infer", Trainer, "infer_pools"),
    ("infer", Trainer, "infer_test"),
    ("infer", observing, "infer_audited"),
    ("fetch", sharding, "fetch"),
    ("select", Trainer, "select"),
    ("train", Trainer, "train"),
    ("vote", observing, "observe"),
    ("vote", train, "vote"),
    ("metrics", metrics, "test_record"),
    ("metrics", metrics, "selection_record"),
    ("metrics", metrics, "audit_record"),
    ("checkpoint", checkpoint.Checkpoints, "save"),
    ("checkpoint", checkpoint.Checkpoints, "close"),
    ("verdict", verdict, "of_training"),
    ("labels.csv", labels_csv, "columns"),
    ("labels.csv", labels_csv, "write"),
)


@dataclass
class Stage:
    """What a stage of a run took.

    Attributes:
      seconds: without the stages within it.
      cpu_seconds: of all threads, which another program on the machine does
        not lengthen.
      mib: the most memory that the process held in it.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    mib: float = 0.0


class Stages:
    """Measures what the functions of ``_STAGES`` take while it is entered.

    Attributes:
      found: stage -> what it took; ``rest`` is what is in none.
    """

    def __init__(self) -> None:
        self.found: dict[str, Stage] = {"rest": Stage()}
        self._open, self._since = ["rest"], _clocks()

    def _note(self) -> None:
        """Counts what has passed to the stage that is open."""
        now, stage = _clocks(), self.found[self._open[-1]]
        stage.seconds += now[0] - self._since[0]
        stage.cpu_seconds += now[1] - self._since[1]
        stage.mib = max(stage.mib, _peak())
        self._since = now

    @contextlib.contextmanager
    def within(self, name: str) -> Iterator[None]:
        """Counts what happens in the block to a stage."""
        self._note()
        self.found.setdefault(name, Stage())
        self._open.append(name)
        try:
            yield
        finally:
            self._note()
            self._open.pop()

    @contextlib.contextmanager
    def watched(self) -> Iterator[None]:
        """Watches the functions of ``_STAGES`` in the block."""
        before = [(o, key, getattr(o, key)) for _, o, key in _STAGES]
        try:
            for (name, owner, key), (*_, function) in zip(
                _STAGES, before, strict=True
            ):
                setattr(owner, key, self._watching(name, function))
            yield
            self._note()
        finally:
            for owner, key, function in before:
                setattr(owner, key, function)

    def _watching(self, name: str, function: Any) -> Any:
        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            with self.within(name):
                return function(*args, **kwargs)

        return call


def _clocks() -> tuple[float, float]:
    """Seconds that have passed, and that this process has computed."""
    return time.perf_counter(), time.process_time()


def _peak() -> float:
    """The most MiB held since the last call."""
    (line,) = (
        text
        for text in _STATUS.read_text().splitlines()
        if text.startswith("VmHWM:")
    )
    # 5 forgets the peak, see proc_pid_clear_refs(5).
    _STATUS.with_name("clear_refs").write_text("5")
    return int(line.split()[1]) / 1024


def measure(
    images: int = 1_000_000,
    classes: int = 100,
    features: int = 128,
    size: int = 32,
    width: int = 2,
    steps: int = 2,
    inferred: int = 8,
) -> Figures:
    """Trains on random images and measures every stage of the run.

    Args:
      images: N.
      classes: C.
      features: D.
      size: pixels of an image's side.
      width: channels of the network's first stage.
      steps: of each network and epoch.
      inferred: batches that the networks compute; 0 for all.

    Returns:
      The arguments; ``devices``; ``images_mib``, what the images take once;
      ``outputs_mib``, what one network's outputs take that DaCC reads;
      ``stages``, stage -> ``seconds``, ``cpu_seconds`` and ``mib``;
      ``seconds``, ``cpu_seconds`` and ``peak_mib`` of the whole run;
      ``start_mib``, held before it.

    Raises:
      UserError: a number out of range, or another system than Linux.
    """
    command.check_least(
        {"images": (images, 2 * classes), "classes": (classes, 2)}
        | {"features": (features, 1), "size": (size, 8)}
        | {"width": (width, 1), "steps": (steps, 1)}
        | {"inferred": (inferred, 0)}
    )
    if not _STATUS.with_name("clear_refs").exists():
        raise UserError("bench.scale: reads the memory of stages on Linux only")
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "images.npz"
        _write_images(file, images, classes, size)
        config = command_line.load_config("dasc", "npz,smoke")
        with config.unlocked():
            config.data.update(path=str(file), divided=True)
            config.model.update(width=width, blocks=(1, 1, 1, 1))
            config.dasc.projection_dim = features
            config.augment.strong = "crop_flip"  # compiles sooner
            config.max_steps = steps
        _peak()
        started, stages = _peak(), Stages()

        def observe(trainer: Trainer, *trained: Any) -> None:
            # Called before the first images are inferred.
            del trained
            if inferred and not isinstance(trainer.infer, _Few):
                trainer.infer = _Few(trainer.infer, inferred)

        with stages.watched():
            workdir = pathlib.Path(folder) / "run"
            train.run(config, workdir, observe=observe, quiet=True)
    found = stages.found
    seconds = sum(stage.seconds for stage in found.values())
    cpu_seconds = sum(stage.cpu_seconds for stage in found.values())
    return {
        "images": images,
        "classes": classes,
        "features": features,
        "size": size,
        "width": width,
        "steps": steps,
        "inferred": inferred,
        "devices": jax.device_count(),
        "images_mib": images * size * size * 3 / 2**20,
        "outputs_mib": images * (2 * classes + features) * 4 / 2**20,
        "stages": {name: vars(stage) for name, stage in found.items()},
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mib": max(stage.mib for stage in found.values()),
        "start_mib": started,
    }


class _Few(Inference):
    """Inference of a few batches, whose outputs the other batches repeat.

    Args:
      whole: computes the few.
      computed: how many they are.
    """

    def __init__(self, whole: Inference, computed: int) -> None:
        self.batch_size = whole.batch_size
        self._whole, self._computed = whole, computed

    def all(
        self, networks: Sequence[Any], images: Any, rows: np.ndarray
    ) -> list[Batches]:
        """See ``Inference.all``."""
        some = rows[: self._computed * self.batch_size]
        outputs = self._whole.all(networks, images, some)
        for own in outputs:
            for i in range(self._computed, -(-len(rows) // self.batch_size)):
                copies = jax.tree.map(jnp.copy, own[i % self._computed])
                own.append(jax.block_until_ready(copies))
        return outputs


def _write_images(
    file: pathlib.Path, images: int, classes: int, size: int
) -> None:
    """A file for the benchmark ``npz``, written part by part."""
    rng = np.random.default_rng(0)
    share = 0.1 ** (np.arange(classes) / (classes - 1))
    true = rng.choice(classes, images, p=share / share.sum())
    # Every class has an image.
    true[:classes] = np.arange(classes)
    redrawn = rng.random(images) < 0.4
    redrawn[:classes] = False
    labels = np.where(redrawn, rng.integers(0, classes, images), true)

    def pixels(member: Any, rows: int) -> None:
        header = {"descr": "|u1", "fortran_order": False}
        shape = {"shape": (rows, size, size, 3)}
        np.lib.format.write_array_header_1_0(member, header | shape)
        for part in selection.blocks(rows, 1 << 12):
            number = len(range(*part.indices(rows)))
            member.write(rng.bytes(number * size * size * 3))

    with zipfile.ZipFile(file, "w") as archive:

        def add(name: str, write: Any) -> None:
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                write(member)

        add("train_images", lambda member: pixels(member, images))
        add("test_images", lambda member: pixels(member, TESTED))
        for name, values in (
            ("train_labels", labels),
            ("train_true_labels", true),
            ("test_labels", np.arange(TESTED) % classes),
        ):
            add(name, functools.partial(np.save, arr=values))


def table(result: Figures) -> str:
    """The measurements as text.

    Args:
      result: what ``measure`` returned.

    Returns:
      Lines without a newline at the end.
    """
    whole = result | {"mib": result["peak_mib"]}
    rows = [
        f"{name:<16}{stage['seconds']:>10.1f}{stage['cpu_seconds']:>10.1f}"
        f"{stage['mib']:>10.0f}"
        for name, stage in [*result["stages"].items(), ("all", whole)]
    ]
    return "\n".join(
        [
            f"{result['images']} images of {result['size']} px "
            f"({result['images_mib']:.0f} MiB), {result['classes']} classes, "
            f"{result['features']} features ({result['outputs_mib']:.0f} MiB "
            f"of outputs a network); {result['devices']} devices",
            f"{'stage':<16}{'seconds':>10}{'CPU s':>10}{'MiB':>10}",
            *rows,
            f"held before the run: {result['start_mib']:.0f} MiB",
        ]
    )


def _command(argv: list[str]) -> None:
    flags = {"images": 1_000_000, "classes": 100, "features": 128}
    flags |= {"size": 32, "width": 2, "steps": 2, "inferred": 8}
    values = console.read_flags(argv, {**flags, "json": str})
    result = measure(
        values.images,
        values.classes,
        values.features,
        values.size,
        values.width,
        values.steps,
        values.inferred,
    )
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
