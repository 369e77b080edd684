"""Figures of an epoch: accuracies, loss terms, quality of the selection."""

from collections.abc import Mapping, Sequence

import numpy as np
from sklearn.metrics import (
    average_precision_score,
    precision_recall_fscore_support,
    recall_score,
    roc_auc_score,
)

from jaxnlt.auditing import joint
from jaxnlt.auditing.planting import Probes
from jaxnlt.auditing.verdict import Audit
from jaxnlt.data import records, streaming
from jaxnlt.infer import vote
from jaxnlt.method import Memory, Outputs, Phase, Selection
from jaxnlt.results.files import Record
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
    0-1 / 2-6 / 7-9 for ten classes, else 100 and 20 even if a group is empty.

    Args:
      counts: int [C] training samples of each class, true ones where known.
      groups: ``auto`` or ``paper``.

    Returns:
      Class ids (int64, ascending) by group name; None for ``auto`` where all
      classes are equally large.

    Raises:
      UserError: another value of ``groups``.

    Source: ``papers/dasc.md`` section 7, ``papers/sfa.md`` section 8.
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
) -> Record:
    """Accuracies (fractions) of the classes with the highest scores.

    Args:
      scores: float [N, C] of the vote; the first of equals wins.
      labels: int [N] true test labels.
      counts: int [C] training samples of each class, for the groups.
      groups: see ``accuracy_groups``.

    Returns:
      ``test_accuracy``; ``accuracy_per_class`` (list of C, None for a class
      without test samples); ``accuracy_many``, ``accuracy_medium``,
      ``accuracy_few``: means over the classes of a group, None for a group
      without tested classes; absent where there are no groups.

    Source: ``papers/dasc.md`` section 7.
    """
    predicted = np.argmax(scores, axis=1)
    per_class = recall_score(
        labels,
        predicted,
        labels=np.arange(len(counts)),
        average=None,
        zero_division=np.nan,
    )
    result: Record = {
        "test_accuracy": float((predicted == labels).mean()),
        "accuracy_per_class": [_defined(value) for value in per_class],
    }
    for name, ids in (accuracy_groups(counts, groups) or {}).items():
        tested = ids[np.isfinite(per_class[ids])]
        result[f"accuracy_{name}"] = (
            float(per_class[tested].mean()) if len(tested) else None
        )
    return result


def _defined(value: float) -> float | None:
    """A figure as JSON has it: None for NaN."""
    return None if np.isnan(value) else float(value)


def macro_scores(predicted: np.ndarray, labels: np.ndarray) -> Record:
    """Means over the classes of precision, recall and F1, as fractions.

    A class that is never predicted has precision 0; one that is neither
    predicted nor there is left out.

    Args:
      predicted: int [N].
      labels: int [N] true labels.

    Returns:
      ``macro_precision``, ``macro_recall``, ``macro_f1``.

    Source: ``papers/smr.md`` section 12.
    """
    precision, recall, f1, _ = precision_recall_fscore_support(
        labels, predicted, average="macro", zero_division=0
    )
    return {
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
    }


