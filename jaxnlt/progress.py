"""What a run prints while it trains."""

import pathlib
import sys
import time
from typing import Any

import tqdm

from jaxnlt import data


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
        config,
        dataset: data.Dataset,
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
        facts = dataset.facts
        rate = facts.get("noise_rate_realised")
        self._further = [
            *(["test_top5"] if dataset.top5 else []),
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
        for name in self._further:
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
