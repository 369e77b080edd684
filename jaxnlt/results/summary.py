"""What a finished run leaves: labels.csv, report.html, summary.json."""

import pathlib
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxnlt.config import base as config_lib
from jaxnlt.data import files
from jaxnlt.data.records import VALIDATION, Dataset
from jaxnlt.results import files as result_files
from jaxnlt.results import labels as labels_csv
from jaxnlt.results import report


def further(
    records: Sequence[dict[str, Any]], dataset: Dataset
) -> dict[str, Any]:
    """What the summary says of further test sets and of top-5.

    On a validation set the test accuracy of the epoch that is the best there
    is told too.  Clothing1M's papers test each network in its own best epoch;
    ours is one epoch for all, that of the vote, whose checkpoint is kept.

    Args:
      records: the evaluated ones of metrics.jsonl.
      dataset: names them.

    Returns:
      ``best_NAME_accuracy``, ``last_NAME_accuracy``,
      ``mean_last10_NAME_accuracy`` of every NAME but 'test', such as
      'imagenet', 'test_top5', 'imagenet_top5'; of a validation set
      ``test_accuracy_at_best_val`` and ``best_val_epoch``, the first of
      equals.  Empty where there is only a test set.

    Source: papers/smr.md section 12.
    """
    suffixes = ("", "_top5") if dataset.top5 else ("",)
    names = [f"{name}{s}" for name in dataset.tests for s in suffixes]
    summary: dict[str, Any] = {}
    for name in names:
        key = f"{name}_accuracy"
        values = [r[key] for r in records if key in r]
        if name != "test" and values:
            summary |= {
                f"best_{key}": max(values),
                f"last_{key}": values[-1],
                f"mean_last10_{key}": float(np.mean(values[-10:])),
            }
    key = f"{VALIDATION}_accuracy"
    if judged := [r for r in records if key in r]:
        best = max(judged, key=lambda record: record[key])
        summary |= {
            f"test_accuracy_at_best_{VALIDATION}": best["test_accuracy"],
            f"best_{VALIDATION}_epoch": best["epoch"],
        }
    return summary


def write(
    directory: pathlib.Path,
    config,
    dataset: Dataset,
    records: list[dict[str, Any]],
    history: np.ndarray,
    scores: np.ndarray,
    suggested_scores: np.ndarray,
    facts: dict[str, Any],
) -> dict[str, Any]:
    """Writes the files of a finished run, summary.json last.

    Args:
      directory: the workdir.
      config: the whole configuration.
      dataset: what was trained on.
      records: all of metrics.jsonl.
      history: [h, N] clean probabilities of the last selections; h = 0 for a
        method that selects nothing.
      scores: [N, C] mean logits of the vote on the training images.
      suggested_scores: [N, C] behind suggested labels.
      facts: seconds, device, command ... for the summary.

    Returns:
      The summary.
    """
    train = dataset.train
    judged, _ = files.verdicts(train)
    true = train.true_labels if judged.any() else None
    clean = labels_csv.clean_probability(history, scores, train.labels)
    predicted = scores.argmax(-1)
    suggested = np.where(clean > 0.5, train.labels, suggested_scores.argmax(-1))
    labels_csv.write_labels_csv(
        directory / "labels.csv",
        train.ids,
        train.labels,
        dataset.class_names,
        clean,
        predicted,
        suggested,
        true,
    )
    evaluated = [r for r in records if "test_accuracy" in r]
    accuracy = [r["test_accuracy"] for r in evaluated]
    last = evaluated[-1]
    best = int(np.argmax(accuracy))
    kept = (
        *("accuracy_many", "accuracy_medium", "accuracy_few"),
        *("selection_auc", "clean_precision", "clean_recall"),
        *("noise_precision", "noise_recall"),
    )
    tail = evaluated[-10:]
    summary = {
        "method": config.method,
        "benchmark": config.benchmark,
        "seed": config.seed,
        "data_seed": dataset.facts["data_seed"],
        "epochs": config.epochs,
        "test_kind": dataset.test_kind,
        "best_test_accuracy": accuracy[best],
        "best_epoch": evaluated[best]["epoch"],
        "last_test_accuracy": accuracy[-1],
        "mean_last10_test_accuracy": float(np.mean(accuracy[-10:])),
        **further(evaluated, dataset),
        **{name: last.get(name) for name in kept},
        **{
            f"mean_last10_{name}": float(np.mean(values))
            for name in kept
            if len(values := [r[name] for r in tail if r.get(name) is not None])
        },
        **facts,
        "noise": config.data.noise,
        "noise_rate_realised": dataset.facts["noise_rate_realised"],
        "data": dataset.facts,
        "options": config_lib.as_json(config)[config.method],
    }
    report.write_report(
        directory / "report.html",
        records=records,
        summary=summary,
        config=config_lib.as_json(config),
        class_names=dataset.class_names,
        images=train.images,
        given=train.labels,
        true=true,
        # A memorised label has a high probability, right or wrong: only a
        # selection is worth a plot.
        clean_probability=clean if len(history) else None,
        suggested=suggested if len(history) else None,
        ids=train.ids,
        test_kind=dataset.test_kind,
        more_tests=tuple(dataset.more_tests),
    )
    result_files.write_json(directory / "summary.json", summary)
    return summary


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def _seconds(value: float) -> str:
    minutes, seconds = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {seconds:02d} s" if minutes else f"{value:.1f} s"


# What stands in the table at the end and in the report: key of summary.json,
# name, format.
HEADLINE: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
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
    ("noise_rate_realised", "wrong labels (realised)", _percent),
    ("networks_voting", "networks voting", str),
    ("forward_passes", "forward passes a prediction", str),
    ("device", "device", str),
    ("seconds", "time", _seconds),
    ("command", "command", str),
    ("workdir", "files are in", str),
)


# Of each set and of top-5: part of the key before its name, words after it.
FURTHER = (
    ("mean_last10", "mean of last 10"),
    ("best", "best epoch"),
    ("last", "last epoch"),
)


def _rows(summary: dict[str, Any]) -> Iterator[tuple[str, str, Callable]]:
    """``HEADLINE``, further test sets and top-5 after the test accuracy."""
    found = [re.fullmatch("last_(.+)_accuracy", key) for key in summary]
    names = [match[1] for match in found if match and match[1] != "test"]
    for row in HEADLINE:
        yield row
        for name in names if row[0] == "last_test_accuracy" else ():
            for part, words in FURTHER:
                title = f"{accuracy_title(name)}, {words}"
                yield f"{part}_{name}_accuracy", title, _percent


def accuracy_title(name: str) -> str:
    """``NAME_accuracy`` in words.

    Args:
      name: 'test' or a further test set, perhaps with '_top5' after it.

    Returns:
      Such as 'top-5 accuracy on imagenet'.
    """
    place = name.removesuffix("_top5")
    words = "accuracy" if place == name else "top-5 accuracy"
    return words if place == "test" else f"{words} on {place}"


def headline(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """Name and formatted value of what a summary holds, in a fixed order.

    Args:
      summary: as in summary.json; absent and None entries are left out.
    """
    return [
        (name, form(summary[key]))
        for key, name, form in _rows(summary)
        if summary.get(key) is not None
    ]


def summary_table(summary: dict[str, Any]) -> str:
    """The small table printed at the end of a run, accuracies in percent."""
    rows = headline(summary)
    width = max((len(name) for name, _ in rows), default=0)
    return "\n".join(f"{name:<{width}}  {value}" for name, value in rows)
