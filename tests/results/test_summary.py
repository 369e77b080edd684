"""labels.csv, and what the summary says of several test sets."""

import csv
import time
from types import SimpleNamespace

import numpy as np
import pytest

from jaxnlt.data.files import UNKNOWN
from jaxnlt.data.nlt.protocol import WRONG
from jaxnlt.results import labels as labels_csv
from jaxnlt.results import summary as summary_lib


def test_labels_csv_worst_first_and_stable(tmp_path):
    path = tmp_path / "labels.csv"
    labels_csv.write_labels_csv(
        path,
        ids=np.array([7, 5, 9]),
        given=np.array([0, 1, 1]),
        class_names=['say "cat", please', "dög"],
        clean_probability=np.array([0.5, 1e-9, 0.5]),
        predicted=np.array([1, 1, 0]),
        suggested=np.array([0, 0, 1]),
        true=np.array([0, 0, 1]),
    )
    with open(path, encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    cat, dog = 'say "cat", please', "dög"
    assert rows == [
        "index given_label clean_probability predicted_label "
        "suggested_label true_label".split(),
        ["5", dog, "1e-09", dog, cat, cat],
        ["7", cat, "0.5", dog, cat, cat],
        ["9", dog, "0.5", cat, dog, dog],
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["labels.csv"]


def test_labels_csv_by_path_without_truth(tmp_path):
    path = tmp_path / "labels.csv"
    one = np.zeros(1, int)
    labels_csv.write_labels_csv(
        path, np.array(["a/1.png"]), one, ["a"], np.ones(1), one, one
    )
    assert path.read_text() == (
        "path,given_label,clean_probability,predicted_label,suggested_label\n"
        "a/1.png,a,1,a,a\n"
    )


def test_labels_csv_is_fast(tmp_path):
    n = 200_000
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, n)
    start = time.perf_counter()
    labels_csv.write_labels_csv(
        tmp_path / "labels.csv",
        np.arange(n),
        labels,
        ["a", "b"],
        rng.random(n),
        labels,
        labels,
    )
    # 1,000,000 rows in seconds; a row at a time from numpy takes 20 s.
    assert time.perf_counter() - start < 4


def test_true_labels_that_are_not_known(tmp_path):
    one = np.zeros(4, int)
    labels_csv.write_labels_csv(
        *(tmp_path / "labels.csv", np.arange(4), one, ["a", "b"]),
        *(np.arange(4) / 4, one, one),
        true=np.array([1, WRONG, UNKNOWN, 0]),
    )
    with open(tmp_path / "labels.csv", newline="") as file:
        column = [row["true_label"] for row in csv.DictReader(file)]
    assert column == ["b", "wrong", "", "a"]


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
    assert summary_lib.further(records(test_accuracy=[0.5]), dataset()) == {}


def test_validation_by_hand():
    rows = records(
        test_accuracy=[0.9, 0.2, 0.4, 0.3], val_accuracy=[0.1, 0.6, 0.6, 0.3]
    )
    assert summary_lib.further(rows, dataset(val=1)) == {
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
    assert summary_lib.further(rows, dataset(True, imagenet=1)) == {
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
