"""One workdir, one run: a lock that a dead process leaves open.

Processes of one host exclude each other by ``flock``, which the system undoes
whatever ends a process.  Hosts that share a file system may not see each
other's locks: the file names the process that holds it, and its age is that of
the last sign of life.
"""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
import stat
import threading
import time
from typing import NamedTuple

from jaxnlt.runtime import processes
from jaxnlt.runtime.errors import UserError

#: Name of the file, which stays in the workdir, empty after an orderly end.
FILE = ".lock"
# Seconds between two signs of life, and after which the process of another
# host counts as dead.
_SIGN_OF_LIFE = 10
_DEAD = 60
# More than any content has.
_SIZE = 4096


class _Holder(NamedTuple):
    """The process that holds a lock.

    Attributes:
      host: its name.
      pid: number of the process there.
      started: when the process was started, as the system counts it; '' where
        it does not say.
    """

    host: str
    pid: int
    started: str

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lock:
    """Keeps a workdir for one run; the lead of a job holds it for all.

    Args:
      directory: the workdir, an existing folder.

    Raises:
      UserError: another run that is alive holds it.
    """

    def __init__(self, directory: pathlib.Path) -> None:
        self._directory = directory
        self._descriptor: int | None = None
        self._released = threading.Event()
        processes.led(self._take)

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def _take(self) -> None:
        self._descriptor = _taken(self._directory / FILE)
        own = _Holder(socket.gethostname(), os.getpid(), _started(os.getpid()))
        os.truncate(self._descriptor, 0)
        os.pwrite(self._descriptor, json.dumps(own).encode(), 0)
        threading.Thread(target=self._show_life, daemon=True).start()

    def _show_life(self) -> None:
        while not self._released.wait(_SIGN_OF_LIFE):
            with contextlib.suppress(OSError):
                os.utime(self._directory / FILE)

    def check(self) -> None:
        """Refuses to write into a workdir that is not the one locked.

        Raises:
          UserError: it was deleted, moved or replaced.
        """
        found = self._directory.is_dir()
        if found and self._descriptor is not None:
            held = os.fstat(self._descriptor)
            try:
                found = os.path.samestat(held, os.stat(self._directory / FILE))
            except FileNotFoundError:
                found = False
        if not found:
            raise UserError(
                f"{self._directory}: was deleted or replaced while the run "
                "wrote there; start again in another --workdir"
            )

    def release(self) -> None:
        """Gives the workdir back; once more changes nothing."""
        self._released.set()
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # Empty, not removed: another process may have it open.
            with contextlib.suppress(OSError):
                os.truncate(descriptor, 0)
            os.close(descriptor)


def check_free(directory: pathlib.Path) -> None:
    """Refuses a workdir in which a run is at work, and changes nothing.

    Args:
      directory: may be absent.

    Raises:
      UserError: a run that is alive holds it.
    """

    def look() -> None:
        if (directory / FILE).exists():
            os.close(_taken(directory / FILE))

    processes.led(look)


def _taken(path: pathlib.Path) -> int:
    """The descriptor of a lock file, locked.

    Raises:
      UserError: a process that is alive holds it, or it is no file.
    """
    # A pipe in its place would wait for a writer.
    flags = os.O_RDWR | os.O_CREAT | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o666)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise UserError(f"{path}: is not a file; remove it")
        lockless = True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            lockless = False
        except BlockingIOError:
            raise _in_use(path, _holder(descriptor)) from None
        except OSError:
            pass  # this file system has no locks: the content decides
        holder = _holder(descriptor)
        if holder is not None:
            if holder.host != socket.gethostname():
                age = time.time() - os.fstat(descriptor).st_mtime
                if age < _DEAD:
                    raise _in_use(path, holder, age)
            elif lockless and _started(holder.pid) == holder.started:
                raise _in_use(path, holder)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _in_use(
    path: pathlib.Path, holder: _Holder | None, age: float | None = None
) -> UserError:
    message = (
        f"{path.parent}: {holder or 'another process'} is at work there; wait "
        "for its end, or choose another --workdir"
    )
    if age is not None:
        message += (
            f" (last sign of life {max(0.0, age):.0f} s ago; if it is dead, "
            f"wait {_DEAD} s or remove {path})"
        )
    return UserError(message)


def _holder(descriptor: int) -> _Holder | None:
    """The process that a lock file names; None where it names none."""
    try:
        host, pid, started = json.loads(os.pread(descriptor, _SIZE, 0))
    except (ValueError, TypeError, RecursionError):
        return None
    kinds = (str, int, str)
    holder = _Holder(host, pid, started)
    return holder if tuple(map(type, holder)) == kinds else None


def _started(pid: int) -> str:
    """When a process was started; '' where it is gone or not known."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # After the name, which may hold anything.
    return fields.rpartition(")")[2].split()[19]
