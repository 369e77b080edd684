"""What the golden tests pin is what training calls.

Smoke runs of all methods must enter every function of the package that a
golden test calls by name.
"""

import ast
import pathlib
import sys

import pytest

import jaxnlt
from jaxnlt import train
from tests import runs

PACKAGE = pathlib.Path(jaxnlt.__file__).parent
#: A loss that no method offers yet.
ELSEWHERE = {"coteaching"}
LOSSES = ("ldam_drw", "sce", "gce", "focal", "nce_rce", "dmi")


def golden_names():
    """Names of functions that the golden tests take from the package."""
    found = set()
    for path in pathlib.Path(__file__).parent.glob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(
                node.value, ast.Name
            ):
                found.add((node.value.id, node.attr))
    return found


def defined():
    """Module name -> names of the functions that it defines."""
    modules = {}
    for room in ("losses", "selection", "methods"):
        for path in (PACKAGE / room).glob("*.py"):
            tree = ast.parse(path.read_text())
            names = {
                n.name for n in tree.body if isinstance(n, ast.FunctionDef)
            }
            modules[path.stem] = names
            modules.setdefault(room, set()).update(names)
    return modules


@pytest.mark.slow
def test_golden_functions_are_reached_by_smoke_runs(tmp_path):
    modules, entered = defined(), set()
    wanted = {
        name
        for module, name in golden_names()
        if name in modules.get(module, ())
    }

    def note(frame, event, argument):
        if event == "call" and str(PACKAGE) in frame.f_code.co_filename:
            entered.add(frame.f_code.co_name)

    sys.setprofile(note)
    try:
        for method, arg, fields in (
            *((method, "digits,smoke", {}) for method in runs.methods()),
            *(("erm", f"digits,smoke,loss={loss}", {}) for loss in LOSSES),
            ("erm", "digits,smoke,second=tau_norm", {}),
            (
                "dividemix",
                "digits,smoke",
                {"dividemix.confidence_penalty": True},
            ),
            ("h2e", "digits,smoke,rounds=2", {"h2e.iterate": "scores"}),
        ):
            config = runs.tiny(method, arg, **fields)
            train.run(config, tmp_path / f"run{len(list(tmp_path.iterdir()))}")
    finally:
        sys.setprofile(None)
    assert len(wanted) > 40
    assert wanted - entered - ELSEWHERE == set()
