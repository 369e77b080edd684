"""What every test shares: compiled programs, and the golden cases' tally."""

import functools
import os
import pathlib

import jax
import pytest

from jaxnlt.results import figures
from tests import toy_epochs
from tests.golden import cases


def pytest_addoption(parser):
    parser.addoption("--slow", action="store_true", help="slow tests too")


def pytest_collection_modifyitems(config, items):
    """Leaves out the slow tests unless they are asked for."""
    if config.getoption("--slow"):
        return
    skip = pytest.mark.skip(reason="needs --slow")
    for item in items:
        if "slow" in item.keywords:
            item.add_marker(skip)


def pytest_configure():
    """A few steps of tiny networks do not need programs compiled for speed."""
    # The processes that tests start inherit it, so that bits agree.
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{given} --xla_backend_optimization_level=0"


@pytest.fixture(autouse=True, scope="session")
def compilation_cache():
    folder = pathlib.Path.home() / ".cache" / "jaxnlt" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


@pytest.fixture(autouse=True, scope="module")
def drawing(request):
    """Few tests look at what a report draws: a second for every run."""
    drawn = ("tests.results.test_report", "tests.test_train")
    with pytest.MonkeyPatch.context() as patch:
        if request.module.__name__ not in drawn:
            patch.setattr(figures, "_svg", lambda _: "<svg></svg>")
        yield


@pytest.fixture
def toy_trainer(monkeypatch):
    """Builds a trainer of a toy method; see `toy_epochs.build`."""
    return functools.partial(toy_epochs.build, monkeypatch)


def pytest_sessionfinish(session):
    """A worker of pytest-xdist hands its tally to the main process."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["golden"] = sorted(cases.consumed)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    cases.consumed.update(map(tuple, node.workeroutput.get("golden", [])))


def pytest_terminal_summary(terminalreporter):
    """Says which golden files and cases no test consumed."""
    if not cases.consumed:
        return
    terminalreporter.section(f"golden vectors of {cases.FOLDER}")
    left = cases.unconsumed()
    for name in left:
        terminalreporter.write_line(f"no test consumed: {name}")
    if not left:
        terminalreporter.write_line("every file and case was consumed")
