import json

import numpy as np
import pytest

from jaxnlt.results import files, journal


def test_log_writes_full_precision_and_null(tmp_path):
    log = journal.MetricsLog(tmp_path)
    third = 1 / 3
    log.write(
        {"epoch": np.int64(0), "loss": third, "auc": np.float32("nan")}
        | {"accuracy_per_class": np.array([third, 1.0])}
    )
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
    log = journal.MetricsLog(tmp_path)
    kept = log.truncate(1)
    assert [record["epoch"] for record in kept] == [0, 1]
    assert path.read_text() == "".join(before.splitlines(True)[:2])
    for epoch in (2, 3):
        log.write({"epoch": epoch, "loss": 0.1 * epoch})
    assert path.read_text() == before
    assert files.read_jsonl(path)[3] == {"epoch": 3, "loss": 0.1 * 3}
    assert journal.MetricsLog(tmp_path).truncate(-1) == []
    assert path.read_text() == ""
