"""The public names, and the examples in their docstrings."""

import doctest
import importlib
import importlib.util
import sys

import pytest

import jaxnlt

# Each may use what those before it have left.
EXAMPLES = [
    "load_config",
    "run",
    "predict",
    "Result",
    "fit",
    "NoisyLabelClassifier",
    "audit",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("examples")


def offered(name):
    """Whether the module of a public name is there yet."""
    return importlib.util.find_spec(jaxnlt._PUBLIC[name]) is not None


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_docstring_example_runs(name, folder, monkeypatch, capsys):
    if not offered(name):
        pytest.skip(f"{name} comes with {jaxnlt._PUBLIC[name]}")
    monkeypatch.chdir(folder)
    public = getattr(jaxnlt, name)
    found = doctest.DocTestFinder(recurse=False).find(public, name, globs={})
    assert sum(len(test.examples) for test in found) > 1
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    failed = [runner.run(test).failed for test in found]
    assert not any(failed), capsys.readouterr().out


def test_public_names():
    for name in filter(offered, jaxnlt._PUBLIC):
        assert getattr(jaxnlt, name).__name__ == name
    assert set(jaxnlt.__all__) <= set(dir(jaxnlt))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jaxnlt.nothing  # noqa: B018


@pytest.mark.parametrize(
    "statement",
    [
        "import jaxnlt.predict",
        "import jaxnlt.predict as found",
        "from jaxnlt.predict import find_images",
        "importlib.import_module('jaxnlt.predict').main",
        "jaxnlt.predict; import jaxnlt.predict",
    ],
)
def test_no_module_hides_a_public_name(statement, monkeypatch):
    monkeypatch.delitem(sys.modules, "jaxnlt.predict", raising=False)
    names = {"importlib": importlib, "jaxnlt": jaxnlt}
    exec(f"{statement}\nfrom jaxnlt import predict", names)
    module = sys.modules["jaxnlt.predict"]
    assert jaxnlt.predict is names["predict"] is module.predict
    assert names.get("found", jaxnlt.predict) is jaxnlt.predict
    assert callable(module.main)
