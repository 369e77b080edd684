"""Recipes are valid runs; figures, pairs and means by hand."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jaxnlt import command_line
from jaxnlt import method as base
from jaxnlt.bench import timed
from jaxnlt.bench.paired import Cell, Figures, difference, report
from jaxnlt.config import base as config_lib
from jaxnlt.results import files
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError
from launch import recipe

INFO = base.DataInfo(np.arange(40) % 10, 10, np.arange(40))


@pytest.mark.parametrize("setting", ["digits-sym40", "cifar-sym40"])
@pytest.mark.parametrize(
    "row", [*recipe.COMPARED, *(f"dasc+{piece}" for piece in recipe.PIECES)]
)
def test_every_row_is_a_run(row, setting):
    given = recipe.arguments(row, setting, 7, "dev", "DIR")
    config, _ = command_line.parse(["main", *given])
    config_lib.check(config)
    base.create(config, INFO).check()
    assert (config.seed, config.split) == (7, "dev")
    # Each round of H2E trains anew; CIFAR's epochs are divided among them.
    twice = (row, setting) == ("h2e-two-rounds", "digits-sym40")
    assert config.epochs == (80 if twice else 40)
    if setting.startswith("cifar"):
        assert (config.data.path, config.data.n_max) == ("DIR", 1000)
        assert config.optimizer.drops == ()
        options = config.get(config.method, {})
        assert options.get("warmup", 15) == 15
    if row != "dasc":
        plain = recipe.arguments("dasc", setting, 7, "dev", "DIR")
        assert config != command_line.parse(["main", *plain])[0]


def test_pieces_add_up_in_the_group_of_the_method():
    given = recipe.arguments("smr+floor+mean", "digits-clean", 1, "dev", "")
    config, _ = command_line.parse(["main", *given])
    assert (config.smr.trust_floor, config.model.ema) == (0.2, 0.9)
    assert recipe.row_name("smr+floor+mean") == "smr+floor+mean"


@pytest.mark.parametrize("row", ["nope", "dasc+nope", "dasc+", ""])
def test_unknown_rows_are_refused(row):
    with pytest.raises(UserError, match="^--row: "):
        recipe.row_name(row)


def test_settings_are_what_they_are_called():
    wanted = {
        "digits-sym20": (0.1, "sym", 0.2),
        "digits-flip30": (0.1, "flip", 0.3),
        "digits-clean": (0.1, "none", 0.4),
        "digits-balanced": (1, "sym", 0.4),
        "digits-imb05": (0.05, "sym", 0.4),
        "cifar-flip30": (0.1, "flip", 0.3),
        "cifar-human": (0.1, "human:worse", 0),
    }
    for name, known in wanted.items():
        given = recipe.arguments("ce", name, 1, "test", "DIR")
        config, _ = command_line.parse(["main", *given])
        data = config.data
        assert (data.imb, data.noise, data.rate) == known and not config.split


def test_calibration_of_the_vote():
    """Two of three right, each .9 sure: the error is .9 - 2/3."""
    logits = np.log([[9.0, 1], [9.0, 1], [9.0, 1]])
    trainer = SimpleNamespace(
        dataset=SimpleNamespace(
            tests={"test": SimpleNamespace(labels=np.array([0, 0, 1]))}
        ),
        infer_test=lambda states: [[{"z": logits}], [{"z": logits}]],
        method=SimpleNamespace(
            num_nets=2,
            vote=("z",),
            predict=lambda outs, memory: sum(out["z"] for out in outs),
            suggest=lambda outs, memory: None,
        ),
    )
    final = timed.Final(trainer, [], None)
    assert recipe.calibration(final) == pytest.approx(0.9 - 2 / 3)


# One JSON a run ---------------------------------------------------------------


@pytest.fixture
def ran(monkeypatch):
    """Runs that end at once, with 50 % and their seed."""
    calls = []

    def run(arguments, workdir):
        calls.append(workdir.name)
        seed = int(workdir.name.rpartition("-")[2])
        summary = {
            "mean_last10_test_accuracy": 0.5 + seed / 100,
            "issue_average_precision": 0.75,
        }
        return timed.Timed(summary, [{"cpu_seconds": 2.0}] * 3, None)

    monkeypatch.setattr(timed, "run", run)
    return calls


def call(monkeypatch, *words):
    monkeypatch.setattr("sys.argv", ["recipe", *words])
    return recipe.main()


def test_runs_once_and_reports(ran, monkeypatch, capsys, tmp_path):
    words = ["--split", "dev", "--setting", "digits-sym40", "--row", "ce"]
    words += ["--out", str(tmp_path), "--seeds", "1", "3"]
    assert call(monkeypatch, *words) == 0
    assert ran == [
        f"dev-digits-sym40-{row}-{seed}"
        for seed in (1, 3)
        for row in ("ce", "dasc")
    ]
    table = capsys.readouterr().out
    line = (
        "| ce | 2 | 52.0 | 52.0 digits-sym40 | – | – | 0.750 | 6 | +0.0 ± 0.0 |"
    )
    assert line in table.splitlines()
    assert call(monkeypatch, *words) == 0
    assert call(monkeypatch, *words, "--report", "--seeds", "1", "3", "9") == 0
    assert len(ran) == 4 and capsys.readouterr().out.count(table.strip()) == 2


@pytest.mark.parametrize("known", [{"arguments": []}, {}])
def test_other_runs_are_refused(ran, monkeypatch, capsys, tmp_path, known):
    path = tmp_path / "dev-digits-sym40-dasc-1.json"
    files.write_json(path, known)
    words = ["--split", "dev", "--setting", "digits-sym40", "--row", "dasc"]
    words += ["--out", str(tmp_path), "--seeds", "1"]
    for more in ([], ["--report"]):
        assert call(monkeypatch, *words, *more) == console.USER_ERROR
        error = capsys.readouterr().err
        assert error.startswith(f"jaxnlt: error: {path}: ")
        assert error.count("\n") == 1 and ran == []


# Statistics -------------------------------------------------------------------


def known(row, setting, accuracies, **more):
    return {
        Cell(row, setting, seed): Figures(
            **{"accuracy": value, "few": None, "ece": None} | more,
            audit=None,
            cpu=10.0,
        )
        for seed, value in enumerate(accuracies)
    }


FOUND = {
    **known("base", "a", [0.5, 0.7], ece=0.1),
    **known("base", "b", [0.8, 0.8], ece=0.3),
    # Ahead by 10 and 20 points in a, behind by 10 and 10 in b; a third seed
    # has no pair.
    **known("new", "a", [0.6, 0.9, 0.0], few=0.5),
    **known("new", "b", [0.7, 0.7], few=0.7),
    **known("half", "a", [0.5]),
}


def test_differences_are_paired():
    """Variances .005 / 2 and 0 in two settings: sqrt(.0025) / 2."""
    found = difference(FOUND, "new", "base", ["a", "b"])
    assert found == pytest.approx(((0.15 - 0.1) / 2, math.sqrt(0.0025) / 2))
    assert difference(FOUND, "half", "base", ["a"]) == (0, None)
    assert difference(FOUND, "half", "base", ["a", "b"]) is None


def test_report_by_hand():
    text = report(FOUND, ["base", "new", "half", "never"], ["a", "b"], "base")
    first, second = text.split("\n\n")
    assert first.splitlines()[2:] == [
        "| base | 4 | 70.0 | 60.0 a | – | 0.200 | – | 10 | +0.0 ± 0.0 |",
        "| new | 5 | 60.0 | 50.0 a | 60.0 | – | – | 10 | +2.5 ± 2.5 |",
    ]
    assert second.splitlines()[2:] == [
        "| base | 60.0 (+0.0 ± 0.0; 2) | 80.0 (+0.0 ± 0.0; 2) |",
        "| new | 50.0 (+15.0 ± 5.0; 3) | 70.0 (-10.0 ± 0.0; 2) |",
        "| half | 50.0 (+0.0; 1) | – (–; 0) |",
    ]
