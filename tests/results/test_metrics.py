import json
import warnings

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxnlt.results import files as result_files
from jaxnlt.results import journal, metrics
from jaxnlt.results import summary as summary_lib
from jaxnlt.runtime.errors import UserError


def groups(counts, kind="auto"):
    found = metrics.accuracy_groups(np.array(counts), kind)
    return found and {name: ids.tolist() for name, ids in found.items()}


def test_groups_by_size_where_all_three_are_filled():
    assert groups([19, 101, 20, 100, 300]) == {
        "many": [1, 4],
        "medium": [2, 3],
        "few": [0],
    }


def test_groups_by_thirds_otherwise():
    assert groups([134, 20, 80, 60, 50, 40, 30, 30, 25, 21]) == {
        "many": [0, 2, 3],
        "medium": [4, 5, 6, 7],
        "few": [1, 8, 9],
    }
    assert groups([5, 9]) == {"many": [1], "medium": [], "few": [0]}


def test_groups_absent_where_balanced():
    assert groups([50] * 10) is None


def test_groups_of_the_papers():
    ten = {"many": [0, 1], "medium": [2, 3, 4, 5, 6], "few": [7, 8, 9]}
    assert groups(range(10), "paper") == ten
    assert groups([50] * 10, "paper") == ten
    assert groups([101, 50], "paper") == {"many": [0], "medium": [1], "few": []}
    with pytest.raises(UserError, match="config.groups"):
        groups([1, 2], "papers")


def test_accuracies_by_hand():
    scores = np.eye(4)[[0, 0, 1, 2, 0, 0]]
    labels = np.array([0, 0, 1, 1, 2, 2])
    got = metrics.test_metrics(scores, labels, np.array([300, 200, 50, 5]))
    assert got == {
        "test_accuracy": 0.5,
        "accuracy_per_class": [1.0, 0.5, 0.0, None],
        "accuracy_many": 0.75,
        "accuracy_medium": 0.0,
        "accuracy_few": None,
    }
    balanced = metrics.test_metrics(scores, labels, np.full(4, 7))
    assert set(balanced) == {"test_accuracy", "accuracy_per_class"}


def test_group_accuracy_is_a_mean_over_classes():
    labels = np.array([0] * 9 + [1])
    scores = np.eye(3)[[0] * 9 + [0]]
    got = metrics.test_metrics(scores, labels, np.array([200, 150, 3]), "paper")
    assert got["test_accuracy"] == 0.9 and got["accuracy_many"] == 0.5


def test_selection_by_hand():
    given = np.array([0, 0, 1, 1, 1])
    true = np.array([0, 1, 1, 1, 0])
    selected = np.array([True, True, True, False, False])
    got = metrics.selection_metrics(
        np.array([0.9, 0.6, 0.8, 0.4, 0.1]), selected, given, true
    )
    assert got == pytest.approx(
        {
            "selection_auc": 5 / 6,
            "clean_precision": 2 / 3,
            "clean_recall": 2 / 3,
            "noise_precision": 1 / 2,
            "noise_recall": 1 / 2,
        }
    )


@pytest.mark.parametrize(
    "selected, true, undefined",
    [
        ([1, 1], [0, 1], {"selection_auc", "noise_precision", "noise_recall"}),
        ([1, 0], [0, 1], {"selection_auc", "noise_recall"}),
        ([0, 0], [0, 0], {"clean_precision"}),
        ([0, 1], [1, 0], {"selection_auc", "clean_recall"}),
    ],
)
def test_selection_degenerate(selected, true, undefined):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = metrics.selection_metrics(
            np.array([0.2, 0.3]), np.array(selected), [0, 1], true
        )
    assert {name for name, value in got.items() if value is None} == undefined


def test_log_writes_full_precision_and_null(tmp_path):
    log = journal.MetricsLog(tmp_path)
    third = 1 / 3
    log.write(
        {"epoch": np.int64(0), "loss": third, "auc": np.float32("nan")}
        | {"accuracy_per_class": np.array([third, 1.0])}
    )
    log.close()
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail) == {
        "epoch": 0,
        "loss": third,
        "auc": None,
        "accuracy_per_class": [third, 1.0],
    }


def test_log_is_cut_to_the_restored_epoch(tmp_path):
    log = journal.MetricsLog(tmp_path)
    for epoch in range(4):
        log.write({"epoch": epoch, "loss": 0.1 * epoch})
    path = tmp_path / "metrics.jsonl"
    before = path.read_text()
    with open(path, "a") as file:
        file.write('{"epoch": 4, "lo')
    log.close()
    log = journal.MetricsLog(tmp_path)
    kept = log.truncate(1)
    assert [record["epoch"] for record in kept] == [0, 1]
    assert path.read_text() == "".join(before.splitlines(True)[:2])
    for epoch in (2, 3):
        log.write({"epoch": epoch, "loss": 0.1 * epoch})
    log.close()
    assert path.read_text() == before
    assert result_files.read_jsonl(path)[3] == {"epoch": 3, "loss": 0.1 * 3}
    assert journal.MetricsLog(tmp_path).truncate(-1) == []
    assert path.read_text() == ""


def test_read_jsonl_names_a_bad_line(tmp_path):
    path = tmp_path / "metrics.jsonl"
    assert result_files.read_jsonl(path) == []
    path.write_text('{"epoch": 0}\n{"epoch"\n{"epoch": 2}\n')
    with pytest.raises(UserError, match="metrics.jsonl: line 2 is not JSON"):
        result_files.read_jsonl(path)


def test_tensorboard_events(tmp_path):
    log = journal.MetricsLog(tmp_path)
    log.write({"epoch": 3, "phase": "warm_up", "loss": 0.25, "none": None})
    log.close()
    (path,) = (tmp_path / "events").iterdir()
    content, values = path.read_bytes(), {}
    while content:
        # A record: length (8 bytes), its checksum (4), data, checksum (4).
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            values[value.tag] = (event.step, value.simple_value)
        content = content[16 + length :]
    assert values == {"loss": (3, 0.25)}


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "summary.json"
    result_files.write_json(path, {"a": np.float32(0.5), "b": float("inf")})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": None}
    with pytest.raises(TypeError):
        result_files.write_json(path, {"a": {1, 2}})
    assert json.loads(path.read_text()) == {"a": 0.5, "b": None}


def test_summary_table():
    table = summary_lib.summary_table(
        {
            "method": "dasc",
            "seconds": 83.4,
            "mean_last10_test_accuracy": 0.94567,
            "clean_recall": None,
        }
    )
    assert table.splitlines() == [
        "method                     dasc",
        "accuracy, mean of last 10  94.57 %",
        "time                       1 min 23 s",
    ]


def test_summary_table_of_several_test_sets():
    table = summary_lib.summary_table(
        {
            "best_test_accuracy": 0.5,
            "last_test_accuracy": 0.5,
            "mean_last10_selection_auc": 0.7,
            **dict.fromkeys(
                (
                    *("last_imagenet_accuracy", "best_imagenet_accuracy"),
                    *("last_test_top5_accuracy", "last_val_top5_accuracy"),
                    "mean_last10_test_top5_accuracy",
                    "test_accuracy_at_best_val",
                ),
                0.25,
            ),
        }
    )
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
    assert table.count("25.00 %") == 6
