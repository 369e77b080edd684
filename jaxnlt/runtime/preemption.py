"""Orderly ends: preemption by SIGTERM, and the failure of another process.

A thread of its own decides, because the main one may wait in a computation for
minutes, or for a process that never answers.
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
from jaxnlt.runtime.errors import UserError, file_problem

# Key of the coordination service under which the first process to end writes
# its status and its reason; and what is written there after a complete run.
_END_KEY = "jaxnlt/end"
_COMPLETE = "0 complete"
# Seconds that a job of several processes gives a save whose other writers may
# have ended already; the checkpoint before it is whole.
_SAVE_TIMEOUT = 12
# Seconds that the other processes have to read the reason before the process
# that holds the coordination service ends.
_NOTICE_TIMEOUT = 3
# Seconds between the report of a process that it exits and its exit.
_EXIT_DELAY = 1
# Seconds for this process to meet the error that another one has reported.
_SAME_ERROR_DELAY = 1


class Watch:
    """Ends the process on SIGTERM, or when another process ends.

    Attributes:
      finish_save: waits for the save in progress; set by the run.
      release: gives the workdir back; set by the run.
    """

    def __init__(self) -> None:
        self.finish_save: Callable[[], None] = lambda: None
        self.release: Callable[[], None] = lambda: None
        self._saving = threading.Lock()
        self._ending = threading.Event()
        # Text and exit status of the error of this process.
        self._own_error = ("", console.FAILED)
        self._progress = "before its first epoch was over"

    @contextlib.contextmanager
    def saving(self, epoch: int) -> Iterator[None]:
        """Lets nothing end the process while a save is being started.

        Args:
          epoch: 0-based, that is saved.
        """
        with self._saving:
            yield
            self.saved(epoch)

    @contextlib.contextmanager
    def finishing(self) -> Iterator[None]:
        """Finishes the save in progress before an error goes on."""
        try:
            yield
        except BaseException as error:
            timeout = None if processes.alone() else _SAVE_TIMEOUT
            problem = self._finish_save(timeout)
            if problem not in str(error):
                _warn_of_save(problem)
            raise

    def _finish_save(self, timeout: float | None) -> str:
        """Waits for the save in progress.

        Args:
          timeout: seconds; None waits for the end.

        Returns:
          Why it fails; '' where everything that was saved is on disk.
        """
        problems = ["it takes too long"]

        def finish() -> None:
            try:
                self.finish_save()
                problems.clear()
            except Exception as error:
                problems[:] = [f"{console.one_line(error):.200}"]

        save = threading.Thread(target=finish, daemon=True)
        save.start()
        save.join(timeout)
        return problems[0] if problems else ""

    def saved(self, epoch: int) -> None:
        """Notes an epoch, 0-based, from which the run can go on."""
        self._progress = f"after epoch {epoch + 1}"

    def pause_if_ending(self) -> None:
        """Blocks for good once the process is ending."""
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
                self._fail(error)
            self._ending.set()  # the end of another process is no error now
            self._announce(_COMPLETE)

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        """Runs the threads that wait for SIGTERM and for other processes."""
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        # Without a Python handler the signal would kill at once.
        handler = signal.signal(signal.SIGTERM, lambda *_: None)
        # Written to at once, also while the main thread waits in C++.
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        threads = [threading.Thread(target=self._await_signal, args=(reader,))]
        if not processes.alone():
            threads.append(threading.Thread(target=self._await_other_process))
        for thread in threads:
            thread.daemon = True
            thread.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGTERM, handler)
            os.close(writer)
            # Both return now; a thread left in C++ would abort Python.
            for thread in threads:
                thread.join(_NOTICE_TIMEOUT)

    def _fail(self, error: BaseException) -> NoReturn:
        """Reports an error of this process and ends the whole job."""
        text = " ".join(f"{type(error).__name__}: {error}".split())
        status, lost = console.FAILED, _is_connection_error(error)
        if isinstance(error, UserError):
            status, text = console.USER_ERROR, console.one_line(error)
        elif isinstance(error, KeyboardInterrupt):
            status, text = console.INTERRUPTED, "interrupted"
        elif isinstance(error, OSError) and (line := file_problem(error)):
            status, text = console.USER_ERROR, line
        self._own_error = (text, status)
        self.pause_if_ending()
        if lost:
            # At once: JAX aborts a process that misses the first one.
            _print_line(
                f"error: another process has ended or is out of reach: {text}"
            )
        # The reason of the other process is the better one; and where it is
        # the same, the first process reports it for all.
        if lost or not processes.is_lead():
            time.sleep(_NOTICE_TIMEOUT)
            self.pause_if_ending()
        if not lost:
            if status == console.FAILED:
                traceback.print_exception(error)
            _print_line(f"error: {text}")
        self._ending.set()
        self._announce(f"{console.FAILED} {processes.host_name()}: {text}")
        self._exit(status)

    def _await_signal(self, reader: int) -> None:
        """Waits for SIGTERM, or for the other end of the pipe to be closed."""
        while (number := os.read(reader, 1)) != bytes([signal.SIGTERM]):
            if not number:
                os.close(reader)
                return
        self._ending.set()
        self._announce(f"{console.STOPPED} {processes.host_name()}: SIGTERM")
        self._stop("SIGTERM")

    def _await_other_process(self) -> None:
        """Waits until any process announces that it ends."""
        while True:
            try:
                announced = processes.client().blocking_key_value_get(
                    _END_KEY, 60_000
                )
            except jax.errors.JaxRuntimeError as error:
                if "DEADLINE_EXCEEDED" in str(error):
                    continue
                announced = f"{console.FAILED} process 0: does not answer"
            break
        # Another process may leave the last barrier, and announce that the
        # run is complete, before this one leaves it.
        if announced == _COMPLETE or self._ending.is_set():
            return
        self._ending.set()
        status, _, reason = announced.partition(" ")
        if int(status) == console.STOPPED:
            self._stop(reason)
        time.sleep(_SAME_ERROR_DELAY)
        own_text, own_status = self._own_error
        if own_text and reason.endswith(own_text):
            self._exit(own_status)
        _print_line(f"error: {reason}")
        self._exit(console.FAILED)

    def _announce(self, status_and_reason: str) -> None:
        """Tells the other processes why this one ends; the first one counts."""
        if processes.alone():
            return
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            processes.client().key_value_set(_END_KEY, status_and_reason)

    def _stop(self, reason: str) -> NoReturn:
        """Finishes the pending save, reports how to go on, exits."""
        timeout: float | None = None if processes.alone() else _SAVE_TIMEOUT
        began = time.monotonic()
        # Never released: no other save starts.
        self._saving.acquire(timeout=-1 if timeout is None else timeout)
        if timeout is not None:
            timeout = max(0.0, timeout - (time.monotonic() - began))
        problem = self._finish_save(timeout)
        progress = "" if problem else self._progress
        if problem:
            _warn_of_save(problem)
        if processes.is_lead():
            line = " ".join(filter(None, ["stopped by", reason, progress]))
            _print_line(f"{line}; the same command goes on")
        self._exit(console.STOPPED, _SAVE_TIMEOUT)

    def _exit(self, status: int, timeout: float = 0) -> NoReturn:
        """Exits without waiting for the main thread.

        Args:
          status: of the process.
          timeout: seconds, beyond ``_NOTICE_TIMEOUT``, that the process which
            holds the coordination service waits for the others: they are
            aborted once it is gone.
        """
        if not processes.alone():
            with contextlib.suppress(jax.errors.JaxRuntimeError):
                processes.client().key_value_set(
                    _exit_key(jax.process_index()), ""
                )
            if processes.is_lead():
                _wait_for_exits(_NOTICE_TIMEOUT + timeout)
        self.release()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _exit_key(process: int) -> str:
    """Key under which a process reports that it exits."""
    return f"jaxnlt/exit/{process}"


def _wait_for_exits(timeout: float) -> None:
    """Waits until all other processes exit, at most so many seconds."""
    end = time.monotonic() + timeout
    for other in range(1, jax.process_count()):
        left = max(1, round(1000 * (end - time.monotonic())))
        with contextlib.suppress(jax.errors.JaxRuntimeError):
            processes.client().blocking_key_value_get(_exit_key(other), left)
    time.sleep(_EXIT_DELAY)


def _is_connection_error(error: BaseException) -> bool:
    """Whether a computation broke off because another process is gone."""
    words = ("Gloo", "NCCL", "oordination service", "heartbeat")
    return isinstance(error, jax.errors.JaxRuntimeError | ValueError) and any(
        word in str(error) for word in words
    )


def _warn_of_save(problem: str) -> None:
    if processes.is_lead():
        _print_line(f"warning: the last checkpoint is not whole: {problem}")


def _print_line(text: str) -> None:
    # Unlike the console's, it takes no lock that a stopped thread may hold.
    console.echo(f"jaxnlt: {text}", sys.stderr)
