"""The figures of one epoch, as metrics.jsonl takes them."""

from typing import Any

import numpy as np

from jaxnlt import macro, metrics, streaming
from jaxnlt.data import files
from jaxnlt.errors import UserError
from jaxnlt.methods.base import Phase
from jaxnlt.trainer import Trainer, vote


def mean_terms(sums: list, steps: list, epoch: int) -> dict[str, float]:
    """Mean of every loss term over steps and networks; stops on non-finite."""
    names = sorted({name for terms in sums for name in terms})
    means = {
        name: float(
            np.mean([s[name] / n for s, n in zip(sums, steps, strict=True)])
        )
        for name in names
    }
    broken = [name for name, value in means.items() if not np.isfinite(value)]
    if broken:
        terms = ", ".join(sorted(broken, key=lambda name: name == "loss"))
        raise UserError(
            f"epoch {epoch}: the training loss is not finite (term {terms}); "
            "try a smaller config.optimizer.learning_rate"
        )
    return means


def test_record(trainer: Trainer, outputs: list, memory: dict) -> dict:
    """What the vote reaches on the test images; nothing without outputs."""
    if not outputs:
        return {}
    dataset = trainer.dataset
    scores, _ = vote(trainer.method, outputs, len(dataset.test), memory)
    counts, labels = dataset.true_counts, dataset.test.labels
    matrix = macro.confusion(scores.argmax(1), labels, dataset.num_classes)
    record = macro.macro_scores(matrix) | metrics.test_metrics(
        scores,
        labels,
        dataset.given_counts if counts is None else counts,
        trainer.config.groups,
    )
    if dataset.top5:
        record["test_top5_accuracy"] = macro.top_accuracy(scores, labels, 5)
    return record


def more_record(trainer: Trainer, outputs: dict, memory: dict) -> dict:
    """What the same vote reaches on every further test set."""
    dataset, record = trainer.dataset, {}
    for name, of_set in outputs.items():
        labels = dataset.tests[name].labels
        scores, _ = vote(trainer.method, of_set, len(labels), memory)
        record[f"{name}_accuracy"] = macro.top_accuracy(scores, labels, 1)
        if dataset.top5:
            top5 = macro.top_accuracy(scores, labels, 5)
            record[f"{name}_top5_accuracy"] = top5
    return record


def reading_record(trainer: Trainer, bad: int | None) -> dict[str, int]:
    """Files that training and the tests met and could not read."""
    found = [bad, *map(streaming.count_bad, trainer.test_images.values())]
    known = [count for count in found if count is not None]
    return {"bad_images": sum(known)} if known else {}


def selection_record(
    trainer: Trainer, phase: Phase, selections: list
) -> dict[str, Any]:
    """Sizes of the split and, where truth is known, how right it is."""
    train = trainer.dataset.train
    if phase.selector is None:
        return {}
    clean = [s.clean_probability for s in selections]
    record: dict[str, Any] = {
        "labelled": np.mean([len(s.labelled) for s in selections]),
        "unlabelled": np.mean([len(s.unlabelled) for s in selections]),
        # Networks all of whose samples fell on one side.
        "collapsed_splits": sum(
            "u" in phase.views and not len(s.unlabelled) for s in selections
        ),
        "classes_without_selected": int(
            max(np.sum(np.asarray(s.counts) == 0) for s in selections)
        ),
    }
    if train.true_labels is None or any(c is None for c in clean):
        return record
    rows, (judged, _) = [], files.verdicts(train)
    for selection in selections:
        chosen = np.zeros(len(train), bool)
        chosen[selection.labelled] = True
        given = selection.clean_probability, chosen, train.labels
        rows.append(
            metrics.selection_metrics(
                *(values[judged] for values in (*given, train.true_labels))
            )
        )
    for name in rows[0]:
        values = [value for row in rows if (value := row[name]) is not None]
        record[name] = float(np.mean(values)) if values else None
    return record
