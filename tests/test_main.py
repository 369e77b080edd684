import logging
import os
import pathlib
import shlex
import subprocess
import sys
from unittest import mock

import jax
import numpy as np
import pytest

from jaxnlt import command_line, main, train
from jaxnlt.config import base as config_lib
from jaxnlt.data import registry
from jaxnlt.results import files as result_files
from jaxnlt.results import journal
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError, logger

REPOSITORY = pathlib.Path(__file__).parents[1]
TINY = "--config.model.width=4 --config.model.blocks=(1,)"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """An empty current directory, as that of who installed a wheel."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    monkeypatch.delenv("XLA_FLAGS", raising=False)


@pytest.fixture
def ran(monkeypatch):
    """Arguments of train.run, which is replaced."""
    calls = []

    def run(config, workdir, command, watch):
        calls.append((config, workdir, command))
        return {"method": config.method, "workdir": workdir}

    monkeypatch.setattr(train, "run", run)
    return calls


def call(command: str) -> int:
    return main.main(["jaxnlt", *shlex.split(command)])


def refused(command: str, capsys) -> str:
    """The text of the one line on stderr; checks the contract."""
    before = sorted(pathlib.Path.cwd().rglob("*"))
    assert call(command) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("jaxnlt: error: ") and err.endswith("\n")
    assert err.count("\n") == 1
    assert sorted(pathlib.Path.cwd().rglob("*")) == before
    return err.removeprefix("jaxnlt: error: ").rstrip("\n")


@pytest.mark.parametrize(
    "command, start",
    [
        ("", "--config: missing"),
        ("--config", "--config: needs a value"),
        ("--config=", "--config: needs a value"),
        ("--config=dasc --config=erm", "--config=erm: --config is given twice"),
        ("--config.seed=1 --config=dasc", "--config.seed=1: must stand after"),
        ("--config=nope", "--config: nope: no such file; methods are best"),
        ("--config=configs/nope.py:digits", "--config: configs/nope.py: no"),
        ("--config=other/dasc.py", "--config: other/dasc.py: no such file"),
        ("--config=dasc:cifar11", "benchmark 'cifar11': unknown (did you"),
        ("--config=dasc:digits,imbb=1", "imbb: unknown key; known are"),
        ("--config=dasc:digits,seed=1.5", "seed: expects int, is '1.5'"),
        ("--config=dasc:digits,rate=1.5", "config.data.rate: must be in [0"),
        ("--config=dasc:digits,split=x", "config.split: "),
        (
            "--config=dasc:digits,seed=-1",
            "config.seed: must be in [0, 42",
        ),
        ("--config=dasc --config.sed=1", "config.sed: no such field, did you"),
        ("--config=dasc --config.lambda_u=1", "config.lambda_u: no such field"),
        ("--config=dasc --noconfig.dasc.mid", "config.dasc.mid: no such field"),
        ("--config=dasc --config.data={}", "config.data: is a group"),
        ("--config=dasc --config.seed=x", "config.seed: expects int, is 'x'"),
        ("--config=dasc --config.seed=", "config.seed: expects int, is ''"),
        ("--config=dasc --config.seed", "command line: Missing value"),
        ("--config=dasc --config.epochs=0", "config.epochs: must be in"),
        ("--config=dasc --config.batch_size=0", "config.batch_size: must be"),
        (
            "--config=dasc --config.optimizer.learning_rate=nan",
            "config.optimizer.learning_rate: must be finite, is nan",
        ),
        ("--config=dasc --config.dasc.midl=maybe", "config.dasc.midl: expects"),
        ("--config=dasc --config.model.blocks=two", "config.model.blocks: exp"),
        ("--config=dasc --config.model.blocks=(1,", "config.model.blocks: exp"),
        ("--config=dasc --config.method=erm", "config.method: is chosen by"),
        ("--config=dasc --config.benchmark=npz", "config.benchmark: is chosen"),
        ("--config=dasc --wrkdir=x", "--wrkdir: unknown flag"),
        ("--config=dasc more", "'more': is not a flag"),
        ("--config=dasc --workdir", "command line: Missing value"),
        ("--config=dasc --flagfile=/no/file", "command line: "),
        ("--config=dasc:cifar10 --config.data.path=no", "config.data.path: "),
    ],
)
def test_mistakes_are_one_line(command, start, capsys):
    assert refused(command, capsys).startswith(start)


def npz(path, count):
    images = np.zeros((40, 8, 8, 1), np.uint8)
    remark = np.zeros(1)  # not used, which is a warning
    labels = np.arange(count) % 2
    np.savez(path, train_images=images, train_labels=labels, remark=remark)
    return path


def test_warnings_before_the_start_give_way_to_the_error(tmp_path, capsys):
    file = npz(tmp_path / "a.npz", 39)
    line = refused(f"--config=dasc:npz --config.data.path={file}", capsys)
    assert line.startswith(f"{file}: train_labels must have shape (40,)")


def test_warnings_appear_when_the_run_starts(tmp_path, capsys, monkeypatch):
    def progress(*args):
        raise LookupError(capsys.readouterr().err)

    monkeypatch.setattr(journal, "Progress", progress)
    file = npz(tmp_path / "a.npz", 40)
    line = f"jaxnlt: warning: {file}: not used: remark\n"
    with pytest.raises(LookupError, match=line):
        call(f"--config=erm:npz --config.data.path={file} {TINY}")


@pytest.mark.parametrize("name", ["file", "file/in/it"])
def test_unwritable_workdir(name, capsys):
    pathlib.Path("file").touch()
    line = refused(f"--config=erm --workdir={name} {TINY}", capsys)
    assert line.startswith(f"{pathlib.Path.cwd() / name}: ")


def test_workdir_of_an_older_version(capsys):
    """That of another config: test_train.py."""
    workdir = pathlib.Path("run")
    workdir.mkdir()
    config = config_lib.as_json(command_line.load_config("dasc", "digits"))
    result_files.write_json(workdir / "config.json", config)
    result_files.write_json(workdir / "dataset.json", {"class_names": []})
    line = refused("--config=dasc:digits --workdir=run", capsys)
    assert line.startswith(f"{workdir.absolute()}: ") and "older" in line


def test_overrides_workdir_and_command_reach_the_run(ran, capsys):
    command = (
        "--config=configs/dasc.py:digits,seed=3 --workdir 'my runs/a' "
        "--config.dasc.lambda_u=30 --noconfig.dasc.midl --config.data.n_max 99 "
        "--config.model.blocks=2,1 --config.data.path='a: b'"
    )
    assert call(command) == 0
    ((config, workdir, recorded),) = ran
    assert workdir == "my runs/a"
    assert config.method == "dasc" and config.seed == 3
    assert repr(config.dasc.lambda_u) == "30.0" and config.dasc.midl is False
    assert config.data.n_max == 99 and config.data.path == "a: b"
    assert config.model.blocks == (2, 1)
    start = "python -m jaxnlt.main "
    assert recorded.startswith(start)
    assert shlex.split(recorded.removeprefix(start)) == shlex.split(command)
    out, err = capsys.readouterr()
    assert "my runs/a" in out and err == ""


@pytest.mark.parametrize(
    "name", ["dasc", "dasc.py", "configs/dasc", "configs/dasc.py"]
)
def test_shipped_configs_are_found_anywhere(name):
    file = command_line.config_file(name)
    assert file.samefile(REPOSITORY / "configs/dasc.py")


def test_installed_configs_come_with_the_package(tmp_path, monkeypatch):
    configs = tmp_path / "jaxnlt" / "configs"
    configs.mkdir(parents=True)
    (configs / "own.py").touch()
    here = str(configs.parent / "command_line.py")
    monkeypatch.setattr(command_line, "__file__", here)
    assert command_line.config_file("own") == configs / "own.py"
    assert command_line.methods() == ["own"]


def test_own_files_come_first(ran):
    pathlib.Path("configs").mkdir()
    mine = pathlib.Path("configs/dasc.py")
    shipped = (REPOSITORY / "configs/dasc.py").read_text()
    mine.write_text(shipped.replace("**semi,", "**semi,\n        phi=7.0,"))
    for name in ("dasc", "configs/dasc.py", mine.absolute()):
        assert call(f"--config={name}:cifar10") == 0
    assert [config.dasc.phi for config, _, _ in ran] == [7.0] * 3
    # The default is left to the run.
    assert [workdir for _, workdir, _ in ran] == [None] * 3


@pytest.mark.parametrize(
    "text, line",
    [
        ("def get_config(:\n", "mine.py, line 1: SyntaxError: "),
        ("\nimport no_such_thing\n", "mine.py, line 2: ModuleNotFoundError: "),
        ("def get_config(arg=None):\n    1 / 0\n", "mine.py, line 2: ZeroDiv"),
        ("def get_config(arg=None): return {}\n", "mine.py: get_config must"),
        ("x = 1\n", "mine.py: AttributeError: "),
    ],
)
def test_broken_config_file(text, line, capsys, tmp_path):
    (tmp_path / "mine.py").write_text(text)
    found = refused(f"--config={tmp_path / 'mine.py'}", capsys)
    assert found.startswith(f"{tmp_path}/{line}")


@pytest.mark.parametrize("flag", ["--help", "-h", "--config=dasc --help"])
def test_help_for_newcomers(flag, capsys):
    assert call(flag) == 0
    out, err = capsys.readouterr()
    assert err == "" and max(map(len, out.splitlines())) <= 80
    for word in ("usage:", "examples", "report.html", "same command", "dasc"):
        assert word in out
    assert all(name in out for name in registry.BENCHMARKS)


@pytest.mark.parametrize(
    "method, keys", [("dasc", ()), ("erm", ("loss", "view", "num_nets"))]
)
def test_help_of_a_method(method, keys, capsys):
    assert call(f"--config=configs/{method}.py:help") == 0
    out, err = capsys.readouterr()
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert err == ""
    for entry in registry.BENCHMARKS.values():
        assert f"{entry.name} {entry.about}" in lines
    words = {line.split(" ")[0] for line in lines}
    assert {*config_lib.KEYS, *keys} <= words
    config = command_line.load_config(method)
    fields = config_lib.flatten(config.to_dict())
    assert {f"config.{k} = {v!r}" for k, v in fields.items()} <= set(lines)


def test_absent_devices_are_one_line(capsys, monkeypatch):
    monkeypatch.setattr(jax, "devices", mock.Mock(side_effect=AssertionError))
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    line = refused("--config=dasc", capsys)
    assert line.startswith("JAX_PLATFORMS=cuda: no such device")


def test_interrupt_says_how_to_resume(monkeypatch, capsys):
    run = mock.Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(train, "run", run)
    assert call("--config=dasc") == 130
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "same command" in err


def test_our_own_mistakes_keep_their_traceback(monkeypatch):
    run = mock.Mock(side_effect=ValueError("a bug"))
    monkeypatch.setattr(train, "run", run)
    with pytest.raises(ValueError, match="a bug"):
        call("--config=dasc")


@pytest.mark.parametrize("given", [None, "--xla_dump_to=x"])
def test_deterministic_reaches_xla_first(given, ran, monkeypatch):
    if given:
        monkeypatch.setenv("XLA_FLAGS", given)
    assert call("--config=dasc") == 0
    assert os.environ.get("XLA_FLAGS") == given
    assert call("--config=dasc --config.deterministic") == 0
    flags = os.environ["XLA_FLAGS"].split()
    monkeypatch.delenv("XLA_FLAGS")
    assert flags[-1] == "--xla_gpu_deterministic_ops=true"
    assert flags[:-1] == ([given] if given else [])


def test_libraries_are_quiet(capsys, caplog):
    def command(argv):
        logger.warning("early\nin two lines")
        assert capsys.readouterr().err == ""
        logger.info("begins", extra={"started": True})
        early = "jaxnlt: warning: early in two lines\n"
        assert capsys.readouterr().err == early
        for name in ("absl", "orbax.checkpoint"):
            caplog.set_level(logging.DEBUG, name)
            logging.getLogger(name).info("chatter")
            logging.getLogger(name).warning("chatter")
        logging.getLogger("jax._src.xla_bridge").info("chatter")
        assert capsys.readouterr().err == ""
        logging.getLogger("jax._src.xla_bridge").warning("no GPU")
        logger.info("a note")
        late = "jaxnlt: warning: no GPU\njaxnlt: note: a note\n"
        assert capsys.readouterr().err == late
        raise UserError("late")

    handlers = list(logging.root.handlers)
    assert console.guarded(command, [], "") == 2
    assert capsys.readouterr().err == "jaxnlt: error: late\n"
    assert logging.root.handlers == handlers


def test_as_a_program():
    command = [sys.executable, "-m", "jaxnlt.main"]
    done = subprocess.run(
        [*command, "--config=dasc", "--config.sed=1"],
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "jaxnlt: error: config.sed: no such field, did you mean config.seed?\n"
    )
