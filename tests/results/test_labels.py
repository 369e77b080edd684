"""labels.csv and the audit of the labels."""

import csv
import time

import numpy as np

from jaxnlt.data.records import UNKNOWN, WRONG, Split
from jaxnlt.infer import Votes
from jaxnlt.results import labels

COLUMNS = ["given_label", "clean_probability", "predicted_label"]
COLUMNS += ["suggested_label"]


def split(given, true=None, ids=None):
    given = np.asarray(given)
    ids = np.arange(len(given)) if ids is None else np.asarray(ids)
    return Split(None, given, None if true is None else np.array(true), ids)


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_worst_first_and_stable(tmp_path):
    path = tmp_path / "labels.csv"
    cat, dog = 'say "cat", please', "dög"
    labels.write(
        path,
        split([0, 1, 1], [0, 0, 1], [7, 5, 9]),
        [cat, dog],
        labels.Audit(
            clean_probability=np.array([0.5, 1e-9, 0.5]),
            predicted=np.array([1, 1, 0]),
            suggested=np.array([0, 0, 1]),
        ),
    )
    assert rows_of(path) == [
        ["index", *COLUMNS, "true_label"],
        ["5", dog, "1e-09", dog, cat, cat],
        ["7", cat, "0.5", dog, cat, cat],
        ["9", dog, "0.5", cat, dog, dog],
    ]
    assert [p.name for p in tmp_path.iterdir()] == ["labels.csv"]


def test_by_path_without_truth(tmp_path):
    path = tmp_path / "labels.csv"
    one = np.zeros(1, int)
    audit = labels.Audit(np.ones(1), one, one)
    labels.write(path, split(one, ids=["a/1.png"]), ["a"], audit)
    rows = [["path", *COLUMNS], ["a/1.png", "a", "1", "a", "a"]]
    assert rows_of(path) == rows


def test_many_rows_are_fast(tmp_path):
    n = 200_000
    rng = np.random.default_rng(0)
    given = rng.integers(0, 2, n)
    audit = labels.Audit(rng.random(n), given, given)
    start = time.perf_counter()
    labels.write(tmp_path / "labels.csv", split(given), ["a", "b"], audit)
    # A row at a time from numpy takes four times as long.
    assert time.perf_counter() - start < 4


def test_true_labels_that_are_not_known(tmp_path):
    path, one = tmp_path / "labels.csv", np.zeros(4, int)
    audit = labels.Audit(np.arange(4) / 4, one, one)
    labels.write(path, split(one, [1, WRONG, UNKNOWN, 0]), ["a", "b"], audit)
    column = [row[-1] for row in rows_of(path)]
    assert column == ["true_label", "b", "wrong", "", "a"]


def test_the_audit_with_and_without_selections():
    scores = np.log([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3]])
    votes = Votes(scores=scores, suggested=-scores)
    given = np.array([0, 0, 1])
    found = labels.audit(np.zeros((0, 3), np.float32), votes, given)
    np.testing.assert_allclose(found.clean_probability, [0.9, 0.2, 0.3])
    assert found.predicted.tolist() == [0, 1, 0]
    assert found.suggested.tolist() == [0, 0, 1]
    history = np.array([[0.0, 1.0, 0.5], [0.5, 1.0, 0.75]], np.float32)
    found = labels.audit(history, votes, given)
    assert found.clean_probability.tolist() == [0.25, 1, 0.625]
    assert found.suggested.tolist() == [1, 0, 1]
