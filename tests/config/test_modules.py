"""Modules of methods: where they are found, and what is said where not."""

import dataclasses
import sys

import pytest

from jaxnlt import augment, models
from jaxnlt import method as base
from jaxnlt.augment import table
from jaxnlt.config import base as config_lib
from jaxnlt.config import modules
from jaxnlt.data import registry
from jaxnlt.runtime.errors import UserError
from tests import runs


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, whose modules are forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_ours_and_those_of_the_current_folder(folder):
    path = list(sys.path)
    assert modules.load_method("erm").__name__ == "jaxnlt.methods.erm"
    (folder / "mine").mkdir()
    text = "from jaxnlt.methods.erm import Method"
    (folder / "mine" / "small_loss.py").write_text(text)
    kind = base.find("mine.small_loss")
    assert kind is base.find("erm")
    assert sys.path == path
    assert modules.options_group("mine.small_loss") == "small_loss"


def test_the_search_path_is_widened_for_a_while(folder, monkeypatch):
    monkeypatch.setattr(sys, "path", ["a"])
    with modules.search_path(folder / "configs"):
        assert sys.path == [str(folder / "configs"), "a", ""]
        sys.path.insert(0, "added by the config file")
    assert sys.path == ["added by the config file", "a"]


def test_an_installed_one_by_its_entry_point(folder, monkeypatch):
    (folder / "theirs.py").write_text("from jaxnlt.methods.erm import Method")
    (folder / "their-1.dist-info").mkdir()
    points = folder / "their-1.dist-info" / "entry_points.txt"
    points.write_text("[jaxnlt.methods]\nnice = theirs\n")
    monkeypatch.syspath_prepend(folder)
    assert modules.load_method("nice").__name__ == "theirs"
    config = runs.tiny("erm")
    with config.unlocked():
        config.method, config.nice = "nice", config.erm
    assert base.create(config, base.DataInfo([0, 1], 2)).options.loss == "ce"


@pytest.mark.parametrize(
    "name, source, message",
    [
        ("", None, "'' is not the name of a module"),
        ("../x", None, "'../x' is not the name of a module"),
        ("no.such", None, "there is no module 'no.such'"),
        ("broken", "import no_such_thing", "broken.py, line 1: ModuleNotFound"),
        ("broken", "\n\n1 / 0", "broken.py, line 3: ZeroDivisionError"),
        ("broken", "def (", "broken.py, line 1: SyntaxError"),
        ("broken", "x = 1", "the module 'broken' has no class Method"),
        ("broken", "class Method: ...", "has no class Method that extends"),
    ],
)
def test_mistakes(name, source, message, folder):
    if source is not None:
        (folder / f"{name}.py").write_text(source)
    with pytest.raises(UserError) as error:
        base.find(name)
    assert str(error.value).startswith("config.method: ")
    assert message in str(error.value)


def test_a_group_of_fields_is_there_and_of_its_own():
    config = runs.tiny("erm")
    with config.unlocked():
        config.method = "mine.data"
        with pytest.raises(UserError, match="config.data, which all methods"):
            config_lib.check(config)
        config.method = "dividemix"
        with pytest.raises(
            UserError, match=r"config.dividemix.\w+: is missing"
        ):
            base.create(config, base.DataInfo([0, 1], 2))


def test_names_in_the_tables(monkeypatch):
    for owner, name in (
        (table, "AUGMENTATIONS"),
        (registry, "BENCHMARKS"),
        (models.network, "BACKBONES"),
    ):
        monkeypatch.setattr(owner, name, dict(getattr(owner, name)))
    part = augment.pillow.jitter
    table.register("mine", part)
    table.register("mine", part)
    assert table.AUGMENTATIONS["mine"] == (part,)
    with pytest.raises(UserError, match="'mine': the name is taken"):
        table.register("mine", part, part)
    models.register("mine", object, 8, (1,))
    assert models.network.BACKBONES["mine"].width == 8
    with pytest.raises(UserError, match="'resnet18': the name is taken"):
        models.register("resnet18", object, 8, (1,))
    entry = registry.get("digits")
    registry.register(entry)
    with pytest.raises(UserError, match="'a,b': the name must be"):
        registry.register(dataclasses.replace(entry, name="a,b"))
