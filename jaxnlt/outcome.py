"""What a finished run leaves: labels.csv, report.html, summary.json."""

import pathlib
from typing import Any

import numpy as np

from jaxnlt import config as config_lib
from jaxnlt import data, metrics, report, selection
from jaxnlt.data import disk


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
    # A class for every image, or no column of them.
    true = train.true_labels if disk.classes_known(train.true_labels) else None
    clean = clean_probability(history, scores, train.labels)
    predicted = scores.argmax(-1)
    suggested = np.where(clean > 0.5, train.labels, suggested_scores.argmax(-1))
    metrics.write_labels_csv(
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
    )
    metrics.write_json(directory / "summary.json", summary)
    return summary
