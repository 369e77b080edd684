"""The documented example of a new method runs as it stands, and is short."""

import ast
import pathlib
import re

import pytest

import jaxnlt.methods
from jaxnlt import command_line, train
from tests import runs

ROOT = pathlib.Path(__file__).parents[2]
PAGE = ROOT / "docs" / "add_a_method.md"


def example() -> dict[str, str]:
    """The code blocks that the page calls files, by their paths."""
    text = PAGE.read_text()
    pattern = r"`([\w/]+\.py)`:\n\n```python\n(.*?)```"
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
    assert set(files) == {
        "jaxnlt/methods/small_loss.py",
        "configs/small_loss.py",
    }
    assert 0 < sum(map(lines_of_code, files.values())) <= 80


def test_the_new_method_trains(tmp_path, monkeypatch):
    for path, source in example().items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(source)
    places = [*jaxnlt.methods.__path__, str(tmp_path / "jaxnlt" / "methods")]
    monkeypatch.setattr(jaxnlt.methods, "__path__", places)
    data = runs.write_npz(tmp_path / "data.npz")
    config = command_line.load_config(
        str(tmp_path / "configs" / "small_loss.py"), "npz,smoke"
    )
    small = {"model.width": 4, "model.blocks": (1, 1)}
    small |= {"batch_size": 16, "warmup_batch_size": 16}
    with config.unlocked():
        config.update_from_flattened_dict(small | {"data.path": str(data)})
    summary = train.run(config, str(tmp_path / "run"))
    assert summary["method"] == "small_loss"
    last = runs.records(tmp_path / "run")[-1]
    # 12 samples of each of 3 classes: ranks 0 to 4 have more than 1 - 0.6.
    assert last["phase"] == "semi"
    assert last["labelled"] == pytest.approx(3 * 8)
