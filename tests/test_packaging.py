"""What the package promises as a whole, read from its files."""

import ast
import importlib
import pathlib
import pkgutil
import re
import subprocess
import sys
import tomllib

import pytest

import configs
import jaxnlt
from jaxnlt.config import base as config_lib

ROOT = pathlib.Path(__file__).parents[1]
SOURCES = sorted((ROOT / "jaxnlt").rglob("*.py"))
#: Configs of papers; a recipe of ours is a config of one of their methods.
METHODS = sorted(
    {m.name for m in pkgutil.iter_modules(configs.__path__)} - {"best"}
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
EXTRAS = {"cuda12", "cuda13", "tpu", "wandb", "bench", "test", "docs", "dev"}
# Papers of this package and of its plan; none may be known to the loop.
PAPERS = {*METHODS, "dacc", "sbcl", "midl", "mixmatch"} - {"erm"}


def imports(path):
    """Top-level names of all modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module.split(".")[0]


def test_imports_have_no_side_effects(tmp_path):
    """No device is looked for, no file written, nothing heavy imported."""
    program = """
import importlib, pkgutil, sys
import jaxnlt
names = [m.name for m in pkgutil.walk_packages(jaxnlt.__path__, "jaxnlt.")]
assert len(names) > 30, names
before = set(sys.modules)
for name in names:
    importlib.import_module(name)
from jax._src import xla_bridge
assert not xla_bridge.backends_are_initialized()
late = "tensorflow torch tensorflow_datasets matplotlib tensorboardX wandb"
print(*(name for name in late.split() if name in sys.modules))
"""
    command = [sys.executable, "-B", "-c", program]
    environment = {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout.strip(), done.stderr) == ("", "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "trainer", "step", "infer"])
def test_the_loop_names_no_paper(name):
    lines = (ROOT / "jaxnlt" / f"{name}.py").read_text().lower().split("\n")
    # Where a formula comes from may be said.
    text = "\n".join(line for line in lines if "source:" not in line)
    assert not set(re.findall(r"[a-z0-9]+", text)) & PAPERS


def resolved(method, arg):
    module = importlib.import_module(f"configs.{method}")
    return config_lib.as_json(module.get_config(arg))


@pytest.mark.parametrize("method", METHODS)
def test_methods_share_the_settings_of_digits(method):
    """A table compares methods, not learning rates."""
    ours, yardstick = resolved(method, "digits"), resolved("erm", "digits")
    assert ours.pop("method") == method and method in ours
    del ours[method], yardstick["method"], yardstick["erm"]
    assert ours == yardstick


def test_every_config_field_is_read():
    """A field that nothing reads would promise what does not happen."""
    text = "\n".join(path.read_text() for path in SOURCES)
    nodes = ast.walk(ast.parse(text))
    read = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    read |= set(re.findall(r"""(?:\[|get\()"([a-z_]+)["]""", text))
    for method in METHODS:
        fields = config_lib.flatten(resolved(method, "cifar10"))
        assert {name.rpartition(".")[2] for name in fields} <= read, method


def test_extras_and_dependencies():
    project = PROJECT["project"]
    assert set(project["optional-dependencies"]) == EXTRAS
    foreign = re.compile(r"torch|tensorflow(?!-datasets)|nvidia|.*cuda")
    assert not [d for d in project["dependencies"] if foreign.match(d)]
    assert "[" not in "".join(project["dependencies"])  # jax[cuda] and such


def test_every_import_is_a_dependency():
    """Whatever is imported is declared, not there by chance."""
    modules = {"sklearn": "scikit-learn", "PIL": "pillow", "absl": "absl-py"}
    modules |= {"orbax": "orbax-checkpoint"}
    declared = {
        re.match(r"[\w-]+", d)[0].replace("-", "_").lower()
        for d in PROJECT["project"]["dependencies"]
    }
    # The comparison with PyTorch imports it, once it was asked for.
    bench = ROOT / "jaxnlt" / "bench" / "torch"
    used = {
        name
        for path in SOURCES
        for name in {*imports(path)}
        - ({"torch"} if path.parent == bench else set())
    }
    used -= {"jaxnlt", *sys.stdlib_module_names}
    used = {modules.get(n, n).replace("-", "_").lower() for n in used}
    assert used <= declared


def test_every_package_is_shipped():
    packages = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in SOURCES
        if path.name == "__init__.py"
    }
    setuptools = PROJECT["tool"]["setuptools"]
    assert set(setuptools["packages"]) == packages | {"jaxnlt.configs"}
    assert setuptools["package-dir"] == {"jaxnlt.configs": "configs"}
    assert not {path.parent for path in SOURCES} - {
        ROOT / package.replace(".", "/") for package in packages
    }


def test_licence_and_version():
    text = (ROOT / "LICENSE").read_text()
    assert "Apache License" in text and "END OF TERMS AND CONDITIONS" in text
    assert PROJECT["project"]["license"] == "Apache-2.0"
    assert re.fullmatch(r"\d+\.\d+\.\d+", jaxnlt.__version__)
