"""What a finished run leaves: labels.csv, report.html, summary.json."""

import csv
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxnlt import config as config_lib
from jaxnlt import data, metrics, report, selection
from jaxnlt.data import files, nlt
from jaxnlt.data.base import VALIDATION

#: The true label in labels.csv of an image whose given label is wrong and
#: whose class is not known.
WRONG = "wrong"


def clean_probability(
    history: np.ndarray, scores: np.ndarray, given: np.ndarray
) -> np.ndarray:
    """Belief that each given label is right.

    The mean over the last selections of all networks, for one mixture's
    posterior flags too much; without selections, the voted probability of the
    given label.

    Args:
      history: [h, N] clean probabilities of the last selections.
      scores: [N, C] mean logits of the vote.
      given: int[N] given labels.

    Returns:
      float[N] in [0, 1].
    """
    if len(history):
        return history.mean(0, dtype=np.float64)
    probs = selection.softmax(scores)
    return probs[np.arange(len(given)), given]


def write_labels_csv(
    path: str | pathlib.Path,
    ids: np.ndarray,
    given: np.ndarray,
    class_names: Sequence[str],
    clean_probability: np.ndarray,
    predicted: np.ndarray,
    suggested: np.ndarray,
    true: np.ndarray | None = None,
) -> None:
    """Writes the audit of the labels, the least trusted first.

    Args:
      path: the file, replaced at once or not at all.
      ids: [N] official indices (int) or relative paths (str).
      given: int [N] given labels.
      class_names: C names, written instead of ids.
      clean_probability: float [N] in [0, 1], written with 6 digits; equal
        ones keep their order.
      predicted: int [N] the networks' vote.
      suggested: int [N] suggested labels.
      true: int [N] where known, else no such column; ``nlt.WRONG`` is written
        as ``wrong``, ``files.UNKNOWN`` as nothing.
    """
    ids = np.asarray(ids)
    order = np.argsort(clean_probability, kind="stable")
    names = np.asarray(class_names, dtype=object)
    columns: dict[str, list[Any]] = {
        "index" if ids.dtype.kind in "iu" else "path": ids[order].tolist(),
        "given_label": names[given[order]].tolist(),
        "clean_probability": [
            f"{p:.6g}" for p in clean_probability[order].tolist()
        ],
        "predicted_label": names[predicted[order]].tolist(),
        "suggested_label": names[suggested[order]].tolist(),
    }
    if true is not None:
        # Negative ones name the last class until they are replaced.
        words = names[np.maximum(true[order], -1)]
        words[true[order] == nlt.WRONG] = WRONG
        words[true[order] == files.UNKNOWN] = ""
        columns["true_label"] = words.tolist()
    with metrics.atomic(pathlib.Path(path)) as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        writer.writerows(zip(*columns.values(), strict=True))


def further(
    records: Sequence[dict[str, Any]], dataset: data.Dataset
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
    dataset: data.Dataset,
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
    clean = clean_probability(history, scores, train.labels)
    predicted = scores.argmax(-1)
    suggested = np.where(clean > 0.5, train.labels, suggested_scores.argmax(-1))
    write_labels_csv(
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
    metrics.write_json(directory / "summary.json", summary)
    return summary
