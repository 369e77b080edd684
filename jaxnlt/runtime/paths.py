"""Paths that a user names, and the regular files behind them."""

import errno
import os
import pathlib
import stat
from typing import BinaryIO

from jaxnlt.runtime.errors import UserError

#: What a path may name besides a regular file and a folder.
_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISDIR, "a folder"),
)


def expanded(
    path: str | os.PathLike, field: str, room: str = ""
) -> pathlib.Path:
    """The path that a user names, with ``~`` expanded.

    Args:
      path: as it was given; nothing needs to be there.
      field: the flag or field that names it, for messages.
      room: what will be appended to its name; it counts as long as it is.

    Returns:
      The path.

    Raises:
      UserError: ``~user`` of nobody, a character or a length that no path can
        have here, a loop of links.
    """
    text = os.fspath(path)
    if "\0" in text:
        raise UserError(f"{field}: {text!r} holds a NUL, which no path can")
    try:
        found = pathlib.Path(text).expanduser()
    except RuntimeError:
        raise UserError(
            f"{field}: {text}: there is no home folder of "
            f"{text.partition('/')[0]}; write the path in full"
        ) from None
    for longest in (found, f"{found}{room}"):
        try:
            os.stat(longest)
        except OSError as error:
            if error.errno in (errno.ENAMETOOLONG, errno.ELOOP):
                raise UserError(
                    f"{field}: {found}: {error.strerror}; name another path"
                ) from None
        except ValueError as error:
            raise UserError(f"{field}: {text!r} is no path ({error})") from None
    return found


def open_regular(path: str | os.PathLike, field: str = "") -> BinaryIO:
    """Opens a file for reading; never waits for a pipe or a device.

    Args:
      path: the file; a link to one will do.
      field: the flag or field that names it, for messages; '' where the path
        is enough.

    Returns:
      The open file.

    Raises:
      UserError: it cannot be opened, or is no regular file.
    """
    where = f"{field}: {path}" if field else str(path)
    try:
        # Before it is opened: opening alone can move a device.
        _check_regular(where, os.stat(path).st_mode)
        # It may have been exchanged since; a pipe is not waited for.
        file = open(path, "rb", opener=_at_once)  # noqa: SIM115 - returned
        try:
            _check_regular(where, os.fstat(file.fileno()).st_mode)
        except UserError:
            file.close()
            raise
    except FileNotFoundError:
        raise UserError(f"{where}: no such file") from None
    except OSError as error:
        raise UserError(f"{where}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{where}: is no path ({error})") from None
    return file


def _check_regular(where: str, mode: int) -> None:
    if not stat.S_ISREG(mode):
        kind = next((word for test, word in _KINDS if test(mode)), "no file")
        raise UserError(f"{where}: is {kind}; name a regular file")


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
