"""Figures of a run: accuracies, quality of the selection, files of results."""

from typing import Any

import numpy as np

from jaxnlt.data import files, streaming
from jaxnlt.infer import vote
from jaxnlt.method import Phase
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import Trainer

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


def confusion(
    predicted: np.ndarray, labels: np.ndarray, num_classes: int
) -> np.ndarray:
    """How often each class is taken for which.

    Args:
      predicted: int [N].
      labels: int [N] true labels.
      num_classes: C.

    Returns:
      int64 [C, C], a row a true class.
    """
    pairs = np.asarray(labels) * num_classes + np.asarray(predicted)
    return np.bincount(pairs, minlength=num_classes**2).reshape(
        num_classes, num_classes
    )


def macro_scores(matrix: np.ndarray) -> dict[str, float]:
    """Means over the classes of precision, recall and F1, as fractions.

    A class that is never predicted has precision 0; one that is neither
    predicted nor there is left out, as by scikit-learn.

    Args:
      matrix: what `confusion` returns.

    Returns:
      `macro_precision`, `macro_recall`, `macro_f1`.

    Source: papers/smr.md section 12.
    """
    right = np.diag(matrix).astype(np.float64)
    there, predicted = matrix.sum(1), matrix.sum(0)
    met = there + predicted > 0
    shares = {
        "macro_precision": right / np.maximum(predicted, 1),
        "macro_recall": right / np.maximum(there, 1),
        "macro_f1": 2 * right / np.maximum(there + predicted, 1),
    }
    return {name: float(share[met].mean()) for name, share in shares.items()}


def top_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of images whose label is among the ``k`` highest scores.

    Of equal scores the smaller class goes first, as in an argmax, so that
    classes told apart by nothing never make more than ``k`` hits; NaN goes
    last.

    Args:
      scores: float [N, C], the vote's result.
      labels: int [N] true labels.
      k: how many classes are looked at; all of them where C is smaller.

    Returns:
      A fraction in [0, 1].

    Source: papers/smr.md section 12, papers/sfa.md section 8.
    """
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    return float((order == np.asarray(labels)[:, None]).any(1).mean())


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
    matrix = confusion(scores.argmax(1), labels, dataset.num_classes)
    record = macro_scores(matrix) | test_metrics(
        scores,
        labels,
        dataset.given_counts if counts is None else counts,
        trainer.config.groups,
    )
    if dataset.top5:
        record["test_top5_accuracy"] = top_accuracy(scores, labels, 5)
    return record


def more_record(trainer: Trainer, outputs: dict, memory: dict) -> dict:
    """What the same vote reaches on every further test set."""
    dataset, record = trainer.dataset, {}
    for name, of_set in outputs.items():
        labels = dataset.tests[name].labels
        scores, _ = vote(trainer.method, of_set, len(labels), memory)
        record[f"{name}_accuracy"] = top_accuracy(scores, labels, 1)
        if dataset.top5:
            top5 = top_accuracy(scores, labels, 5)
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
            selection_metrics(
                *(values[judged] for values in (*given, train.true_labels))
            )
        )
    for name in rows[0]:
        values = [value for row in rows if (value := row[name]) is not None]
        record[name] = float(np.mean(values)) if values else None
    return record
