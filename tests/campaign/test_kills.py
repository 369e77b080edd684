"""Runs that are killed at any moment end as an unbroken one, to the bit."""

import collections
import contextlib
import json
import os
import re
import signal
import sys
import time

import pytest

from jaxnlt import main
from jaxnlt.results import files as result_files
from jaxnlt.runtime import lock
from tests.campaign import judge, mutate
from tests.campaign.test_workdir import results

pytestmark = pytest.mark.slow
TINY = (
    "--config.model.width=4",
    "--config.model.blocks=(1,)",
    "--config.augment.strong=shift",
    "--config.max_steps=2",
    "--config.eval_batch_size=200",
)
#: One method of each kind: plain, two heads and a selector, one network with
#: moments, stages that start anew, and their averaged weights.
METHODS = {
    "erm": "erm:digits,epochs=20",
    "dasc": "dasc:digits,epochs=8",
    "sfa": "sfa:digits,epochs=8",
    "h2e": "h2e:digits,epochs=8",
    "averaged": "h2e:digits,epochs=8 --config.model.ema=0.9",
}
#: A file or folder that appears or changes at the moment of a kill.
MOMENTS = {
    "start": r"config\.json.*",
    "noise.json": r"noise\.json.*",
    "save": r"checkpoints/.*tmp.*",
    "report": r"(labels\.csv|report\.html|summary\.json).*",
}
LONGEST = 120  # seconds of one run


def _run(arguments, log):
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(main.main(["main", *arguments]))


def _seen(workdir):
    """Names with times of what stands in a workdir and its checkpoints."""
    seen = set()
    for prefix, folder in (("", workdir), ("checkpoints/", "checkpoints")):
        try:
            for entry in os.scandir(workdir / folder):
                seen.add((prefix + entry.name, entry.stat().st_mtime_ns))
        except FileNotFoundError:
            pass  # not yet, or just renamed
    return seen


def _wait(process, workdir, moment, rng, typical):
    """Waits for a moment, or for the end of the process."""
    if moment == "random":
        process.join(rng.uniform(0, typical / 2))
        return
    before, end = _seen(workdir), time.monotonic() + LONGEST
    while process.is_alive() and time.monotonic() < end:
        new = _seen(workdir) - before
        if any(re.fullmatch(MOMENTS[moment], name) for name, _ in new):
            time.sleep(rng.choice((0, 0.002, 0.02)))
            return
        time.sleep(0.0002)


def check_files(workdir, right):
    """Whatever has its final name is complete."""
    for file in workdir.glob("*.json"):
        json.loads(file.read_text())
    result_files.read_jsonl(workdir / "metrics.jsonl")
    labels, report = workdir / "labels.csv", workdir / "report.html"
    assert not labels.exists() or labels.read_text() == right["labels.csv"]
    assert not report.exists() or report.read_text().rstrip().endswith(
        "</html>"
    )


@pytest.mark.parametrize("method", METHODS)
def test_kills(method, pytestconfig, tmp_path, record_property, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    seed = pytestconfig.option.campaign_seed
    log, began = tmp_path / "log", time.monotonic()
    fixed = (*f"--config={METHODS[method]}".split(), *TINY)

    def started(workdir):
        return judge.start(_run, (*fixed, f"--workdir={workdir}"), log)

    def finish(workdir):
        first = time.monotonic()
        process = started(workdir)
        process.join(2 * LONGEST)
        assert process.exitcode == 0, log.read_text()[-2000:]
        return time.monotonic() - first

    # The second one finds every program compiled.
    _, typical = finish(tmp_path / "whole"), finish(tmp_path / "again")
    right = results(tmp_path / "whole")
    assert right == results(tmp_path / "again")
    counts = collections.Counter()
    for round_ in range(pytestconfig.option.campaign):
        rng = judge.generator(seed, method, round_)
        workdir, history = tmp_path / f"run{round_}", []
        early = [*MOMENTS, "random"]
        early.remove("report")  # after which nothing else is left to do
        for moment in [*rng.permutation(early), "report"]:
            signum = mutate.pick(rng, (signal.SIGKILL, signal.SIGTERM))
            process = started(workdir)
            _wait(process, workdir, moment, rng, typical)
            with contextlib.suppress(ProcessLookupError):  # it has ended
                os.kill(process.pid, signum)
            process.join(LONGEST)
            history.append((signum.name, str(moment), process.exitcode))
            where = f"seed {seed}, round {round_}: {history}"
            stopped = 75 if signum == signal.SIGTERM else -signum
            assert process.exitcode in (0, -signum, stopped), (
                where,
                log.read_text()[-2000:],
            )
            assert "Traceback" not in log.read_text(), where
            counts[f"{signum.name} ({moment})"] += process.exitcode != 0
            if workdir.exists():
                check_files(workdir, right)
        finish(workdir)
        found = results(workdir)
        differs = [name for name in right if found[name] != right[name]]
        assert not differs, (where, differs)
        left = [*workdir.rglob("*tmp*"), *workdir.glob(".*")]
        left.remove(workdir / lock.FILE)  # which stays, empty
        assert not left, (where, left)
        counts["identical"] += 1
    seconds = round(time.monotonic() - began)
    record_property("campaign", (f"kills {method}", dict(counts), seconds))
