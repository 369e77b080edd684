"""Errors of the user's and the logger; imports nothing of jaxnlt."""

import errno
import logging
import os
from collections.abc import Iterable

logger = logging.getLogger("jaxnlt")


class UserError(Exception):
    """A mistake that the user can mend; the command line prints it as one line.

    The message starts with the file, field or class concerned, as in
    ``config.data.rate: must lie in [0, 1), is 1.5``.
    """


# What an operating system refuses, and the way out.
_ROOM = "make room there; the same command goes on"
_WAYS_OUT = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: "choose a place that can be written",
    errno.EACCES: "choose a place that may be read and written",
    errno.EPERM: "choose a place that may be read and written",
    errno.ENOENT: "was it moved or deleted?",
    errno.EISDIR: "move the folder elsewhere",
    errno.ENOTDIR: "move the file elsewhere",
    errno.ENAMETOOLONG: "choose a shorter name",
}


def file_problem(
    error: BaseException, path: str | os.PathLike[str] = ""
) -> str:
    """What a file or a disk refused, in one line with the way out.

    Args:
      error: of the operating system, or of a library that quotes one.
      path: what was read or written, where the error does not say.

    Returns:
      The line; '' for every other error, which is a bug.
    """
    if isinstance(error, OSError):
        number = error.errno
        if isinstance(error.filename, str | bytes):
            path = os.fsdecode(error.filename)
    else:
        text = str(error)
        number = next((n for n in _WAYS_OUT if os.strerror(n) in text), None)
    if number is None:
        return ""
    parts = [os.strerror(number), _WAYS_OUT.get(number, "")]
    where = f"{os.fspath(path)}: " if path else ""
    return where + "; ".join(filter(None, parts))


def one_of(field: str, value: str, known: Iterable[str]) -> None:
    """Refuses a value that is not among the known ones.

    Args:
      field: dotted name, as ``config.data.noise``.
      value: its value.
      known: its possible values.

    Raises:
      UserError: the value is another one.
    """
    known = tuple(known)
    if value not in known:
        raise UserError(
            f"{field}: {value!r} is not one of {', '.join(map(str, known))}"
        )


class Once(logging.Filter):
    """Passes every warning once: the same text about the same first argument.

    Attached to the logger for the length of a run, so that what happens in
    every epoch is reported once.
    """

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[tuple[object, ...]] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        args = record.args if isinstance(record.args, tuple) else ()
        key = (record.msg, *args[:1])
        if record.levelno < logging.WARNING or key not in self._seen:
            self._seen.add(key)
            return True
        return False
