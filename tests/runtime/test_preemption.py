"""SIGTERM and processes that end or fail: how a run ends and resumes."""

import signal
import time

import numpy as np
import pytest

from jaxnlt import command_line, train
from jaxnlt.runtime import checkpoint, preemption, processes
from tests import runs
from tests.runtime import jobs

EPOCHS = 40
ENOUGH = 30.0  # seconds within which a whole job must end


def arguments(workdir):
    config = f"--config=erm:digits,epochs={EPOCHS}"
    return (config, *jobs.TINY, f"--workdir={workdir}")


def started(workdir, count):
    """A job that has trained two epochs at least, of many."""
    job = jobs.Job(*jobs.MAIN, *arguments(workdir), count=count)
    jobs.wait_for_lines(workdir / "metrics.jsonl", 2)
    return job


def ended(job, number, signum=signal.SIGTERM):
    """How a job ends, in time, once one of its processes has a signal."""
    sent = time.monotonic()
    job.send(number, signum)
    found = job.finish()
    assert time.monotonic() - sent < ENOUGH
    return found


def go_on(workdir):
    """The same command again, in this process."""
    return train.run(*command_line.parse(["main", *arguments(workdir)]))


def test_sigterm_ends_in_order_and_the_same_command_goes_on(tmp_path):
    whole = go_on(tmp_path / "whole")
    ((status, _, stderr),) = ended(started(tmp_path / "run", 1), 0)
    assert status == 75, stderr
    assert not (tmp_path / "run" / "summary.json").exists()
    saved = checkpoint.load(tmp_path / "run").epoch
    assert saved + 1 < EPOCHS
    last = f"jaxnlt: stopped by SIGTERM after epoch {saved + 1};"
    assert stderr.splitlines()[-1].startswith(last)
    again = go_on(tmp_path / "run")
    assert again["weights_sha256"] == whole["weights_sha256"]
    rows, rows_whole = map(runs.records, (tmp_path / "run", tmp_path / "whole"))
    assert len(rows) == EPOCHS
    assert all(map(runs.same_figures, rows, rows_whole))


@pytest.mark.slow
def test_sigterm_before_the_first_epoch_leaves_a_run_to_start(tmp_path):
    job = jobs.Job(*jobs.MAIN, *arguments(tmp_path / "run"))
    jobs.wait_for_lines(tmp_path / "run" / "config.json", 1)
    job.send(0)
    ((status, _, stderr),) = job.finish()
    assert status == 75, stderr
    assert "jaxnlt: stopped by SIGTERM " in stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_one_sigterm_stops_every_process(number, tmp_path):
    (first, *_, stderr), (second, *_, other) = ended(
        started(tmp_path / "run", 2), number
    )
    assert (first, second) == (75, 75), (stderr, other)
    assert "jaxnlt: stopped by " in stderr
    assert "jaxnlt: " not in other  # the first process reports for all
    if number:
        return
    # Alone, on what two have saved.
    saved = checkpoint.load(tmp_path / "run").epoch
    assert go_on(tmp_path / "run")["epochs"] == EPOCHS
    assert saved + 1 < len(runs.records(tmp_path / "run")) == EPOCHS


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_killed_process_ends_the_other(number, tmp_path):
    job = started(tmp_path / "run", 2)
    found = ended(job, number, signal.SIGKILL)
    assert found[number][0] == -signal.SIGKILL
    status, _, stderr = found[1 - number]
    # JAX itself may abort a process, 0.11 any, 0.10 one without the first.
    assert status in (1, -signal.SIGABRT), stderr
    assert "Traceback" not in stderr
    reported = "jaxnlt: error: another process has ended" in stderr
    # JAX 0.11 may be faster, with a line of its own.
    assert reported or (number == 0 and "another task died" in stderr)


@pytest.mark.slow
def test_a_failing_process_ends_the_other_with_its_message(tmp_path):
    """Only the second process cannot read its images."""
    rng = np.random.default_rng(0)
    homes = [tmp_path / "good", tmp_path / "bad"]
    for home, size in zip(homes, (60, 0), strict=True):
        home.mkdir()
        images = rng.integers(256, size=(size, 8, 8, 1), dtype=np.uint8)
        arrays = {"train_images": images, "train_labels": np.arange(size) % 3}
        np.savez(home / "set.npz", **arrays)
    words = ("--config=erm:npz", "--config.data.path=~/set.npz", *jobs.TINY)
    workdir = f"--workdir={tmp_path / 'run'}"
    job = jobs.Job(*jobs.MAIN, *words, workdir, count=2, homes=homes)
    began = time.monotonic()
    (status_0, _, stderr_0), (status_1, _, stderr_1) = job.finish()
    assert (status_0, status_1) == (1, 2), (stderr_0, stderr_1)
    line = stderr_1.splitlines()[-1]
    assert line.startswith("jaxnlt: error: ") and "set.npz" in line
    reported = stderr_0.splitlines()[-1]
    assert reported.startswith("jaxnlt: error: process 1 on ")
    assert reported.endswith(line.removeprefix("jaxnlt: error: "))
    assert time.monotonic() - began < 60 + ENOUGH


def test_the_first_to_leave_does_not_end_the_last(monkeypatch):
    """It announces the end while this one is still at the barrier."""
    announced, left = [], []

    class Client:
        blocking_key_value_get = staticmethod(lambda *_: preemption._COMPLETE)
        wait_at_barrier = staticmethod(lambda *_: time.sleep(0.5))
        key_value_set = staticmethod(lambda *words: announced.append(words))

    monkeypatch.setattr(processes, "client", Client)
    monkeypatch.setattr(preemption.Watch, "_exit", lambda *_: left.append(_))
    with preemption.Watch().guarding():
        pass
    assert not left
    assert announced == [(preemption._END_KEY, preemption._COMPLETE)]


@pytest.mark.slow
def test_processes_must_share_the_workdir(tmp_path):
    homes = [tmp_path / "0", tmp_path / "1"]
    for home in homes:
        home.mkdir()
    job = jobs.Job(*jobs.MAIN, *arguments("~/run"), count=2, homes=homes)
    (first, _, stderr), (second, *other) = job.finish()
    assert (first, second) == (2, 2), (stderr, other)
    assert "process 1 on " in stderr
    assert "must share the file system" in stderr
    assert other == ["", ""]
