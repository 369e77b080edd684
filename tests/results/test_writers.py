"""Charts elsewhere: what is written, and that they never end a run."""

import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from jaxnlt import main
from jaxnlt.results import figures, writers
from tests import runs

RECORD = {"epoch": 3, "phase": "warm_up", "loss": np.float32(0.25)} | {
    "none": None,
    "accuracy_per_class": np.array([0.5, 1.0]),
}


def tensorboard(folder):
    """{tag: (step, value)} of the one events file."""
    (path,) = folder.iterdir()
    content, values = path.read_bytes(), {}
    while content:
        # A record: length (8 bytes), its checksum (4), data, checksum (4).
        length = int.from_bytes(content[:8], "little")
        event = event_pb2.Event.FromString(content[12 : 12 + length])
        for value in event.summary.value:
            values[value.tag] = (event.step, value.simple_value)
        content = content[16 + length :]
    return values


@pytest.fixture
def wandb(monkeypatch):
    """A package wandb that notes what reaches it."""
    said = []

    def init(**settings):
        said.append(settings)
        return SimpleNamespace(
            log=lambda values, step: said.append((values, step)),
            finish=lambda: said.append("finish"),
        )

    module = SimpleNamespace(init=init, said=said)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


def test_tensorboard_alone_by_default(tmp_path, wandb):
    of_run = writers.Writers(runs.tiny("erm"), tmp_path)
    of_run.write(RECORD)
    of_run.close()
    assert tensorboard(tmp_path / "events") == {"loss": (4, 0.25)}
    assert wandb.said == []


def test_wandb_goes_on_with_its_run(tmp_path, wandb):
    config = runs.tiny("erm", wandb="labels")
    for epoch in (3, 4):
        of_run = writers.Writers(config, tmp_path)
        of_run.write(RECORD | {"epoch": epoch})
        of_run.close()
    first, *rest = wandb.said
    assert (first["project"], first["dir"]) == ("labels", str(tmp_path))
    assert first["config"]["erm"]["loss"] == "ce"
    assert rest[:2] == [({"loss": 0.25}, 4), "finish"]
    assert rest[2] == first and rest[3] == ({"loss": 0.25}, 5)


@pytest.mark.parametrize("at", ["init", "log"])
def test_a_writer_that_fails_is_left_out(at, tmp_path, wandb, caplog):
    def fail(*args, **kwargs):
        raise OSError("no network\nat all")

    if at == "init":
        wandb.init = fail
    else:
        wandb.init = lambda **settings: SimpleNamespace(log=fail, finish=fail)
    config = runs.tiny("erm", wandb="labels")
    with caplog.at_level(logging.WARNING, "jaxnlt"):
        of_run = writers.Writers(config, tmp_path)
        of_run.write(RECORD)
        of_run.write(RECORD | {"epoch": 4})
        of_run.close()
    (said,) = [record.getMessage() for record in caplog.records]
    assert said == (
        "Weights & Biases: nothing more is written there "
        "(OSError: no network at all)"
    )
    assert tensorboard(tmp_path / "events") == {"loss": (5, 0.25)}


@pytest.mark.parametrize("module", [None, SimpleNamespace()])
def test_a_missing_package_is_one_line(module, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(sys.modules, "wandb", module)
    monkeypatch.chdir(tmp_path)
    words = ["--config=erm", "--config.wandb=labels"]
    assert main.main(["jaxnlt", *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "pip install 'jaxnlt[wandb]'" in err
    assert not list(tmp_path.iterdir())


def test_figures_count_epochs_from_one(monkeypatch):
    monkeypatch.setattr(figures, "_svg", lambda figure: figure)
    figure = figures.losses([RECORD, RECORD | {"epoch": 4}], ["loss"])
    (line,) = figure.axes[0].lines
    assert line.get_xdata().tolist() == [4, 5]
