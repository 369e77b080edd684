"""Both sides of the comparison are read alike; its statistics by hand."""

import json
import math

import numpy as np
import pytest

from jaxnlt import command_line, train
from jaxnlt.config import base
from jaxnlt.data import load
from jaxnlt.runtime import console
from launch import parity

NETS = [
    {"n_selected": 30, "auc": 0.9, "precision": 0.8, "recall": 0.7},
    {"n_selected": 20, "auc": 0.8, "precision": 0.6, "recall": 0.5},
]
THEIRS = {
    "acc": 55.0,
    "per_class": [100, 80, 60, 60, 60, 60, 60, 30, 0, 0],
    "cpu_total": 3.0,
}
OURS = {
    "phase": "semi",
    "test_accuracy": 0.55,
    "accuracy_per_class": [1, 0.8, 0.6, 0.6, 0.6, 0.6, 0.6, 0.3, 0, 0],
    "labelled": 25.0,
    "selection_auc": 0.85,
    "clean_precision": 0.7,
    "clean_recall": 0.6,
    "cpu_seconds": 3.0,
}


def arrays(path):
    """An empty set of images, which only a run would open."""
    np.savez(path, train_images=np.zeros((0, 32, 32, 3), np.uint8))
    return path


@pytest.mark.parametrize("data", parity.SETTINGS)
@pytest.mark.parametrize("method", parity.METHODS)
def test_settings_are_the_authors(method, data, tmp_path):
    path = arrays(tmp_path / f"{data}.npz")
    given = parity.arguments(method, data, 7, path)
    config, _ = command_line.parse(["main", *given])
    base.check(config)
    load.check(config)
    setting = parity.SETTINGS[data]
    assert (config.seed, config.epochs) == (7, setting.epochs)
    if method == "ce":
        assert config.batch_size == 2 * setting.batch
        return
    options = config[config.method]
    assert options.warmup == setting.warmup
    assert (options.lambda_u, options.ramp) == (25, 16)
    if method == "smr":
        assert options.period == setting.period
    dasc = config.method == "dasc"
    assert config.optimizer.weight_decay == (1e-4 if dasc else 5e-4)
    if dasc:
        assert options.contrast_start == setting.contrast_start
        assert (options.midl_label == "arange") is (method == "dasc")


def test_both_sides_are_read_alike():
    semi = parity.theirs(THEIRS | {"selection": NETS, "cpu_ssl": 1.0})
    selection = {"selected": 25, "AUC": 0.85, "precision": 0.7, "recall": 0.6}
    for epoch in (semi, parity.ours(OURS)):
        assert (epoch.phase, epoch.cpu) == ("semi", 3.0)
        assert epoch.accuracy == pytest.approx(55)
        assert epoch.classes == pytest.approx(THEIRS["per_class"])
        assert epoch.selection == pytest.approx(selection)
    assert parity.theirs(THEIRS | {"cpu_recal": 1.0}).phase == "recalibration"
    assert parity.theirs(THEIRS).selection == {}


def test_figures_of_a_run():
    """Epoch i has i % everywhere but in the last three classes."""
    epochs = [parity.Epoch("warm-up", 99.0, (0.0,) * 10, {}, None)]
    for i in range(1, 20):
        classes = (*(float(i),) * 7, 1.0, 2.0, 60.0)
        selection = {"selected": i, "AUC": 0.5, "precision": 1, "recall": 0}
        epochs.append(parity.Epoch("semi", float(i), classes, selection, i))
    found = parity.figures(epochs)
    assert (found["best"], found["accuracy"]) == (99, 14.5)
    assert (found["many"], found["medium"], found["few"]) == (14.5, 14.5, 21)
    assert found["classes lost"] == 2
    assert (found["selected, first"], found["selected, last 5"]) == (1, 17)
    assert found["CPU s, semi"] == 10
    assert "CPU s, warm-up" not in found


def test_errors_by_hand():
    """Deviation 1 on both sides: sqrt(1/3 + 1/3); of ours alone with two."""
    mine = [1.0, 2.0, 3.0]
    expected = 2 / math.sqrt(2 / 3)
    assert parity.errors(mine, [-1.0, 0.0, 1.0]) == pytest.approx(expected)
    two = 2 / math.sqrt(1 / 3 + 1 / 2)
    assert parity.errors(mine, [-9.0, 9.0]) == pytest.approx(two)
    assert parity.errors([1.0], [0.0, 1.0, 2.0]) is None
    assert parity.errors([1.0, 1.0], [0.0]) is None


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The authors' runs, and runs of ours that write one epoch each."""
    record = {"data": "digits_small", "method": "ce", "epochs": 30}
    record["per_epoch"] = [THEIRS]
    shorter = record | {"epochs": 25, "per_epoch": []}
    (tmp_path / "results.json").write_text(json.dumps([record, shorter]))
    (tmp_path / "data").mkdir()
    arrays(tmp_path / "data" / "digits_small.npz")
    calls = []

    def trained(config, workdir, command, observe, quiet):
        calls.append(workdir.name)
        workdir.mkdir(parents=True)
        epoch = OURS | {"test_accuracy": config.seed / 100}
        del epoch["cpu_seconds"]
        lines = [json.dumps(epoch)] * 2
        (workdir / "metrics.jsonl").write_text("\n".join([*lines, ""]))
        observe(None, None, None)

    monkeypatch.setattr(train, "run", trained)
    return tmp_path, calls


def test_runs_once_and_reports(folder, monkeypatch, capsys):
    path, calls = folder
    words = ["parity", str(path), "--method", "ce", "--out", str(path / "out")]
    monkeypatch.setattr("sys.argv", [*words, "--seeds", "50", "60"])
    assert parity.main() == 0
    assert calls == ["digits_small-ce-50", "digits_small-ce-60"]
    table = capsys.readouterr().out
    assert "| ce | theirs (1) | ours (2) |" in table
    assert "| best | 55.0 | 55.0 ± 7.1 | +0.0 | +0.0 |" in table
    done = json.loads((path / "out" / "digits_small-ce-50.json").read_text())
    # A run that went on has no time of the epochs before.
    assert ["cpu_seconds" in epoch for epoch in done["epochs"]] == [False, True]
    assert parity.main() == 0
    monkeypatch.setattr("sys.argv", [*words, "--report", "--seeds", "70"])
    assert parity.main() == 0
    assert len(calls) == 2
    assert capsys.readouterr().out.count(table.strip()) == 2


@pytest.mark.parametrize("text", [None, "{", "3", '[{"data": "x"}]'])
def test_bad_records_are_one_line(folder, monkeypatch, capsys, text):
    path, _ = folder
    if text is None:
        (path / "results.json").unlink()
    else:
        (path / "results.json").write_text(text)
    monkeypatch.setattr("sys.argv", ["parity", str(path), "--report"])
    assert parity.main() == console.USER_ERROR
    error = capsys.readouterr().err
    assert error.startswith(f"jaxnlt: error: {path / 'results.json'}: ")
    assert error.count("\n") == 1
