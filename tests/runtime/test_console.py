"""Names of files and classes, wherever they are printed or written."""

import io
import os
import xml.etree.ElementTree

import numpy as np
import pytest

from jaxnlt.data import cells
from jaxnlt.data.readers import folder, lists
from jaxnlt.results import figures
from jaxnlt.runtime import console, paths
from jaxnlt.runtime.errors import UserError

DRAW = figures._svg  # conftest puts a stub in its place
NAMES = {
    "\x1b[31mred\x07": "\\x1b[31mred\\x07",
    "a\rb\tc": "a\\rb\\tc",
    "line\u2028end\u2029\x85": "line\\u2028end\\u2029\\x85",
    "\u202egnp.exe\u2066": "\\u202egnp.exe\\u2066",
    "caf\udce9": "caf\\udce9",
    "größe\u00a0猫 🐈": "größe\u00a0猫 🐈",
}


@pytest.mark.parametrize("name", NAMES)
def test_no_name_reaches_the_terminal_raw(capsys, name):
    def command(argv):
        if "\udce9" not in name:  # pytest-xdist could not send the record
            console.logger.warning("class %s is empty", name)
        console.echo(f"{name}\n{name}")
        raise UserError(f"{name}: wrong")

    assert console.guarded(command, ["x"], "") == console.USER_ERROR
    out, err = capsys.readouterr()
    assert out == f"{NAMES[name]}\n{NAMES[name]}\n"
    assert err == f"jaxnlt: error: {NAMES[name]}: wrong\n"


def test_a_stream_that_lacks_the_characters():
    file = io.TextIOWrapper(io.BytesIO(), "ascii")
    console.echo("größe", file)
    assert file.buffer.getvalue() == b"gr\\xf6\\xdfe\n"


def test_a_message_is_not_endless():
    line = console.one_line(f"{'x' * 10**6}: too long; take a shorter one")
    assert len(line) < 2001 and line.endswith("take a shorter one")


@pytest.mark.parametrize(
    "path, words",
    [
        ("~nobody-at-all/x", "there is no home folder of ~nobody-at-all"),
        ("a\0b", "holds a NUL"),
        ("x" * 300, "File name too long"),
        ("x" * 250, "File name too long"),  # with what is appended
        ("y/" * 3000, "File name too long"),
        ("\ud800", "is no path"),
        ("loop", "Too many levels"),
    ],
)
def test_paths_that_cannot_be(tmp_path, monkeypatch, path, words):
    monkeypatch.chdir(tmp_path)
    os.symlink("loop", "loop")
    with pytest.raises(UserError, match=f"^--out: .*{words}"):
        paths.expanded(path, "--out", ".12345.tmp")


def test_home_is_expanded(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(paths.expanded("~/a", "--out")) == "/somewhere/a"


CELLS = {
    "=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0",
    "+1": "'+1",
    "-x": "'-x",
    "@SUM(A1)": "'@SUM(A1)",
    "\tx": "'\tx",
    "\r=x": "'\r=x",
    "'=x": "''=x",
    "'quoted": "'quoted",
    "a=b": "a=b",
    "": "",
    'O\'Neil,\n"x"': 'O\'Neil,\n"x"',
}


@pytest.mark.parametrize("name", CELLS)
def test_cells_are_no_formulas_and_come_back(name):
    assert cells.guarded(name) == CELLS[name]
    assert cells.plain(CELLS[name]) == name


def test_written_names_are_read_as_they_were(tmp_path):
    names = [name for name in CELLS if name]
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        cells.write(file, [("path", "label")])
        cells.write(file, [(f"{k}.png", n) for k, n in enumerate(names)])
        cells.write(file, [("-1.png", "a")])
    for k in [*range(len(names)), -1]:
        (tmp_path / f"{k}.png").touch()
    file = tmp_path / "labels.csv"
    listed = folder._read_csv(file, *lists.csv_rows(file, ""), tmp_path)
    assert listed.given == [*names, "a"] and listed.paths[-1] == "-1.png"


def test_numbers_stay_numbers():
    file = io.StringIO()
    cells.write(file, [("a", -1, None, "0.5")])
    assert file.getvalue() == "a,-1,,0.5\n"


def test_figures_show_names_as_they_are(monkeypatch):
    """Dollars are no formula, control characters no damage to the XML."""
    monkeypatch.setattr(figures, "_svg", DRAW)
    labels = np.array([0, 1, 2, 1])
    names = ["$\\frac{$", "\x1b[31m", "$x^2$"]
    svg = figures.label_matrix(labels, labels, names)
    xml.etree.ElementTree.fromstring(svg)  # each text stands in a comment
    assert "$\\frac{$" in svg and "\\x1b[31m" in svg and "$x^2$" in svg
