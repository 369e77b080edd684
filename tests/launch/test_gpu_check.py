"""All measurements of a GPU machine in one call, and what a cut one leaves."""

import json
import sys

import numpy as np
import pytest

from jaxnlt.bench import command
from launch import gpu_check
from launch.gpu_check import Step

FIGURES = "import sys; open(sys.argv[1], 'w').write('{\"ratio\": 2}')"
# Trains on from where it was stopped; the second call finishes.
TRAINING = """
import pathlib, sys, time
folder = pathlib.Path(sys.argv[1].removeprefix("--workdir="))
if folder.exists():
    (folder / "summary.json").write_text('{"last": 0.9}')
else:
    folder.mkdir(parents=True)
    time.sleep(60)
"""


@pytest.fixture
def call(monkeypatch, tmp_path, capsys):
    def python(*words):
        return [sys.executable, "-c", *words]

    wanted = [
        Step("speed", python(FIGURES, "{json}"), 5),
        Step("wrong", python("import sys; sys.exit('no file')"), 5),
        Step("long", python(FIGURES, "{json}"), 1000),
        Step("train", python(TRAINING, "--workdir={workdir}"), 1, (7,)),
    ]
    monkeypatch.setattr(gpu_check, "steps", lambda *rest: wanted)
    monkeypatch.setattr(gpu_check, "SAVING", 10)
    monkeypatch.setenv("PATH", "")  # no nvidia-smi

    def run(*words):
        status = gpu_check.main([f"--out={tmp_path}", *words])
        merged = json.loads((tmp_path / "gpu_check.json").read_text())
        return status, merged, capsys.readouterr().out.splitlines()

    return run


def test_a_cut_check_goes_on(call):
    status, merged, lines = call("--seconds=12")
    assert status == 1 and not merged["complete"]
    assert [line.partition(":")[0] for line in lines[:3]] == [
        "speed",
        "wrong",
        "train",
    ]
    (speed,) = merged["finished"]
    assert speed["result"] == {"ratio": 2} and speed["seeds"] == [0]
    assert speed["gpu"] == {
        "percent": None,
        "note": "nvidia-smi is not there",
    }
    wrong, long, train = merged["unfinished"]
    assert wrong["log"] == ["no file"] and long["status"] is None
    assert train["status"] == -15 and "stopped" in lines[2]
    status, merged, lines = call("--seconds=12", "--only=train")
    again = merged["finished"][1]
    assert len(lines) == 2 and again["result"] == {"last": 0.9}
    assert again["seeds"] == [7] and again["seconds"] > train["seconds"]
    assert status == 75 and len(merged["unfinished"]) == 2


@pytest.mark.parametrize("data", ["", "cifar", "packed.npz"])
def test_every_command_is_one_that_exists(data, tmp_path, monkeypatch):
    """And the rehearsal has the same steps at digits' sizes."""
    monkeypatch.chdir(tmp_path)
    np.savez("packed.npz", train_images=np.zeros((1, 8, 8, 3), np.uint8))
    wanted = gpu_check.steps(data, [0, 1], False)
    kinds = [step.name.partition("-")[0] for step in wanted]
    assert kinds.count("speed") == 12
    assert kinds.count("gaps") == (12 if data else 0)
    assert kinds.count("ce") == (4 if data else 0)
    rehearsed = gpu_check.steps(data, [0, 1], True)
    assert len(rehearsed) == 30
    for step in [*wanted, *rehearsed]:
        words = [w for w in step.command[3:] if "{" not in w]
        known = {"repeats": 5, "steps": 10}
        config, _ = command.read_config(["bench", *words], known)
        if step.name.startswith("dasc"):
            assert (
                config.data.rate == 0.6 and not config.dasc.aligned_clean_prob
            )
