"""labels.csv and the audit of the labels."""

import csv
import time

import numpy as np
import pytest

from jaxnlt.auditing import verdict
from jaxnlt.data.records import UNKNOWN, WRONG, Split
from jaxnlt.results import labels

COLUMNS = ["given_label", "is_label_issue", "label_quality"]
COLUMNS += ["clean_probability", "predicted_label", "predicted_probability"]
COLUMNS += ["suggested_label", "margin", "issue_kind", "true_label"]
COLUMNS += ["given_index", "predicted_index", "suggested_index", "true_index"]


def split(given, true=None, ids=None):
    given = np.asarray(given)
    ids = np.arange(len(given)) if ids is None else np.asarray(ids)
    return Split(None, given, None if true is None else np.array(true), ids)


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def verdict_on(given, margins, flagged=()):
    """Two classes, by the margins of the given labels."""
    given, margins = np.asarray(given), np.asarray(margins)
    own = (1 + margins) / 2
    first = np.where(given == 0, own, 1 - own)
    probs = np.stack([first, 1 - first], 1)
    flags = np.isin(np.arange(len(given)), flagged)
    return verdict.judge(given, probs, flags, own, probs)


def test_worst_first_with_names_and_ids(tmp_path):
    path = tmp_path / "labels.csv"
    cat, dog = 'say "cat", please', "dög"
    given = [0, 1, 1]
    table = labels.columns(
        split(given, [0, 0, 1], [7, 5, 9]),
        [cat, dog],
        verdict_on(given, [0.5, -0.8, 0.5], [1]),
    )
    labels.write(path, table)
    head, *rows = rows_of(path)
    assert head == ["index", *COLUMNS]
    shown = [dict(zip(head, row, strict=True)) for row in rows]
    assert [row["index"] for row in shown] == ["5", "7", "9"]
    worst = shown[0]
    assert worst["given_label"] == dog and worst["predicted_label"] == cat
    assert worst["suggested_label"] == worst["true_label"] == cat
    assert worst["is_label_issue"] == "True" and worst["margin"] == "-0.8"
    assert worst["predicted_probability"] == "0.9"
    assert worst["issue_kind"] == "mislabelled"
    numbers = [name for name in COLUMNS if name.endswith("_index")]
    assert [worst[name] for name in numbers] == ["1", "0", "0", "0"]
    quality = [float(row["label_quality"]) for row in shown]
    assert quality == sorted(set(quality))
    names = {p.name for p in tmp_path.iterdir()}
    assert names - {"labels.parquet"} == {"labels.csv"}


def test_by_path_without_truth():
    one = np.zeros(1, int)
    found = verdict_on(one, [1.0])
    table = labels.columns(split(one, ids=["a/1.png"]), ["a", "b"], found)
    known = [name for name in COLUMNS if not name.startswith("true")]
    assert list(table) == ["path", *known]
    assert table["path"] == ["a/1.png"] and table["is_label_issue"] == [False]


def test_many_rows_are_fast(tmp_path):
    n = 200_000
    rng = np.random.default_rng(0)
    given = rng.integers(0, 2, n)
    found = verdict_on(given, np.full(n, 0.25))
    start = time.process_time()
    table = labels.columns(split(given), ["a", "b"], found)
    labels.write(tmp_path / "labels.csv", table)
    # A row at a time from numpy takes four times as long.
    assert time.process_time() - start < 4
    # Equal margins, yet no two qualities are equal as they are written.
    assert len(set(table["label_quality"])) == n


def test_true_labels_that_are_not_known():
    one = np.zeros(4, int)
    found = verdict_on(one, [-0.9, 0, 0.5, 0.9])
    table = labels.columns(
        split(one, [1, WRONG, UNKNOWN, 0]), ["a", "b"], found
    )
    assert table["true_label"] == ["b", "wrong", "", "a"]
    assert table["true_index"] == [1, None, None, 0]


def test_held_out_and_unreadable_rows(tmp_path):
    train, held_out = split([0, 1], ids=[0, 1]), split([1, 0], ids=[2, 3])
    lost = split([1], ids=[4])
    listed, found = labels.with_unreadable(
        train, verdict_on([0, 1], [0.3, 0.9]), lost
    )
    table = labels.columns(
        listed, ["a", "b"], found, (held_out, verdict_on([1, 0], [0.3, -0.5]))
    )
    assert table["index"] == [3, 0, 2, 1, 4]
    assert table["split"] == ["held_out", "train", "held_out"] + ["train"] * 2
    # Within one table qualities are of one scale.
    assert table["label_quality"][:4] == sorted(set(table["label_quality"][:4]))
    assert table["predicted_label"][4] == table["issue_kind"][4] == "unreadable"
    assert table["label_quality"][4] is table["predicted_index"][4] is None
    labels.write(tmp_path / "labels.csv", table)
    assert rows_of(tmp_path / "labels.csv")[5][3:5] == ["", ""]


def test_parquet_holds_the_same(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    table = labels.columns(
        split([0, 1]), ["a", "b"], verdict_on([0, 1], [-0.5, 1.0])
    )
    labels.write(tmp_path / "labels.csv", table)
    read = parquet.read_table(tmp_path / "labels.parquet").to_pydict()
    assert read == table