def top_accuracy(scores: np.ndarray, labels: np.ndarray, k: int) -> float:
    """Share of images whose label is among the ``k`` highest scores.

    Of equal scores the smaller class comes first, as in an argmax, so that
    equal scores never make more than ``k`` hits; NaN comes last.

    Args:
      scores: float [N, C] of the vote.
      labels: int [N] true labels.
      k: how many classes count; all of them where C is smaller.

    Returns:
      A fraction in [0, 1].

    Source: ``papers/smr.md`` section 12, ``papers/sfa.md`` section 8.
    """
    order = np.argsort(-np.asarray(scores), axis=1, kind="stable")[:, :k]
    return float((order == np.asarray(labels)[:, None]).any(1).mean())


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
      true: int [N] true labels; images whose label has not been verified are
        left out by the caller.

    Returns:
      ``selection_auc``, ``clean_precision``, ``clean_recall``,
      ``noise_precision``, ``noise_recall``; None where undefined (nothing
      selected, no noise at all ...).
    """
    clean = np.asarray(given) == np.asarray(true)
    precision = recall = np.full(2, np.nan)
    if len(clean):
        precision, recall, _, _ = precision_recall_fscore_support(
            clean,
            np.asarray(selected, bool),
            labels=[True, False],
            zero_division=np.nan,
        )
    both = clean.any() and not clean.all()
    return {
        "selection_auc": (
            float(roc_auc_score(clean, clean_probability)) if both else None
        ),
        "clean_precision": _defined(precision[0]),
        "clean_recall": _defined(recall[0]),
        "noise_precision": _defined(precision[1]),
        "noise_recall": _defined(recall[1]),
    }


def audit_record(
    audit: Audit, given: np.ndarray, true: np.ndarray | None, classes: int
) -> Record:
    """What the audit says of the training labels, and how right it is.

    Args:
      audit: of N labels, all of images that can be read.
      given: int [N] given labels.
      true: int [N] true labels, see ``records.verdicts``; None if unknown.
      classes: C.

    Returns:
      ``label_issues``, how many are flagged; ``estimated_noise_rate``,
      ``estimated_noise_rate_low`` and ``..._high``, and ``estimated_joint``
      [C, C], see ``joint.NoiseEstimate``.  Of the verified labels, where there
      are any, ``issue_average_precision`` of their ranking,
      ``issue_precision``, ``issue_recall``, ``right_labels_flagged`` and
      ``clean_calibration_error``; None where there is nothing to divide by.
    """
    estimate = joint.noise_estimate(
        given, audit.alternative, audit.clean_probability, classes
    )
    found: Record = {
        "label_issues": int(audit.is_label_issue.sum()),
        "estimated_noise_rate": estimate.rate,
        "estimated_noise_rate_low": estimate.low,
        "estimated_noise_rate_high": estimate.high,
        "estimated_joint": estimate.joint,
    }
    if true is None:
        return found
    known = true != records.UNKNOWN
    wrong, flagged = (given != true)[known], audit.is_label_issue[known]
    hits = float((wrong & flagged).sum())
    clean = audit.clean_probability[known]
    return found | {
        "issue_average_precision": float(
            average_precision_score(wrong, -audit.label_quality[known])
        )
        if wrong.any()
        else None,
        "issue_precision": hits / flagged.sum() if flagged.any() else None,
        "issue_recall": hits / wrong.sum() if wrong.any() else None,
        "right_labels_flagged": float(flagged[~wrong].mean())
        if not wrong.all()
        else None,
        "clean_calibration_error": calibration_error(clean, ~wrong),
    }


def probe_record(probes: Probes) -> Record:
    """What planted errors tell of the audit.

    Args:
      probes: see ``planting.probed``.

    Returns:
      ``planted_labels``; ``planted_found``, the share that is flagged, and
      ``estimated_issue_precision``, each with ``..._low`` and ``..._high``;
      the precision is None where nothing can be said of it.
    """
    found: Record = {"planted_labels": probes.planted}
    for name, interval in (
        ("planted_found", probes.recall),
        ("estimated_issue_precision", probes.precision or (None, None, None)),
    ):
        found[name], found[f"{name}_low"], found[f"{name}_high"] = interval
    return found


def calibration_error(
    probs: np.ndarray, right: np.ndarray, bins: int = 10
) -> float:
    r"""Expected calibration error over bins of equal width.

    .. math:: \sum_b \frac{n_b}{N} |\bar p_b - \bar r_b|

    Args:
      probs: float [N] in [0, 1], N > 0.
      right: bool [N], what they are probabilities of.
      bins: how many.

    Returns:
      The error in [0, 1].

    Source: Guo et al., "On Calibration of Modern Neural Networks", ICML 2017.
    """
    place = np.minimum((probs * bins).astype(int), bins - 1)
    differences = np.bincount(place, probs - right, minlength=bins)
    return float(np.abs(differences).sum() / len(probs))


def mean_terms(
    sums: Sequence[Mapping[str, np.ndarray]], steps: Sequence[int], epoch: int
) -> Record:
    """Mean of every loss term over steps and networks.

    Args:
      sums: for each network the sums of its terms over its steps.
      steps: for each network how many steps it took.
      epoch: counted from 0; the message counts from 1.

    Raises:
      UserError: a mean is not finite.
    """
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
            f"epoch {epoch + 1}: the training loss is not finite (term "
            f"{terms}); take a smaller config.optimizer.learning_rate, or the "
            "defaults of the weights, ramps and temperatures that were changed"
        )
    return means


def test_record(
    trainer: Trainer,
    outputs: Mapping[str, Sequence[Sequence[Outputs]]],
    memory: Memory,
) -> Record:
    """Accuracies of the vote on every test set that has outputs.

    Args:
      trainer: its method votes; its dataset has the labels.
      outputs: name of the test set -> fetched batches of every network.
      memory: host arrays.

    Returns:
      The figures of ``macro_scores`` and ``test_metrics`` for the set ``test``,
      ``NAME_accuracy`` for every other set, and top-5 accuracies where the data
      set's papers report them; images that could not be read are left out.
    """
    dataset = trainer.dataset
    record: Record = {}
    for name, of_set in outputs.items():
        labels = dataset.tests[name].labels
        scores = vote(trainer.method, of_set, len(labels), memory).scores
        readable = streaming.readable(trainer.test_images[name])
        if readable is not None:
            scores, labels = scores[readable], labels[readable]
        if name == "test":
            counts = dataset.true_counts
            record |= macro_scores(scores.argmax(1), labels)
            record |= test_metrics(
                scores,
                labels,
                dataset.given_counts if counts is None else counts,
                trainer.config.groups,
            )
        else:
            record[f"{name}_accuracy"] = top_accuracy(scores, labels, 1)
        if dataset.top5:
            top5 = top_accuracy(scores, labels, 5)
            record[f"{name}_top5_accuracy"] = top5
    return record


def selection_record(
    trainer: Trainer, phase: Phase, selections: Sequence[Selection]
) -> Record:
    """Sizes of the split and, where truth is known, how right it is.

    Args:
      trainer: its dataset has the labels.
      phase: the epoch's; without a selector there are no figures.
      selections: of each network.

    Returns:
      Means over the networks of ``labelled``, ``unlabelled`` and of the figures
      of ``selection_metrics``; ``collapsed_splits``, networks that leave
      nothing unlabelled; ``classes_without_selected``, the largest number.
    """
    train = trainer.dataset.train
    if phase.selector is None:
        return {}
    record: Record = {
        "labelled": np.mean([len(s.labelled) for s in selections]),
        "unlabelled": np.mean([len(s.unlabelled) for s in selections]),
        "collapsed_splits": sum(
            "u" in phase.views and not len(s.unlabelled) for s in selections
        ),
        "classes_without_selected": int(
            max(np.sum(np.asarray(s.counts) == 0) for s in selections)
        ),
    }
    if train.true_labels is None:
        return record
    verified, _ = records.verdicts(train)
    rows = []
    for selection in selections:
        if selection.clean_probability is None:
            return record
        selected = np.zeros(len(train), bool)
        selected[selection.labelled] = True
        rows.append(
            selection_metrics(
                selection.clean_probability[verified],
                selected[verified],
                train.labels[verified],
                train.true_labels[verified],
            )
        )
    for name in rows[0]:
        values = [value for row in rows if (value := row[name]) is not None]
        record[name] = float(np.mean(values)) if values else None
    return record


def reading_record(trainer: Trainer, bad_images: int | None) -> Record:
    """How many files could not be read, those left out from the start too.

    Args:
      trainer: its test images count their own.
      bad_images: of training; None of images in memory.

    Returns:
      ``bad_images``; nothing where all images are in memory.
    """
    found = [
        bad_images,
        *map(streaming.count_bad, trainer.test_images.values()),
    ]
    known = [count for count in found if count is not None]
    left_out = trainer.dataset.description.n_unreadable
    return {"bad_images": left_out + sum(known)} if known else {}
