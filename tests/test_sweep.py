"""Results tables: command lines, what labels.csv tells, the gathered rows."""

import json
import sys

import pytest

from jaxnlt import cli
from launch import sweep

LABELS = """\
index,given_label,clean_probability,predicted_label,suggested_label,true_label
0,a,0.9,a,a,a
1,a,0.1,b,b,b
2,a,0.4,a,b,a
3,b,0.2,b,c,c
4,b,0.8,b,b,b
5,c,0.7,c,c,a
"""


def test_prints_every_command_once(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["sweep.py", "digits", "--out=OUT"])
    assert sweep.main() == 0
    lines = capsys.readouterr().out.splitlines()
    table = sweep.TABLES["digits"]
    a_row = table.seeds + sum(table.also.values())
    assert len(lines) == len(set(lines)) == len(table.rows) * a_row
    assert lines[0] == (
        "python -m jaxnlt.main --config=configs/erm.py:digits,seed=0 "
        "--workdir=OUT/erm-digits-seed=0"
    )


@pytest.mark.parametrize("name", sweep.TABLES)
def test_every_command_is_a_config_and_a_folder_of_its_own(name, tmp_path):
    folders = set()
    for _, _, workdir, (config, *rest) in sweep.runs(
        sweep.TABLES[name], tmp_path
    ):
        assert workdir not in folders
        folders.add(workdir)
        if config.endswith("seed=0"):
            cli.parse(["main", config, *rest])


def test_what_labels_tell(tmp_path):
    (tmp_path / "labels.csv").write_text(LABELS)
    facts = sweep.from_labels(tmp_path)
    # Wrong are rows 1, 3 and 5; called wrong 1, 2 and 3.
    assert facts["flag_precision"] == pytest.approx(2 / 3)
    assert facts["flag_recall"] == pytest.approx(2 / 3)
    assert facts["wrong_learnt"] == pytest.approx(2 / 3)
    assert facts["right_flagged"] == pytest.approx(1 / 3)
    assert facts["right_learnt"] == 1
    # Thirds by size of the given classes: a, b, c.
    assert facts["flag_recall_head"] == facts["flag_recall_middle"] == 1
    assert facts["flag_recall_tail"] == 0
    assert facts["flag_precision_head"] == 0.5
    assert facts["flag_precision_tail"] is None


def test_gathers_rows_columns_and_their_seeds(tmp_path):
    table = sweep.Table(
        {"CE": [sweep.ERM], "never run": [sweep.DASC]}, 2, {"imb=1": 1}
    )
    for i, (_, _, workdir, _) in enumerate(sweep.runs(table, tmp_path)):
        if "dasc" in workdir.name:
            continue
        workdir.mkdir()
        (workdir / "labels.csv").write_text(LABELS)
        (workdir / "config.json").write_text('{"method": "erm", "erm": {}}')
        summary = {
            "mean_last10_test_accuracy": 0.5 + 0.1 * i,
            "networks_voting": 1,
            "seconds": 10.0,
            "noise_rate_realised": 0.25,
            "device": "CPU",
        }
        (workdir / "summary.json").write_text(json.dumps(summary))
    found = sorted(path.name for path in tmp_path.iterdir())
    assert found == [
        "erm-digits-imb=1-seed=0",
        "erm-digits-seed=0",
        "erm-digits-seed=1",
    ]
    head, _, row, *rest = sweep.gather(table, tmp_path).splitlines()
    assert head.startswith("|  | seeds | last 10 |")
    assert head.endswith("| imb=1, last 10 |")
    # Seed 0 is the first run, seed 1 comes after both of DaSC's first.
    assert row.startswith("| CE | 2 | 70.0 ± 28.3 |")
    assert row.endswith("| 1 | – | 10 | 60.0 (1) |")
    assert "never run" not in "".join(rest)
