"""Figures of several test sets, and the table of a summary."""

from types import SimpleNamespace

import pytest

from jaxnlt.results import summary


def dataset(top5=False, **more_tests):
    return SimpleNamespace(
        top5=top5, tests={"test": 0} | more_tests, more_tests=more_tests
    )


def records(**columns):
    """Records of epochs 0, 1, 2 ..."""
    return [
        {"epoch": epoch} | dict(zip(columns, values, strict=True))
        for epoch, values in enumerate(zip(*columns.values(), strict=True))
    ]


def test_a_single_test_set_adds_nothing():
    rows = records(test_accuracy=[0.5])
    assert summary.more_accuracies(rows, dataset()) == {}


def test_validation_by_hand():
    rows = records(
        test_accuracy=[0.9, 0.2, 0.4, 0.3], val_accuracy=[0.1, 0.6, 0.6, 0.3]
    )
    assert summary.more_accuracies(rows, dataset(val=1)) == {
        "best_val_accuracy": 0.6,
        "last_val_accuracy": 0.3,
        "mean_last10_val_accuracy": pytest.approx(0.4),
        # The first of equals, as the checkpoints keep it.
        "test_accuracy_at_best_val": 0.2,
        "best_val_epoch": 1,
    }


def test_top5_by_hand():
    values = [0.0, 1.0, *[0.5] * 8, 0.25]
    rows = records(
        test_accuracy=values[::-1],
        test_top5_accuracy=values,
        imagenet_accuracy=[0.5] * 11,
        imagenet_top5_accuracy=values[::-1],
    )
    assert summary.more_accuracies(rows, dataset(True, imagenet=1)) == {
        "best_test_top5_accuracy": 1.0,
        "last_test_top5_accuracy": 0.25,
        # Of eleven the first is left out.
        "mean_last10_test_top5_accuracy": 0.525,
        "best_imagenet_accuracy": 0.5,
        "last_imagenet_accuracy": 0.5,
        "mean_last10_imagenet_accuracy": 0.5,
        "best_imagenet_top5_accuracy": 1.0,
        "last_imagenet_top5_accuracy": 0.0,
        "mean_last10_imagenet_top5_accuracy": 0.5,
    }


def test_summary_table():
    content = {"method": "dasc", "seconds": 83.4, "clean_recall": None}
    content["mean_last10_test_accuracy"] = 0.94567
    table = summary.summary_table(content)
    assert table.splitlines() == [
        "method                     dasc",
        "accuracy, mean of last 10  94.57 %",
        "time                       1 min 23 s",
    ]


def test_summary_table_of_several_test_sets():
    names = """
    best_test_accuracy last_test_accuracy last_imagenet_accuracy
    best_imagenet_accuracy last_test_top5_accuracy last_val_top5_accuracy
    mean_last10_test_top5_accuracy test_accuracy_at_best_val
    mean_last10_selection_auc
    """
    table = summary.summary_table(dict.fromkeys(names.split(), 0.25))
    assert [row.split("  ")[0] for row in table.splitlines()] == [
        "accuracy, best epoch",
        "accuracy, last epoch",
        "accuracy on imagenet, best epoch",
        "accuracy on imagenet, last epoch",
        "top-5 accuracy, mean of last 10",
        "top-5 accuracy, last epoch",
        "top-5 accuracy on val, last epoch",
        "accuracy, best validation epoch",
    ]
    assert table.count("25.00 %") == 8
