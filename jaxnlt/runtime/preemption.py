"""Ending in order: preemption by SIGTERM, and the end of another process.

A thread of its own decides, for the main one may wait in a computation for
minutes, or for a process that will never answer.
"""

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax

from jaxnlt.runtime import console, processes
from jaxnlt.runtime.errors import UserError

#: Exit status of a run that was stopped and can go on: EX_TEMPFAIL, on which
#: schedulers put a job into their queue again.
AGAIN = 75
FAILED = 1
_KEY = "jaxnlt/end"
_DONE = "0 all is done"
# Seconds that a job of several processes gives a save whose other writers may
# have ended already; the checkpoint before it is whole.
_PATIENCE = 12
# Seconds that the others have to read why, before the process that holds the
# coordination service ends.
_LAST_WORDS = 3
# Seconds between a process's very last word and its end, on a busy machine.
_GOING = 1
# Seconds in which this process may find the mistake that another has told.
_SAME_MISTAKE = 1


class Watch:
    """Ends the process when the system, or another process, says so.

    Attributes:
      finish_save: waits for what is being saved; set by the run.
    """

    def __init__(self) -> None:
        self.finish_save: Callable[[], None] = lambda: None
        self._saving = threading.Lock()
        self._ending = threading.Event()
        self._own = ("", FAILED)
        self._where = "before its first epoch was over"

    @contextlib.contextmanager
    def saving(self, epoch: int) -> Iterator[None]:
        """Nothing ends the run while a save is being started.

        Args:
          epoch: 0-based, that is saved.
        """
        with self._saving:
            yield
            self.saved(epoch)

    def saved(self, epoch: int) -> None:
        """Notes an epoch, 0-based, from which the run can go on."""
        self._where = f"after epoch {epoch + 1}"

    def pause_if_ending(self) -> None:
        """Dispatches nothing more once the end has begun."""
        if self._ending.is_set():
            threading.Event().wait()

    @contextlib.contextmanager
    def guarding(self) -> Iterator[None]:
        """Ends the run in order on SIGTERM; and all processes if one fails."""
        with self._listening():
            try:
                yield
                processes.wait_for_all("end")
            except BaseException as error:
                if processes.alone():
                    raise
                self._broken(error)
            self._ending.set()  # nobody is missed from now on
            self._tell(_DONE)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Without a handler of Python's the signal would kill at once.
        handler = signal.signal(signal.SIGTERM, lambda *_: None)
        # Written to at once, also while the main thread waits in C++.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threads = [threading.Thread(target=self._listen, args=(reader,))]
        if not processes.alone():
            threads.append(threading.Thread(target=self._ask_others))
        for thread in threads:
            thread.daemon = True
            thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, handler)
            os.close(writer)
            # Both have an answer now; a thread left in C++ would abort Python.
            for thread in threads:
                thread.join(_LAST_WORDS)

    def _broken(self, error: BaseException) -> NoReturn:
        """Says what has happened and ends the whole job."""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        status, lost = FAILED, _is_lost(error)
        if isinstance(error, UserError):
            status, text = console.MENDABLE, console.one_line(error)
        elif isinstance(error, KeyboardInterrupt):
            status, text = console.INTERRUPTED, "interrupted"
        self._own = (text, status)
        self.pause_if_ending()
        if lost:
            # At once: JAX aborts a process that misses the first one.
            _say(f"error: another process has ended or is out of reach: {text}")
        # What another one says of its end says more; and says the same once.
        if lost or not processes.is_lead():
            time.sleep(_LAST_WORDS)
            self.pause_if_ending()
        if not lost:
            if status == FAILED:
                traceback.print_exception(error)
            _say(f"error: {text}")
        self._ending.set()
        self._tell(f"{FAILED} {processes.host_name()}: {text}")
        self._exit(status)

    def _listen(self, reader: int) -> None:
        while (word := os.read(reader, 1)) != bytes([signal.SIGTERM]):
            if not word:
                os.close(reader)
                return
        self._ending.set()
        self._tell(f"{AGAIN} {processes.host_name()}: SIGTERM")
        self._stop("SIGTERM")

    def _ask_others(self) -> None:
        """Waits for the first word of any process that ends."""
        while True:
            try:
                word = processes.client().blocking_key_value_get(_KEY, 60_000)
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" in str(error):
                    continue
                word = f"{FAILED} process 0: does not answer any more"
            break
        # One that left the last barrier first may tell it before we leave it.
        if word == _DONE or self._ending.is_set():
            return
        self._ending.set()
        status, _, reason = word.partition(" ")
        if int(status) == AGAIN:
            self._stop(reason)
        time.sleep(_SAME_MISTAKE)
        text, own_status = self._own
        if text and reason.endswith(text):
            self._exit(own_status)
        _say(f"error: {reason}")
        self._exit(FAILED)

    def _tell(self, word: str) -> None:
        if processes.alone():
            return
        # The first one who speaks is heard.
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            processes.client().key_value_set(_KEY, word)

    def _stop(self, reason: str) -> NoReturn:
        """Finishes the pending save, says how to go on, ends."""
        patience: float | None = None if processes.alone() else _PATIENCE
        began = time.monotonic()
        # Held for good: no other save starts.
        self._saving.acquire(timeout=-1 if patience is None else patience)
        if patience is not None:
            patience = max(0.0, patience - (time.monotonic() - began))
        save = threading.Thread(target=self.finish_save, daemon=True)
        save.start()
        save.join(patience)
        if processes.is_lead():
            _say(f"stopped by {reason} {self._where}; the same command goes on")
        self._exit(AGAIN, _PATIENCE)

    def _exit(self, status: int, patience: float = 0) -> NoReturn:
        """Ends without waiting for the main thread.

        Args:
          status: of the process.
          patience: seconds, beyond its last words, that the process which
            holds the coordination service waits for the others: they are
            aborted once it is gone.
        """
        if not processes.alone():
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                processes.client().key_value_set(_left(jax.process_index()), "")
            if processes.is_lead():
                _see_off(_LAST_WORDS + patience)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _left(process: int) -> str:
    """Key under which a process says that it ends."""
    return f"jaxnlt/left/{process}"


def _see_off(patience: float) -> None:
    """Waits until all other processes end, at most so many seconds."""
    end = time.monotonic() + patience
    for other in range(1, jax.process_count()):
        left = max(1, round(1000 * (end - time.monotonic())))
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            processes.client().blocking_key_value_get(_left(other), left)
    time.sleep(_GOING)


def _is_lost(error: BaseException) -> bool:
    """Whether a computation broke off because another process is gone."""
    words = ("Gloo", "NCCL", "oordination service", "heartbeat")
    return isinstance(error, jax.errors.JaxRuntimeError | ValueError) and any(
        word in str(error) for word in words
    )


def _say(text: str) -> None:
    print(f"jaxnlt: {text}", file=sys.stderr, flush=True)
