"""The table of switches in docs/methods.md agrees with the configs."""

import pathlib
import re

import pytest

from jaxnlt import command_line

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "methods.md"
ROW = re.compile(r"^\| (\w+) \| `(\w+)` \| `([\w.]+)` \| `([\w.]+)` \|", re.M)


@pytest.mark.parametrize("column, key", [(2, ""), (3, ",as_released")])
def test_switches_are_as_documented(column, key):
    rows = ROW.findall(PAGE.read_text())
    configs = {
        method: command_line.load_config(method, f"cifar10{key}")
        for method in {row[0] for row in rows}
    }
    found = {
        (row[0], row[1]): str(configs[row[0]][row[0]][row[1]]) for row in rows
    }
    assert found == {(row[0], row[1]): row[column] for row in rows}
