"""Judges a call on an altered input; batches run in processes of their own.

A case is numbered; with the seed and the name of its kind the number draws all
that the case changes, so that a fault replays by them.
"""

import collections
import contextlib
import io
import multiprocessing
import os
import pathlib
import re
import resource
import shutil
import sys
import time
import traceback
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from jaxnlt.runtime import console

HANG = 10  # seconds that a case may take
MEMORY = 1 << 30  # bytes that a case may take over the start
_ROOM = 6 << 30  # bytes of addresses that are never granted
_SETUP = 240  # seconds for what a child does before its first case
_ENOUGH = 5  # hangs and crashes of a kind after which its batch ends
#: What a case may show; all others are faults.
RIGHT = ("refused", "accepted")
# What a message names: a field, a class, or the file.
_NAMED = re.compile(r"(config\.|class |--)\S")
# Names are shown as they are, but nothing that moves the terminal's cursor.
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


class Silent(Exception):
    """Accepted, but the result is not the right one."""


class Kind(NamedTuple):
    """Inputs of one kind.

    Attributes:
      make: (folder) writes a valid input.
      alter: (rng, folder) changes it, and says what it changed.
      act: (folder) uses it; raises ``Silent`` where the result is wrong.
      cases: how many a campaign of size 1 tries.
      seconds: that a case may take.
    """

    make: Callable[[pathlib.Path], Any]
    alter: Callable[[np.random.Generator, pathlib.Path], str]
    act: Callable[[pathlib.Path], Any]
    cases: int
    seconds: float = HANG


class Fault(NamedTuple):
    verdict: str
    case: int
    change: str
    text: str


def judge(act: Callable[[pathlib.Path], Any], folder) -> tuple[str, str]:
    """The verdict on a call, and the message that goes with it."""
    shown = io.TextIOWrapper(io.BytesIO(), "utf-8", errors="backslashreplace")
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(shown),
        ):
            status = console.guarded(lambda _: act(folder), ["jaxnlt"], "")
    except Silent as error:
        verdict, text = "silent", str(error)
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        verdict, text = "exception", f"{type(error).__name__}: {error} (line "
        text += f"{last.lineno} of {last.filename})"
    else:
        shown.flush()
        text = shown.buffer.getvalue().decode().removesuffix("\n")
        verdict = _refusal(text, folder) if status else "accepted"
    if verdict in RIGHT and any(folder.rglob("*.tmp")):
        return "half-written", text
    return verdict, repr(text)[1:-1][:400]


def _refusal(text: str, folder) -> str:
    """The verdict on what stderr shows of a refusal."""
    *notes, line = text.split("\n")
    told = all(re.match("jaxnlt: (note|warning): ", note) for note in notes)
    if not told or not line.startswith("jaxnlt: error: ") or len(line) > 2000:
        return "not one line"
    if any(map(_CONTROL.search, (*notes, line))):
        return "control characters"
    named = str(folder) in line or _NAMED.search(line)
    return "refused" if named else "unnamed"


def generator(seed: int, name: str, case: int) -> np.random.Generator:
    return np.random.default_rng([seed, zlib.crc32(name.encode()), case])


def prepare(kind: Kind, name, seed, case, whole, folder) -> str:
    """Writes the input of a case into a fresh folder; says what is changed."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder, symlinks=True)
    return kind.alter(generator(seed, name, case), folder)


def start(target, *args):
    """Starts a process that has imported the package, but used no device."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["jaxnlt.main", "jaxnlt.predict", "matplotlib.pyplot", "tensorboardX"]
    )
    process = context.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _serve(kind, name, seed, cases, whole, folder, pipe) -> None:
    """A child's work; it ends early after a case that took much memory."""
    with open(os.devnull, "w") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(nothing.fileno(), 2)
    shutil.copytree(whole, folder)
    pipe.send(judge(kind.act, folder))
    used = int(pathlib.Path("/proc/self/statm").read_text().split()[0])
    limit = used * resource.getpagesize() + _ROOM
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    base = _peak()
    for case in cases:
        pipe.send(prepare(kind, name, seed, case, whole, folder))
        verdict, text = judge(kind.act, folder)
        grown = _peak() - base
        if grown > MEMORY:
            verdict, text = "memory", f"{verdict} {text}"
        # What compiled programs keep must not add up to a fault.
        ending = grown > MEMORY // 2
        pipe.send((verdict, text, ending))
        if ending:
            return


def campaign(kind: Kind, name, seed, cases, tmp_path):
    """Tries a kind's cases.

    Returns:
      Verdict -> count, and the faults.
    """
    counts: collections.Counter[str] = collections.Counter()
    faults: list[Fault] = []
    whole, folder = tmp_path / "whole", tmp_path / "case"
    kind.make(whole)
    left, child, lost = list(cases), None, 0

    def receive(seconds):
        # A dead child's pipe is ready, and then at its end.
        return pipe.recv() if pipe.poll(seconds) else None

    while left and lost < _ENOUGH:
        if child is None or not child.is_alive():
            shutil.rmtree(folder, ignore_errors=True)
            pipe, theirs = multiprocessing.Pipe()
            child = start(_serve, kind, name, seed, left, whole, folder, theirs)
            theirs.close()
            first = receive(_SETUP)
            assert first and first[0] == "accepted", (name, first)
        change, hang = "", ("hang", f"over {kind.seconds} s", True)
        try:
            change = receive(_SETUP)
            verdict, text, ending = receive(kind.seconds) or hang
        except (EOFError, OSError):
            child.join()
            verdict, text, ending = "crash", f"status {child.exitcode}", True
        lost += verdict in ("hang", "crash")
        if verdict == "hang":
            child.kill()
        if ending:
            child.join()
        counts[verdict] += 1
        case = left.pop(0)
        if verdict not in RIGHT:
            faults.append(Fault(verdict, case, change, text))
    if child is not None:
        child.kill()
        child.join()
    if left:
        counts["not tried"] = len(left)
    return counts, faults


def check(kind: Kind, name, options, tmp_path, record) -> None:
    """Asserts that a campaign finds no fault, and leaves its counts.

    Args:
      kind: what is tried.
      name: of the kind.
      options: of the command line, see tests/conftest.py.
      tmp_path: an empty folder.
      record: pytest's ``record_property``.
    """
    seed, whole = options.campaign_seed, tmp_path / "whole"
    if (case := options.campaign_case) is not None:  # in this process
        kind.make(whole)
        folder = tmp_path / "case"
        print(prepare(kind, name, seed, case, whole, folder), file=sys.stderr)
        kind.act(folder)
        return
    began = time.monotonic()
    cases = range(kind.cases * options.campaign)
    counts, faults = campaign(kind, name, seed, cases, tmp_path)
    seconds = round(time.monotonic() - began)
    record("campaign", (name, dict(counts), seconds))
    lines = [f"{name}: {len(faults)} faults of {len(cases)} cases"]
    lines += [
        f"{f.verdict}: case {f.case}, seed {seed}: {f.change}: {f.text}"
        for f in faults
    ]
    assert not faults, "\n".join(lines)
