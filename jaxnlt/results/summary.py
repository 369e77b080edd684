"""summary.json and its table."""

import dataclasses
import json
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxnlt.config import base as config_lib
from jaxnlt.config import fields, modules
from jaxnlt.config.fields import NotNegative, Share
from jaxnlt.data.records import VALIDATION, Dataset
from jaxnlt.results.files import Record, plain, read_json
from jaxnlt.runtime import checkpoint
from jaxnlt.runtime.errors import UserError, logger

#: Name of the file, the last that a run writes.
FILE = "summary.json"
# Its SHA-256 of itself.
_SEAL = "sha256_of_this"

#: Figures of the last evaluated epoch, and their means over the last ten.
LAST_FIGURES = (
    "accuracy_many",
    "accuracy_medium",
    "accuracy_few",
    "selection_auc",
    "clean_precision",
    "clean_recall",
    "noise_precision",
    "noise_recall",
)


@dataclasses.dataclass(frozen=True)
class RunInfo:
    """What the summary records of the run itself.

    Attributes:
      device: kind and number of the devices.
      cores: that the process may use; on a CPU, XLA rounds by their number.
      weights_sha256: of all networks, as they vote.
      command: the command line, or ''.
      networks_voting: how many networks vote.
      forward_passes: of all networks for one prediction.
      workdir: absolute path.
    """

    device: str
    cores: int
    weights_sha256: str
    command: str
    networks_voting: int
    forward_passes: int
    workdir: str


@dataclasses.dataclass(frozen=True)
class _Essentials:
    """What every summary has."""

    method: str
    benchmark: str
    seed: int
    epochs: int
    best_test_accuracy: Share
    last_test_accuracy: Share
    mean_last10_test_accuracy: Share
    seconds: NotNegative
    device: str
    weights_sha256: str


def finished(
    directory: pathlib.Path, resolved: Mapping[str, Any]
) -> Record | None:
    """The summary of a run that is complete.

    Args:
      directory: its workdir.
      resolved: its configuration as config.json holds it.

    Returns:
      The content of summary.json; None where there is none, or, with a
      warning, where it is not a summary of such a run.
    """
    path = directory / FILE
    try:
        found = read_json(path)
        if found is not None:
            fields.read(_Essentials, found, f"{path}: summary")
            others = {k: v for k, v in found.items() if k != _SEAL}
            if found.get(_SEAL) != checkpoint.json_sha256(others):
                raise UserError(f"{path}: its SHA-256 differs")
            for name in ("method", "benchmark", "seed", "epochs"):
                if found[name] != resolved[name]:
                    raise UserError(f"{path}: {name} is {found[name]!r}")
            summary_table(found)
    except (UserError, TypeError, ValueError) as error:
        line = str(error).removeprefix(f"{path}: ")
        logger.warning("%s: %s; it is written again", path, line)
        return None
    return found


def sealed(summary: Record) -> Record:
    """The summary as it is written, with a SHA-256 of itself.

    Args:
      summary: what ``summarise`` returned.
    """
    content = json.loads(json.dumps(plain(summary)))
    return {**content, _SEAL: checkpoint.json_sha256(content)}


def summarise(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    records: Sequence[Record],
    run: RunInfo,
    seconds: float,
    audit: Record,
) -> Record:
    """The content of summary.json.

    Args:
      config: the whole configuration.
      dataset: the data of the run.
      records: all of metrics.jsonl.
      run: about the run.
      seconds: that the run took.
      audit: see ``metrics.audit_record``; its joint is left out.
    """
    evaluated = [r for r in records if "test_accuracy" in r]
    accuracy = [r["test_accuracy"] for r in evaluated]
    last, tail = evaluated[-1], evaluated[-10:]
    best = int(np.argmax(accuracy))
    return {
        "method": config.method,
        "benchmark": config.benchmark,
        "seed": config.seed,
        "data_seed": dataset.description.data_seed,
        "epochs": config.epochs,
        "test_kind": dataset.test_kind,
        "best_test_accuracy": accuracy[best],
        "best_epoch": evaluated[best]["epoch"],
        "last_test_accuracy": accuracy[-1],
        "mean_last10_test_accuracy": float(np.mean(accuracy[-10:])),
        **more_accuracies(evaluated, dataset),
        **{name: last.get(name) for name in LAST_FIGURES},
        **{
            f"mean_last10_{name}": float(np.mean(values))
            for name in LAST_FIGURES
            if (values := [r[name] for r in tail if r.get(name) is not None])
        },
        "seconds": seconds,
        **dataclasses.asdict(run),
        "noise": dataset.description.noise,
        "noise_rate_realised": dataset.description.noise_rate_realised,
        **{k: v for k, v in audit.items() if k != "estimated_joint"},
        "data": dataset.description.as_json(),
        "options": config_lib.as_json(config)[
            modules.options_group(config.method)
        ],
    }


