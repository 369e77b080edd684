"""The console script: commands, the version, and what is mistyped."""

import importlib
import sys
import tomllib
import types
from pathlib import Path

import pytest

import jaxnlt
from jaxnlt import __main__ as commands
from jaxnlt import main


def test_the_script_is_declared():
    project = Path(__file__).parents[1] / "pyproject.toml"
    scripts = tomllib.loads(project.read_text())["project"]["scripts"]
    assert scripts == {"jaxnlt": "jaxnlt.__main__:entry"}


def test_version(capsys):
    assert commands.main(["jaxnlt", "--version"]) == 0
    assert capsys.readouterr().out == f"jaxnlt {jaxnlt.__version__}\n"


@pytest.mark.parametrize("name", commands.offered())
def test_every_command_has_its_help(name, capsys):
    assert commands.main(["jaxnlt", name, "--help"]) == 0
    assert commands.MODULES[name] in capsys.readouterr().out


@pytest.mark.parametrize("name", [[], ["train"]])
def test_training_may_go_without_its_name(name, monkeypatch):
    given = []
    monkeypatch.setattr(main, "main", lambda argv: given.append(argv) or 75)
    assert commands.main(["jaxnlt", *name, "--config=erm"]) == 75
    assert given == [["jaxnlt", "--config=erm"]]


def test_a_module_that_is_there_is_offered(monkeypatch):
    monkeypatch.setitem(commands.MODULES, "absent", "jaxnlt.no_such_module")
    assert "absent" not in commands.offered()
    monkeypatch.setitem(commands.MODULES, "absent", "there")
    module = types.ModuleType("there")
    module.__spec__ = importlib.machinery.ModuleSpec("there", None)
    module.main = lambda argv: len(argv)
    monkeypatch.setitem(sys.modules, "there", module)
    assert commands.main(["jaxnlt", "absent", "a", "b"]) == 3


def test_a_mistyped_command_is_one_line(capsys):
    assert commands.main(["jaxnlt", "trian", "--config=erm"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("jaxnlt: error: trian: no such command, did you mean")
