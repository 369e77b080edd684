"""What a run writes down and prints as it goes; one process alone does it."""

import pathlib
import time
from typing import Any

from jaxnlt import data, metrics, outcome, outputs_log
from jaxnlt.data import noise
from jaxnlt.methods import base
from jaxnlt.progress import Progress

# What an unfinished run may not be resumed without.
CONFIG_FILE = "config.json"


class Silent:
    """The journal of a process that leaves it to the lead."""

    def step(self, network: int, step: int, steps: int, images: int) -> None:
        """See `Journal.step`."""

    def outputs(self, method: base.Method, epoch: int, pooled: list) -> None:
        """See `Journal.outputs`."""

    def epoch(self, record: dict[str, Any]) -> None:
        """See `Journal.epoch`."""

    def finish(self, history, scores, suggested, facts) -> dict[str, Any]:
        """See `Journal.finish`; returns nothing."""
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
        config,
        dataset: data.Dataset,
        directory: pathlib.Path,
        resolved: dict[str, Any],
        start: int,
        began: float,
    ):
        self._began = began
        self._config, self._dataset = config, dataset
        self._directory = directory
        metrics.write_json(directory / CONFIG_FILE, resolved)
        metrics.write_json(directory / "dataset.json", _describe(dataset))
        noise.save_noise(directory / "noise.json", dataset.train)
        self._log = metrics.MetricsLog(directory)
        self._records = self._log.truncate(start - 1)
        self._before = sum(r["seconds"] for r in self._records)
        self._progress = Progress(config, dataset, directory, self._records)

    def step(self, network: int, step: int, steps: int, images: int) -> None:
        """Notes that a step was dispatched; see `Progress.step`."""
        self._progress.step(network, step, steps, images)

    def outputs(self, method: base.Method, epoch: int, pooled: list) -> None:
        """Keeps what a selection reads, if asked for; see `outputs_log`."""
        outputs_log.keep(self._directory, method, epoch, pooled)

    def epoch(self, record: dict[str, Any]) -> None:
        """Writes and prints the figures of an epoch."""
        self._log.write(record)
        self._records.append(record)
        self._progress.epoch(record)

    def finish(self, history, scores, suggested, facts) -> dict[str, Any]:
        """Writes what a finished run leaves; see `outcome.write`.

        Args:
          history: [h, N] clean probabilities of the last selections.
          scores: [N, C] mean logits of the vote on the training images.
          suggested: [N, C] scores behind suggested labels.
          facts: for the summary.

        Returns:
          The summary.
        """
        self._log.close()
        return outcome.write(
            *(self._directory, self._config, self._dataset, self._records),
            *(history, scores, suggested),
            {"seconds": self._before + time.time() - self._began, **facts},
        )


def _describe(dataset: data.Dataset) -> dict[str, Any]:
    """What prediction needs to know of the training set, and what it was."""
    return {
        "class_names": dataset.class_names,
        "mean": dataset.mean,
        "std": dataset.std,
        "image_shape": dataset.train.images.shape[1:],
        "given_counts": dataset.given_counts,
        "test_kind": dataset.test_kind,
        "facts": dataset.facts,
    }