def more_accuracies(records: Sequence[Record], dataset: Dataset) -> Record:
    """Accuracies on more test sets, and top-5 accuracies, over the epochs.

    With a validation set, the test accuracy of the epoch that is the best on it
    is among them.  Clothing1M's papers test each network in its own best epoch;
    here the epoch is that of the vote, whose checkpoint is kept.

    Args:
      records: the evaluated ones of metrics.jsonl.
      dataset: names the sets.

    Returns:
      ``best_NAME_accuracy``, ``last_NAME_accuracy``,
      ``mean_last10_NAME_accuracy`` of every NAME but ``test``, such as
      ``imagenet``, ``test_top5``, ``imagenet_top5``; of a validation set
      ``test_accuracy_at_best_val`` and ``best_val_epoch``, the first of
      equals.  Empty where there is only a test set.

    Source: ``papers/smr.md`` section 12.
    """
    suffixes = ("", "_top5") if dataset.top5 else ("",)
    names = [f"{name}{s}" for name in dataset.tests for s in suffixes]
    found: Record = {}
    for name in names:
        key = f"{name}_accuracy"
        values = [r[key] for r in records if key in r]
        if name != "test" and values:
            found |= {
                f"best_{key}": max(values),
                f"last_{key}": values[-1],
                f"mean_last10_{key}": float(np.mean(values[-10:])),
            }
    key = f"{VALIDATION}_accuracy"
    if validated := [r for r in records if key in r]:
        best = max(validated, key=lambda record: record[key])
        found |= {
            f"test_accuracy_at_best_{VALIDATION}": best["test_accuracy"],
            f"best_{VALIDATION}_epoch": best["epoch"],
        }
    return found


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _seconds(value: float) -> str:
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{value:.1f} s"


#: Key of summary.json, name in the table, format.
Row = tuple[str, str, Callable[[Any], str]]

#: Rows of the table at the end of a run and of the report.
HEADLINE: tuple[Row, ...] = (
    ("method", "method", str),
    ("benchmark", "benchmark", str),
    ("seed", "seed", str),
    ("epochs", "epochs", str),
    ("mean_last10_test_accuracy", "accuracy, mean of last 10", _percent),
    ("best_test_accuracy", "accuracy, best epoch", _percent),
    ("last_test_accuracy", "accuracy, last epoch", _percent),
    ("test_accuracy_at_best_val", "accuracy, best validation epoch", _percent),
    ("accuracy_many", "many-shot classes (last)", _percent),
    ("accuracy_medium", "medium-shot classes (last)", _percent),
    ("accuracy_few", "few-shot classes (last)", _percent),
    ("selection_auc", "selection, area under ROC", "{:.4f}".format),
    ("clean_precision", "clean precision", _percent),
    ("clean_recall", "clean recall", _percent),
    ("noise_precision", "noise precision", _percent),
    ("noise_recall", "noise recall", _percent),
    ("noise", "noise", str),
    ("noise_rate_realised", "wrong labels (realised)", _percent),
    ("label_issues", "labels flagged as wrong", str),
    ("estimated_noise_rate", "wrong labels (estimated)", _percent),
    ("estimated_noise_rate_low", "wrong labels, at least (95 %)", _percent),
    ("estimated_noise_rate_high", "wrong labels, at most (95 %)", _percent),
    ("planted_labels", "errors planted", str),
    ("planted_found", "planted errors flagged", _percent),
    ("planted_found_low", "planted, flagged at least (95 %)", _percent),
    ("planted_found_high", "planted, flagged at most (95 %)", _percent),
    ("estimated_issue_precision", "flags, precision (estimated)", _percent),
    ("estimated_issue_precision_low", "precision, at least (95 %)", _percent),
    ("estimated_issue_precision_high", "precision, at most (95 %)", _percent),
    ("issue_precision", "flags, precision", _percent),
    ("issue_recall", "flags, recall", _percent),
    ("networks_voting", "networks voting", str),
    ("forward_passes", "forward passes a prediction", str),
    ("device", "device", str),
    ("cores", "CPU cores", str),
    ("seconds", "time", _seconds),
    ("command", "command", str),
    ("workdir", "files are in", str),
)

# Rows of every other test set and of top-5: prefix of the key, words for it.
_MORE_ROWS = (
    ("mean_last10", "mean of last 10"),
    ("best", "best epoch"),
    ("last", "last epoch"),
)


def _rows(summary: Mapping[str, Any]) -> Iterator[Row]:
    """``HEADLINE``, other test sets and top-5 after the test accuracy."""
    found = [re.fullmatch("last_(.+)_accuracy", key) for key in summary]
    names = [match[1] for match in found if match and match[1] != "test"]
    for row in HEADLINE:
        yield row
        for name in names if row[0] == "last_test_accuracy" else ():
            for prefix, words in _MORE_ROWS:
                title = f"{accuracy_title(name)}, {words}"
                yield f"{prefix}_{name}_accuracy", title, _percent


def accuracy_title(name: str) -> str:
    """``NAME_accuracy`` in words.

    Args:
      name: ``test`` or another test set, perhaps with ``_top5`` after it.

    Returns:
      Such as 'top-5 accuracy on imagenet'.
    """
    place = name.removesuffix("_top5")
    words = "accuracy" if place == name else "top-5 accuracy"
    return words if place == "test" else f"{words} on {place}"


def headline(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Name and formatted value of the figures of a summary, in a fixed order.

    Args:
      summary: as in summary.json; absent and None entries are left out.
    """
    return [
        (name, form(summary[key]))
        for key, name, form in _rows(summary)
        if summary.get(key) is not None
    ]


def summary_table(summary: Mapping[str, Any]) -> str:
    """The table printed at the end of a run, accuracies in percent."""
    rows = headline(summary)
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
