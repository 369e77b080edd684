"""What a run writes and prints; one process alone does it."""

import dataclasses
import json
import os
import pathlib
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
import tqdm

from jaxnlt.auditing import planting
from jaxnlt.auditing.probabilities import Probabilities
from jaxnlt.auditing.verdict import Audit
from jaxnlt.config import base as config_lib
from jaxnlt.config import modules
from jaxnlt.data import fingerprint, noise
from jaxnlt.data.fingerprint import Fingerprint
from jaxnlt.data.records import HELD_OUT, Dataset
from jaxnlt.method import Method
from jaxnlt.results import files as result_files
from jaxnlt.results import labels as labels_csv
from jaxnlt.results import metrics, pred_probs, report, writers
from jaxnlt.results import outputs as outputs_log
from jaxnlt.results import summary as summary_lib
from jaxnlt.results.files import Record
from jaxnlt.runtime import checkpoint, console
from jaxnlt.runtime.errors import UserError, logger
from jaxnlt.runtime.files import atomic, check_kind, naming
from jaxnlt.trainer import FetchedPools

#: Files that a run writes at its start; the config comes last.
CONFIG_FILE = "config.json"
DATASET_FILE = "dataset.json"
FINGERPRINT_FILE = "fingerprint.json"
NOISE_FILE = "noise.json"
AUDIT_FILE = "audit.json"
# What else a run writes besides its checkpoints.
_MORE_FILES = (
    FINGERPRINT_FILE,
    NOISE_FILE,
    "metrics.jsonl",
    AUDIT_FILE,
    "labels.csv",
    "report.html",
    pred_probs.LABELS_FILE,
    pred_probs.PRED_PROBS_FILE,
    pred_probs.LEFT_OUT_FILE,
)
#: Holds a workdir for each fold that is left out.
FOLDS_FOLDER = "folds"
_FOLDERS = ("checkpoints", "events", outputs_log.FOLDER, FOLDS_FOLDER)


def check_places(directory: pathlib.Path) -> None:
    """Refuses a workdir in which something else stands in a file's place.

    Args:
      directory: the workdir, may be absent.

    Raises:
      UserError: a folder or a pipe in the place of a file, or the reverse.
    """
    names = (CONFIG_FILE, DATASET_FILE, *_MORE_FILES, summary_lib.FILE)
    for name in names:
        check_kind(directory / name)
    for name in _FOLDERS:
        check_kind(directory / name, folder=True)


class Silent:
    """Writes and prints nothing: the journal of all processes but the first.

    Attributes:
      records: of the epochs that are done, as in metrics.jsonl.
    """

    def __init__(self) -> None:
        self.records: list[Record] = []

    def step(self, network: int, step: int, steps: int, images: int) -> None:
        """See ``Journal.step``."""

    def outputs(self, method: Method, epoch: int, pooled: FetchedPools) -> None:
        """See ``Journal.outputs``."""

    def epoch(self, record: Record) -> None:
        """See ``Journal.epoch``."""

    def finish(
        self,
        audits: Mapping[str, Audit],
        probs: Mapping[str, Probabilities],
        run: summary_lib.RunInfo,
    ) -> Record:
        """See ``Journal.finish``; returns nothing."""
        del audits, probs, run
        return {}


