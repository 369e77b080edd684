"""A replay selects what the run selected; the tables say how right that is."""

import shutil
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import sfa
from jaxnlt import method as base
from jaxnlt import train, trainer
from jaxnlt.data import load
from jaxnlt.data.records import Split
from jaxnlt.results import files as result_files
from jaxnlt.results import outputs as outputs_log
from jaxnlt.runtime.errors import UserError
from launch import study_selector
from tests import runs

SETTINGS = ("sfa.beta=0,0.99", "sfa.persist_moments=false", "sfa.draws=1,5")


@pytest.fixture(scope="module")
def logged(tmp_path_factory):
    """A tiny run of SFA that keeps its outputs, and what it selected."""
    config = sfa.get_config("digits,epochs=5")
    small = {"max_steps": 2, "sfa.warmup": 1, "log_outputs": True}
    runs.shrink(config, **small)
    workdir = tmp_path_factory.mktemp("study") / "run"
    seen, select = {}, trainer.Trainer.select

    def remember(self, epoch, *args):
        selections, memory = select(self, epoch, *args)
        if self.method.phase(epoch).selector:
            seen[epoch] = selections
        return selections, memory

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer.Trainer, "select", remember)
        train.run(config, str(workdir))
    return config, workdir, seen


@pytest.fixture
def workdir(logged, tmp_path):
    """A copy of the run's folder, to be changed."""
    return shutil.copytree(logged[1], tmp_path / "copy")


def test_replay_is_the_run(logged):
    config, workdir, seen = logged
    replay = study_selector.Replay(config, load.dataset(config))
    assert replay.selecting_epochs() == sorted(seen) == [1, 2, 3, 4]
    for epoch, selections in seen.items():
        pooled = outputs_log.read(workdir, epoch)
        for k, again in enumerate(replay.advance(epoch, pooled)):
            for name in ("clean_probability", "labelled", "unlabelled"):
                np.testing.assert_array_equal(
                    getattr(again, name), getattr(selections[k], name)
                )


def test_figures_of_the_run_are_those_it_logged(logged):
    _, workdir, _ = logged
    _, found = study_selector.study(workdir, SETTINGS)
    name, own = next(iter(found.items()))
    assert name == "as run: sfa.beta=0.99 sfa.persist_moments=True sfa.draws=1"
    for record in result_files.read_jsonl(workdir / "metrics.jsonl")[1:]:
        figures = own[record["epoch"]]
        scalars = {k: v for k, v in figures.items() if k != "classes"}
        assert len(scalars) >= 5 and scalars.items() <= record.items()
    assert study_selector.largest_difference(workdir, own) == 0
    # The run's own values are not repeated; the others do something.
    others = ["sfa.beta=0", "sfa.persist_moments=false", "sfa.draws=5"]
    assert list(found)[1:] == others
    last = [by_epoch[4]["selection_auc"] for by_epoch in found.values()]
    assert len({float(auc) for auc in last}) == 4
    # Before the second selection, moments have no past.
    for key, value in found["sfa.beta=0"][1].items():
        np.testing.assert_array_equal(value, own[1][key])


def test_a_difference_is_reported(workdir):
    _, found = study_selector.study(workdir, [])
    assert list(found) == ["as run"]
    found["as run"][2]["selection_auc"] += 0.25
    off = study_selector.largest_difference(workdir, found["as run"])
    assert off == pytest.approx(0.25)


def test_another_selector_reads_the_same_outputs(logged):
    _, found = study_selector.study(logged[1], ["selector=dividemix"])
    own, other = found.values()
    assert list(found)[1] == "selector=dividemix"
    assert own[4]["selection_auc"] != other[4]["selection_auc"]


def test_a_resumed_run_replaces_what_it_had_logged(logged, workdir):
    config, whole, _ = logged
    (workdir / "summary.json").unlink()
    shutil.rmtree(workdir / "checkpoints" / "4")
    outputs_log.file_of(workdir, 4).write_bytes(b"of a run that was killed")
    train.run(config, str(workdir))
    mine, other = (outputs_log.read(run, 4)[0] for run in (workdir, whole))
    assert set(mine[0][0]) == {"features", "logits", "balanced"}
    jax.tree.map(np.testing.assert_array_equal, mine, other)


