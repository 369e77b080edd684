"""What a run writes down and prints as it goes; one process alone does it."""

import json
import os
import pathlib
import sys
import time
from typing import Any

import ml_collections
import numpy as np
import tqdm

from jaxnlt import method as base
from jaxnlt.data import noise
from jaxnlt.data.records import Dataset
from jaxnlt.infer import Votes
from jaxnlt.results import files as result_files
from jaxnlt.results import outputs as outputs_log
from jaxnlt.results import summary as summary_lib
from jaxnlt.runtime import checkpoint

# What an unfinished run may not be resumed without.
CONFIG_FILE = "config.json"
DATASET_FILE = "dataset.json"


class Silent:
    """The journal of a process that leaves it to the lead."""

    def step(self, network: int, step: int, steps: int, images: int) -> None:
        """See `Journal.step`."""

    def outputs(self, method: base.Method, epoch: int, pooled: Any) -> None:
        """See `Journal.outputs`."""

    def epoch(self, record: dict[str, Any]) -> None:
        """See `Journal.epoch`."""

    def finish(
        self, history: np.ndarray, votes: Votes, run: summary_lib.RunInfo
    ) -> dict[str, Any]:
        """See ``Journal.finish``; returns nothing."""
        return {}


class Journal(Silent):
    """The files of a workdir but its checkpoints, and the lines on the screen.

    Args:
      config: the whole configuration.
      dataset: what is trained on.
      directory: the workdir.
      resolved: the configuration as config.json holds it.
      start: the first epoch that will be trained.
      began: when this run began, seconds since 1970.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        dataset: Dataset,
        directory: pathlib.Path,
        resolved: dict[str, Any],
        start: int,
        began: float,
    ):
        self._began = began
        self._config, self._dataset = config, dataset
        self._directory = directory
        result_files.write_json(directory / CONFIG_FILE, resolved)
        result_files.write_json(directory / DATASET_FILE, _describe(dataset))
        noise.save_noise(directory / "noise.json", dataset.train)
        self._log = MetricsLog(directory)
        self._records = self._log.truncate(start - 1)
        self._before = sum(r["seconds"] for r in self._records)
        self._progress = Progress(config, dataset, directory, self._records)

    def step(self, network: int, step: int, steps: int, images: int) -> None:
        """Notes that a step was dispatched; see `Progress.step`."""
        self._progress.step(network, step, steps, images)

    def outputs(self, method: base.Method, epoch: int, pooled: Any) -> None:
        """Keeps what a selection reads, if asked for; see `outputs_log`."""
        outputs_log.keep(self._directory, method, epoch, pooled)

    def epoch(self, record: dict[str, Any]) -> None:
        """Writes and prints the figures of an epoch."""
        self._log.write(record)
        self._records.append(record)
        self._progress.epoch(record)

    def finish(
        self, history: np.ndarray, votes: Votes, run: summary_lib.RunInfo
    ) -> dict[str, Any]:
        """Writes the files of a finished run; see ``summary.write``.

        Args:
          history: float [h, N] clean probabilities of the last selections.
          votes: mean logits of the vote on the training images, and scores
            behind suggested labels.
          run: about the run.

        Returns:
          The summary.
        """
        self._log.close()
        return summary_lib.write(
            self._directory,
            self._config,
            self._dataset,
            self._records,
            history,
            votes,
            run,
            self._before + time.time() - self._began,
        )


def _describe(dataset: Dataset) -> dict[str, Any]:
    """What prediction needs to know of the training set, and what it was."""
    return {
        "layout": checkpoint.LAYOUT,
        "class_names": dataset.class_names,
        "mean": dataset.mean,
        "std": dataset.std,
        "image_shape": dataset.train.images.shape[1:],
        "given_counts": dataset.given_counts,
        "test_kind": dataset.test_kind,
        "facts": dataset.facts,
    }


class MetricsLog:
    """``metrics.jsonl`` and TensorBoard events, one entry an epoch."""

    def __init__(self, workdir: str | pathlib.Path):
        workdir = pathlib.Path(workdir)
        self._path = workdir / "metrics.jsonl"
        self._events_folder = workdir / "events"
        self._events: Any = None

    def truncate(self, epoch: int) -> list[dict[str, Any]]:
        """Cuts the file to the epochs up to ``epoch`` (-1: none).

        Args:
          epoch: the restored epoch, 0-based.

        Returns:
          The records that stay, in order.
        """
        kept = [
            r
            for r in result_files.read_jsonl(self._path)
            if r["epoch"] <= epoch
        ]
        with result_files.atomic(self._path) as file:
            file.writelines(self._line(record) for record in kept)
        return kept

    def write(self, record: dict[str, Any]) -> None:
        """Appends one epoch; on disk when this returns.

        Args:
          record: ``epoch`` and figures; numpy values are converted, numbers
            that JSON lacks become null.
        """
        line = self._line(record)
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._write_events(json.loads(line))

    @staticmethod
    def _line(record: dict[str, Any]) -> str:
        return json.dumps(result_files.plain(record), allow_nan=False) + "\n"

    def _write_events(self, record: dict[str, Any]) -> None:
        epoch = record["epoch"]
        if self._events is None:
            from tensorboardX import SummaryWriter

            # purge_step hides what an interrupted run wrote past this epoch.
            self._events = SummaryWriter(
                str(self._events_folder), purge_step=epoch
            )
        for name, value in record.items():
            number = isinstance(value, int | float)
            if number and not isinstance(value, bool) and name != "epoch":
                self._events.add_scalar(name, value, epoch)
        self._events.flush()

    def close(self) -> None:
        """Closes the events file."""
        if self._events is not None:
            self._events.close()
            self._events = None


class Progress:
    """A bar of steps within an epoch, then one line of figures.

    Args:
      config: the whole configuration.
      dataset: what is trained on.
      directory: the workdir.
      records: epochs done before, as in metrics.jsonl.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        dataset: Dataset,
        directory: pathlib.Path,
        records: list[dict[str, Any]],
    ):
        self._epochs = config.epochs
        self._best = max(
            (r["test_accuracy"] for r in records if "test_accuracy" in r),
            default=0.0,
        )
        self._seconds: list[float] = []
        self._bar: tqdm.tqdm | None = None
        self._started = 0.0
        self._kind = dataset.test_kind
        options = config[config.method].to_dict()
        rate = dataset.facts.get("noise_rate_realised")
        self._more = [
            *(("test_top5",) if dataset.top5 else ()),
            *dataset.more_tests,
        ]
        sizes = [(self._kind, len(dataset.test))]
        sizes += [(name, len(s)) for name, s in dataset.more_tests.items()]
        lines = [
            f"{config.method} on {config.benchmark}: {len(dataset.train)} "
            f"training images, {dataset.num_classes} classes, "
            + ", ".join(f"{size} {name} images" for name, size in sizes),
            f"given labels a class: {dataset.given_counts.tolist()}"
            if dataset.num_classes <= 20
            else "given labels a class: "
            f"{dataset.given_counts.max()} to {dataset.given_counts.min()}",
            ""
            if rate is None
            else f"labels really wrong: {100 * rate:.1f} % "
            f"(noise {config.data.noise} {config.data.rate:g})",
            ", ".join(f"{key} {value}" for key, value in options.items()),
            f"workdir: {directory}",
        ]
        print("\n".join(line for line in lines if line), flush=True)

    def step(self, network: int, step: int, steps: int, images: int) -> None:
        """Moves the bar; `images` were dispatched for this network so far."""
        if step == 1:
            self._started = time.time()
            self._close()
            self._bar = tqdm.tqdm(
                total=steps,
                desc=f"network {network}",
                unit="step",
                leave=False,
                file=sys.stderr,
                disable=not sys.stderr.isatty(),
            )
        if self._bar is not None:
            speed = images / max(time.time() - self._started, 1e-9)
            self._bar.set_postfix_str(f"{speed:.0f} images/s", refresh=False)
            self._bar.update()

    def epoch(self, record: dict[str, Any]) -> None:
        """Prints one epoch's figures and the time left."""
        self._close()
        self._seconds.append(record["seconds"])
        recent = self._seconds[-3:]
        left = self._epochs - record["epoch"] - 1
        parts = [
            f"epoch {record['epoch'] + 1:3d}/{self._epochs}",
            f"{record['phase']:<15s}",
            f"loss {record['loss']:7.3f}",
        ]
        if "test_accuracy" in record:
            accuracy = record["test_accuracy"]
            self._best = max(self._best, accuracy)
            parts += [
                f"{self._kind} {100 * accuracy:5.1f} %",
                f"best {100 * self._best:5.1f} %",
            ]
        for name in self._more:
            if (value := record.get(f"{name}_accuracy")) is not None:
                title = "top-5" if name == "test_top5" else name
                parts.append(f"{title} {100 * value:5.1f} %")
        if record.get("clean_precision") is not None:
            parts.append(f"clean prec {100 * record['clean_precision']:5.1f} %")
        if record.get("clean_recall") is not None:
            parts.append(f"rec {100 * record['clean_recall']:5.1f} %")
        parts += [
            f"{record['images_per_second']:6.0f} images/s",
            f"{_clock(left * sum(recent) / len(recent))} left",
        ]
        print("  ".join(parts), flush=True)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"
