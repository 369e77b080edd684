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
    add = parser.addoption
    add("--slow", action="store_true", help="slow tests too")
    add("--campaign", type=int, default=1, help="times as many cases")
    add("--campaign-seed", type=int, default=0, help="of tests/campaign")
    add("--campaign-case", type=int, help="the only case, see its test's -k")


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
    flags = ["--xla_backend_optimization_level=0"]
    # The older emitters compile in half the time; 0.11 has lost them, and
    # XLA aborts on a flag that it does not know.
    if jax.__version_info__ < (0, 11):
        flags.append("--xla_cpu_use_fusion_emitters=false")
    # The processes that tests start inherit it, so that bits agree.
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = " ".join([given, *flags])


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
    """Says what campaigns counted, and which golden cases no test consumed."""
    _campaigns(terminalreporter)
    if not cases.consumed:
        return
    terminalreporter.section(f"golden vectors of {cases.FOLDER}")
    left = cases.unconsumed()
    for name in left:
        terminalreporter.write_line(f"no test consumed: {name}")
    if not left:
        terminalreporter.write_line("every file and case was consumed")


def _campaigns(reporter):
    """A line for each kind of input that a campaign tried."""
    counted = [
        value
        for state in ("passed", "failed")
        for report in reporter.getreports(state)
        for key, value in report.user_properties
        if key == "campaign"
    ]
    if counted:
        reporter.section("campaign")
    for name, counts, seconds in counted:
        shown = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
        reporter.write_line(f"{name}: {shown}; {seconds} s")