def test_command_prints_both_tables(logged, capsys, monkeypatch):
    words = ["study_selector.py", str(logged[1]), "--vary", "sfa.beta=0"]
    monkeypatch.setattr(sys, "argv", words)
    assert study_selector.main() == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("| setting | AUC | AUC per class, mean |")
    assert lines[2].startswith("| as run: sfa.beta=0.99 | 0.")
    assert lines[3].startswith("| sfa.beta=0 | 0.")
    assert lines[5].startswith("| AUC within | 0 (134) | 1 (103) |")
    assert lines[-1].startswith("Means over the last 4 of 4 logged epochs")
    assert lines[-1].endswith("differs from its metrics.jsonl by 0.")


@pytest.mark.parametrize(
    "vary, message",
    [
        ("sfa.beta", "--vary sfa.beta: expects"),
        ("sfa.betta=1", "config.sfa.betta: no such field"),
        ("sfa=1", "config.sfa: no such field"),
        ("sfa.beta=x", "config.sfa.beta: expects float"),
        ("sfa.beta=1", "config.sfa.beta: "),
        ("sfa.persist_moments=2", "config.sfa.persist_moments: expects bool"),
        ("sfa.warmup=2", "config.sfa.warmup=2: changes which epochs"),
        ("selector=unkown", "config.selector: 'unkown'"),
    ],
)
def test_bad_settings_are_refused(logged, vary, message):
    with pytest.raises(UserError, match=f"^{message}"):
        study_selector.study(logged[1], [vary])


def test_outputs_must_be_there(workdir, capsys, monkeypatch):
    outputs_log.file_of(workdir, 2).unlink()
    with pytest.raises(UserError, match="epoch_002.npz: is missing"):
        study_selector.study(workdir, [])
    for epoch in (3, 4):  # stopped after the first: its one epoch stands
        outputs_log.file_of(workdir, epoch).unlink()
    assert list(study_selector.study(workdir, [])[1]["as run"]) == [1]
    outputs_log.file_of(workdir, 1).unlink()
    monkeypatch.setattr(sys, "argv", ["study_selector.py", str(workdir)])
    assert study_selector.main() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("logged by a run with --config.log_outputs")


def test_unlogged_heads_are_named(logged):
    config, workdir, _ = logged
    replay = study_selector.Replay(config, load.dataset(config))
    pooled = outputs_log.read(workdir, 1)
    for batches in pooled[0]:
        del batches[0]["features"]
    with pytest.raises(UserError, match="reads features, which the run did"):
        replay.advance(1, pooled)


def test_figures_by_class():
    """Class 0 is ranked right, 1 wrong, 2 has no noise."""
    given = np.array([0, 0, 1, 1, 2])
    true = np.array([0, 1, 1, 0, 2])
    split = Split(np.zeros((5, 1, 1, 1)), given, true, np.arange(5))
    dataset = SimpleNamespace(train=split, num_classes=3)

    selections = [
        base.Selection(
            labelled=np.array(labelled),
            unlabelled=np.arange(0),
            weights=np.ones(5),
            counts=np.ones(3),
            clean_probability=np.array([0.9, 0.1, *clean, 1.0]),
        )
        for clean, labelled in (([0.2, 0.8], [0, 3]), ([0.5, 0.5], [0, 2, 4]))
    ]
    figures = study_selector.figures(selections, dataset)
    np.testing.assert_array_equal(figures["classes"], [1.0, 0.25, np.nan])
    assert figures["clean_precision"] == 0.75
    np.testing.assert_allclose(figures["clean_recall"], (1 / 3 + 1) / 2)


def test_tables_average_the_last_ten_and_the_tail():
    dataset = SimpleNamespace(
        class_names=("banana", "b", "c", "d", "e", "f"),
        num_classes=6,
        true_counts=np.array([9, 1, 8, 7, 2, 6]),
    )

    def epoch(auc, *classes):
        other = dict.fromkeys(("clean_precision", "clean_recall"), 0.5)
        return {"selection_auc": auc, "classes": np.array(classes), **other}

    early = {e: epoch(0.0, *np.zeros(6)) for e in range(3)}
    classes = (1, 0.2, 1, 1, 0.6, np.nan)
    late = {e: epoch(0.44 + 0.02 * e, *classes) for e in range(3, 13)}
    text = study_selector.tables(dataset, {"x": early | late})
    first, second = text.split("\n\n")
    means = "| x | 0.5900 | 0.7600 | 0.4000 | 0.5000 | 0.5000 |"
    assert first.splitlines()[-1] == means
    assert second.startswith("| AUC within | banana (9) | b (1) |")
    row = "| x | 1.000 | 0.200 | 1.000 | 1.000 | 0.600 | – |"
    assert second.splitlines()[-1] == row
