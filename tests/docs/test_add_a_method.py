"""The documented example of a new method runs as it stands, and is short."""

import ast
import json
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

from tests import runs

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add_a_method.md"
MOST_LINES = 80


def example() -> dict[str, str]:
    """The code blocks that the page calls files, by their paths."""
    text = PAGE.read_text()
    pattern = r"`([\w/]+\.py)`[^`]*:\n\n```python\n(.*?)```"
    return dict(re.findall(pattern, text, re.DOTALL))


def lines_of_code(source: str) -> int:
    """Lines that are neither blank nor part of a docstring."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    skipped: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node):
            text = node.body[0]
            skipped |= set(range(text.lineno, text.end_lineno + 1))
    return sum(
        bool(line.strip()) and number not in skipped
        for number, line in enumerate(source.splitlines(), 1)
    )


def test_a_stranger_reads_at_most_a_thousand_lines():
    rows = re.findall(
        r"\| \[([\w/.]+)\]\([^)]*\) \| (\d+) \|", PAGE.read_text()
    )
    assert len(rows) >= 3
    for path, count in rows:
        lines = (ROOT / path).read_text().splitlines()
        assert sum(bool(line.strip()) for line in lines) == int(count)
    assert sum(int(count) for _, count in rows) <= 1000


def test_a_new_method_fits_in_eighty_lines():
    files = example()
    parts = files.pop("my_package/__init__.py")
    assert set(files) == {"my_package/small_loss.py", "my_config.py"}
    assert 0 < sum(map(lines_of_code, files.values())) <= MOST_LINES
    assert 0 < lines_of_code(parts) <= MOST_LINES


def python(folder, *arguments):
    """Runs Python in a folder, as who has installed the package."""
    environment = {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with the example's files, and a run started elsewhere."""
    home, away = (tmp_path_factory.mktemp(name) for name in ("home", "away"))
    for path, source in example().items():
        (home / path).parent.mkdir(parents=True, exist_ok=True)
        (home / path).write_text(source)
    np.savez(home / "new.npz", images=np.full((2, 4, 4, 1), 200, np.uint8))
    command = ["-m", "jaxnlt.main", f"--workdir={home}"]
    command.append(f"--config={home}/my_config.py:greys,smoke")
    done = python(away, *command)
    assert done.returncode == 0, done.stderr
    return home, away, command


def test_the_new_method_trains_on_its_own_parts(trained):
    home, _, _ = trained
    *_, last = runs.records(home)
    # Given classes of 19, 20 and 21: ranks k with 1 - k / n above 1 - 0.6.
    assert (last["phase"], last["labelled"]) == ("semi", 12 + 12 + 13)
    config = json.loads((home / "config.json").read_text())
    assert config["method"] == "my_package.small_loss"
    assert config["small_loss"]["trusted"] == 0.6
    assert config["model"]["name"] == "perceptron"
    assert config["augment"] == {"weak": "darker", "strong": "darker"}
    summary = json.loads((home / "summary.json").read_text())
    assert summary["options"] == config["small_loss"]


def test_its_run_resumes_and_predicts(trained):
    home, away, command = trained
    (home / "summary.json").unlink()
    done = python(away, *command)
    assert done.returncode == 0 and "resumed after epoch 2\n" in done.stderr
    predict = ["-m", "jaxnlt.predict", f"--workdir={home}"]
    predict.append(f"--images={home}/new.npz")
    done = python(home, *predict)
    assert (done.returncode, done.stderr) == (0, "")
    done = python(away, *predict)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "there is no module 'my_package.small_loss'" in done.stderr


def test_sweep_takes_its_file(trained):
    home, _, _ = trained
    words = ["--methods", "my_config.py", "--benchmarks", "greys", "--out=o"]
    done = python(home, str(ROOT / "launch" / "sweep.py"), *words)
    assert done.stdout == (
        "python -m jaxnlt.main --config=my_config.py:greys,seed=0 "
        "--workdir=o/my_config-greys-seed=0\n"
    )