class Journal(Silent):
    """The files of a workdir but its checkpoints, and the lines on the screen.

    Args:
      config: the whole configuration.
      dataset: the data of the run.
      data: their fingerprint.
      directory: the workdir.
      resolved: the configuration as config.json holds it.
      start: the first epoch that will be trained.
      began: when this run began, seconds since 1970.
      sealed: records of the epochs before, from the checkpoint; None where it
        has none.
      quiet: prints nothing.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        dataset: Dataset,
        data: Fingerprint,
        directory: pathlib.Path,
        resolved: dict[str, Any],
        start: int,
        began: float,
        sealed: list[Record] | None,
        quiet: bool = False,
    ) -> None:
        self._began = began
        self._config, self._dataset = config, dataset
        self._directory = directory
        # Their rows may be millions: in one line each, by the fast encoder.
        for name, content in (
            (FINGERPRINT_FILE, data.as_json()),
            (NOISE_FILE, noise.as_json(dataset.as_given)),
        ):
            result_files.write_json(directory / name, content, indent=None)
        facts = _describe(dataset) | {"fingerprint": data.sha256}
        result_files.write_json(directory / DATASET_FILE, facts)
        # The last: with it, a folder holds a run.
        result_files.write_json(directory / CONFIG_FILE, resolved)
        self._log = MetricsLog(directory)
        self.records = self._log.truncate(start - 1, sealed)
        self._writers = writers.Writers(config, directory)
        self._seconds_before = sum(r["seconds"] for r in self.records)
        self._progress: Silent | Progress = Silent()
        if not quiet:
            self._progress = Progress(config, dataset, directory, self.records)

    def step(self, network: int, step: int, steps: int, images: int) -> None:
        """Notes that a step was dispatched; see ``Progress.step``."""
        self._progress.step(network, step, steps, images)

    def outputs(self, method: Method, epoch: int, pooled: FetchedPools) -> None:
        """Logs what a selection reads, if the config asks for it."""
        outputs_log.write(self._directory, method, epoch, pooled)

    def epoch(self, record: Record) -> None:
        """Writes and prints the figures of an epoch."""
        self._log.write(record)
        self._writers.write(record)
        self.records.append(record)
        self._progress.epoch(record)

    def finish(
        self,
        audits: Mapping[str, Audit],
        probs: Mapping[str, Probabilities],
        run: summary_lib.RunInfo,
    ) -> Record:
        """Writes the files of a finished run; the summary comes last.

        Args:
          audits: of the labels of each set in ``dataset.audited``.
          probs: float [n, C] mean probabilities behind them, NaN for images
            that cannot be read.
          run: about the run.

        Returns:
          The summary.
        """
        self._writers.close()
        audit = audits["train"]
        # Of the others nothing is known.
        seen = np.flatnonzero(audit.readable)
        readable, dataset = audit.take(seen), self._dataset.as_given
        if len(seen) < len(audit):
            train = dataset.train.take(seen)
            dataset = dataclasses.replace(dataset, train=train)
        facts = metrics.audit_record(
            readable,
            dataset.train.labels,
            labels_csv.known_truth(dataset.train),
            dataset.num_classes,
        )
        trained_on = self._dataset.train.labels
        made = trained_on[seen] != dataset.train.labels
        if made.any():
            facts |= metrics.probe_record(
                planting.probed(trained_on[seen], probs["train"][seen], made)
            )
        seconds = self._seconds_before + time.time() - self._began
        summary = summary_lib.sealed(
            summary_lib.summarise(
                self._config, dataset, self.records, run, seconds, facts
            )
        )
        if fold := self._config.audit.fold:
            pred_probs.write_left_out(
                self._directory,
                self._dataset,
                fold,
                probs[HELD_OUT][:],
                probs["train"][:],
            )
        self._write_labels(audits)
        result_files.write_json(
            self._directory / AUDIT_FILE,
            {"class_names": dataset.class_names, **facts},
        )
        report.write_report(
            self._directory / "report.html",
            dataset,
            config_lib.as_json(self._config),
            self.records,
            summary,
            readable,
        )
        # The last: with it, a run is complete.
        result_files.write_json(self._directory / summary_lib.FILE, summary)
        return summary

    def _write_labels(self, audits: Mapping[str, Audit]) -> None:
        """Writes labels.csv, held-out and unreadable images among them."""
        dataset, held_out = self._dataset.as_given, None
        if HELD_OUT in audits:
            held_out = (dataset.test, audits[HELD_OUT])
        listed, audit = labels_csv.with_unreadable(
            dataset.train, audits["train"], dataset.unreadable
        )
        names = dataset.class_names
        table = labels_csv.columns(listed, names, audit, held_out)
        labels_csv.write(self._directory / "labels.csv", table)


def data_changed(directory: pathlib.Path, data: Fingerprint) -> str:
    """What has changed of the data since a run began.

    Args:
      directory: the workdir.
      data: fingerprint of the data as they are now.

    Returns:
      In words; '' where nothing has, or where the folder holds no run.
    """
    facts = result_files.read_json(directory / DATASET_FILE)
    config = result_files.read_json(directory / CONFIG_FILE)
    if config is None or facts is None:
        return ""
    known = facts.get("fingerprint")
    if known == data.sha256:
        return ""
    rows = result_files.read_json(directory / FINGERPRINT_FILE)
    old = fingerprint.from_json(rows)
    if old is None or old.sha256 != known:
        return f"{FINGERPRINT_FILE} is damaged and cannot tell what changed"
    return fingerprint.difference(old, data)


def _describe(dataset: Dataset) -> Record:
    """The content of dataset.json: what prediction needs, and the origin."""
    return {
        "layout": checkpoint.LAYOUT,
        "class_names": dataset.class_names,
        "mean": dataset.mean,
        "std": dataset.std,
        "image_shape": dataset.train.images.shape[1:],
        "given_counts": dataset.given_counts,
        "test_kind": dataset.test_kind,
        "facts": dataset.description.as_json(),
    }


class MetricsLog:
    """metrics.jsonl, one object for each epoch, counted from 0.

    Args:
      workdir: the run's folder.
    """

    def __init__(self, workdir: str | pathlib.Path) -> None:
        self._path = pathlib.Path(workdir) / "metrics.jsonl"

    def truncate(
        self, epoch: int, sealed: list[Record] | None = None
    ) -> list[Record]:
        """Cuts the file to the epochs up to ``epoch`` and mends it.

        Args:
          epoch: the restored epoch, 0-based; -1 for none.
          sealed: what the file must hold then; None believes the file.

        Returns:
          The records that stay, in order.

        Raises:
          UserError: the file is not what was written, and nothing mends it.
        """
        problem, found = "its epochs differ from the checkpoint's", []
        try:
            found = result_files.read_jsonl(self._path)
            last = max((int(r["epoch"]) for r in found), default=-1)
            kept = [r for r in found if r["epoch"] <= epoch]
        except (UserError, KeyError, TypeError, ValueError) as error:
            if sealed is None:
                raise UserError(
                    f"{self._path}: an epoch is missing or damaged; start anew "
                    "in another --workdir"
                ) from error
            problem = "it is damaged"
            last, kept = -1, []
        if sealed is None:
            sealed = kept
        if kept != sealed:
            logger.warning(
                "%s: %s; its %d epochs are written again from there",
                self._path,
                problem,
                len(sealed),
            )
        if last > epoch:
            logger.info(
                "%s: %d epochs whose checkpoints are missing are trained again",
                self._path,
                last - epoch,
            )
        with atomic(self._path) as file:
            file.writelines(self._line(record) for record in sealed)
        return sealed

    def write(self, record: Record) -> None:
        """Appends one epoch; it is on disk when this returns.

        Args:
          record: ``epoch`` and figures; numpy values are converted, numbers
            that JSON lacks become null.
        """
        line = self._line(record)
        with (
            naming(self._path),
            open(self._path, "a", encoding="utf-8") as file,
        ):
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    @staticmethod
    def _line(record: Record) -> str:
        return json.dumps(result_files.plain(record), allow_nan=False) + "\n"


class Progress:
    """A bar of steps within an epoch, then one line of figures.

    Args:
      config: the whole configuration.
      dataset: the data of the run.
      directory: the workdir.
      records: epochs done before, as in metrics.jsonl.
    """

    def __init__(
        self,
        config: ml_collections.ConfigDict,
        dataset: Dataset,
        directory: pathlib.Path,
        records: Sequence[Record],
    ) -> None:
        self._epochs = config.epochs
        self._best = max(
            (r["test_accuracy"] for r in records if "test_accuracy" in r),
            default=0.0,
        )
        self._seconds: list[float] = []
        self._bar: tqdm.tqdm | None = None
        self._started = 0.0
        self._test_kind = dataset.test_kind
        # Accuracies in an epoch's line besides that of the test set.
        self._more_names = ["test_top5"] if dataset.top5 else []
        self._more_names += dataset.more_tests
        console.echo("\n".join(_header(config, dataset, directory)))

    def step(self, network: int, step: int, steps: int, images: int) -> None:
        """Moves the bar.

        Args:
          network: its number.
          step: that was dispatched, from 1.
          steps: of this network in this epoch.
          images: that these steps have taken so far.
        """
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

    def epoch(self, record: Record) -> None:
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
                f"{self._test_kind} {100 * accuracy:5.1f} %",
                f"best {100 * self._best:5.1f} %",
            ]
        for name in self._more_names:
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
        console.echo("  ".join(parts))

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _header(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    directory: pathlib.Path,
) -> list[str]:
    """The lines before the first epoch."""
    sizes = [(dataset.test_kind, len(dataset.test))]
    sizes += [(name, len(split)) for name, split in dataset.more_tests.items()]
    what = "rows" if dataset.train.has_features else "images"
    tests = ", ".join(f"{size} {name} {what}" for name, size in sizes)
    counts = dataset.given_counts
    largest_to_smallest = f"{counts.max()} to {counts.min()}"
    lines = [
        f"{config.method} on {config.benchmark}: {len(dataset.train)} training "
        f"{what}, {dataset.num_classes} classes, {tests}",
        "given labels a class: "
        f"{counts.tolist() if len(counts) <= 20 else largest_to_smallest}",
    ]
    about = dataset.description
    if about.noise_rate_realised is not None:
        asked = about.noise_rate_asked
        rate = "" if asked is None else f" {asked:g}"
        lines.append(
            f"labels really wrong: {100 * about.noise_rate_realised:.1f} % "
            f"(noise {about.noise}{rate})"
        )
    options = config[modules.options_group(config.method)].to_dict()
    if options:
        text = ", ".join(f"{key} {value}" for key, value in options.items())
        lines.append(text)
    return [*lines, f"workdir: {directory}"]


def _clock(seconds: float) -> str:
    """A duration as [hours:]minutes:seconds."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}"
