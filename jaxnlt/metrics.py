"""Figures of a run: accuracies, quality of the selection, files of results."""

import json
import math
import os
import pathlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import numpy as np

from jaxnlt.errors import UserError

GROUPS = ("many", "medium", "few")


def accuracy_groups(
    counts: np.ndarray, groups: str = "auto"
) -> dict[str, np.ndarray] | None:
    """Splits the classes into many-, medium- and few-shot ones.

    ``auto``: more than 100, 20-100, fewer than 20 training samples where each
    of the three holds a class, else thirds of the classes by size (few and
    many hold the rounded-down third, at least one class).  ``paper``: ids
    0-1 / 2-6 / 7-9 for ten classes, else 100 and 20 whatever is empty.

    Args:
      counts: int [C] training samples a class, true ones where known.
      groups: 'auto' or 'paper'.

    Returns:
      Class ids (int64, ascending) by group name; None for ``auto`` where all
      classes are equally large.

    Raises:
      UserError: another value of ``groups``.

    Source: DaSC (papers/dasc.md §7), SFA (papers/sfa.md), DESIGN §6.
    """
    counts = np.asarray(counts)
    ids = np.arange(len(counts))
    by_size = {
        "many": ids[counts > 100],
        "medium": ids[(counts >= 20) & (counts <= 100)],
        "few": ids[counts < 20],
    }
    if groups == "paper":
        if len(counts) == 10:
            return {"many": ids[:2], "medium": ids[2:7], "few": ids[7:]}
        return by_size
    if groups != "auto":
        raise UserError(f"config.groups: 'auto' or 'paper', is {groups!r}")
    if (counts == counts[0]).all():
        return None
    if all(len(group) for group in by_size.values()):
        return by_size
    largest_first = np.argsort(-counts, kind="stable")
    third = max(1, len(counts) // 3)
    return {
        "many": np.sort(largest_first[:third]),
        "medium": np.sort(largest_first[third:-third]),
        "few": np.sort(largest_first[-third:]),
    }


def test_metrics(
    scores: np.ndarray,
    labels: np.ndarray,
    counts: np.ndarray,
    groups: str = "auto",
) -> dict[str, Any]:
    """Accuracies (fractions) of the classes with the highest scores.

    Args:
      scores: float [N, C], the vote's result; the first of equals wins.
      labels: int [N] true test labels.
      counts: int [C] training samples a class, for the groups.
      groups: see ``accuracy_groups``.

    Returns:
      ``test_accuracy``; ``accuracy_per_class`` (list of C, None for a class
      without test samples); ``accuracy_many``, ``accuracy_medium``,
      ``accuracy_few``: means over the classes of a group, None for a group
      without tested classes; absent where there are no groups.

    Source: DaSC (papers/dasc.md §7).
    """
    labels = np.asarray(labels)
    hits = np.argmax(scores, axis=1) == labels
    total = np.bincount(labels, minlength=len(counts))
    right = np.bincount(labels[hits], minlength=len(counts))
    tested = total > 0
    per_class = right / np.maximum(total, 1)
    result: dict[str, Any] = {
        "test_accuracy": float(hits.mean()),
        "accuracy_per_class": [
            float(a) if t else None
            for a, t in zip(per_class, tested, strict=True)
        ],
    }
    for name, ids in (accuracy_groups(counts, groups) or {}).items():
        ids = ids[tested[ids]]
        mean = float(per_class[ids].mean()) if len(ids) else None
        result[f"accuracy_{name}"] = mean
    return result


def selection_metrics(
    clean_probability: np.ndarray,
    selected: np.ndarray,
    given: np.ndarray,
    true: np.ndarray,
) -> dict[str, float | None]:
    """How well the selection tells right labels from wrong ones.

    Clean: given == true.  Precision and recall of the selected as clean, and
    of the others as noise; the area under the ROC curve is that of
    ``clean_probability`` for clean.

    Args:
      clean_probability: float [N].
      selected: bool [N], trusted samples.
      given: int [N] given labels.
      true: int [N] true labels; ``nlt.WRONG`` is no given label, and images
        of which nothing is known (``files.UNKNOWN``) are for the caller to
        leave out.

    Returns:
      ``selection_auc``, ``clean_precision``, ``clean_recall``,
      ``noise_precision``, ``noise_recall``; None where undefined (nothing
      selected, no noise at all ...).
    """
    clean = np.asarray(given) == np.asarray(true)
    selected = np.asarray(selected, bool)

    def share(of: np.ndarray, among: np.ndarray) -> float | None:
        return float(of[among].mean()) if among.any() else None

    auc = None
    if clean.any() and not clean.all():
        from sklearn.metrics import roc_auc_score

        auc = float(roc_auc_score(clean, clean_probability))
    return {
        "selection_auc": auc,
        "clean_precision": share(clean, selected),
        "clean_recall": share(selected, clean),
        "noise_precision": share(~clean, ~selected),
        "noise_recall": share(~selected, ~clean),
    }


def _plain(obj: Any) -> Any:
    """The same in JSON's types; numbers that JSON lacks become null."""
    if isinstance(obj, dict):
        return {str(key): _plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [_plain(value) for value in obj]
    if isinstance(obj, np.ndarray | np.generic):
        return _plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj


@contextmanager
def atomic(path: pathlib.Path) -> Iterator[TextIO]:
    """A file that appears at ``path`` only when it is complete.

    Args:
      path: the file.

    Yields:
      The file to write to, UTF-8 with line ends as they are written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with open(temporary, "w", encoding="utf-8", newline="") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def write_json(path: str | pathlib.Path, obj: Any) -> None:
    """Writes indented JSON; the file is replaced at once or not at all.

    Args:
      path: the file.
      obj: dicts, lists, numbers, numpy arrays and scalars, strings, None;
        non-finite numbers become null.
    """
    with atomic(pathlib.Path(path)) as file:
        json.dump(_plain(obj), file, indent=2, allow_nan=False)
        file.write("\n")


def read_json(path: str | pathlib.Path) -> Any:
    """The object of a JSON file, or None where there is no such file.

    Raises:
      UserError: the file is not JSON.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def read_jsonl(path: str | pathlib.Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line.

    A last line without its end (the writer was killed) is left out; a missing
    file holds none.

    Raises:
      UserError: another line is not JSON.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    records = []
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}: line {number} is not JSON") from error
    return records


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
        kept = [r for r in read_jsonl(self._path) if r["epoch"] <= epoch]
        with atomic(self._path) as file:
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
        return json.dumps(_plain(record), allow_nan=False) + "\n"

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
