"""Files that are complete or absent, and text that is read without waiting."""

import contextlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import IO, Any

from jaxnlt.runtime.errors import UserError

# Bytes of the largest text; the ids and labels of a million images have 100 MB.
_TEXT = 512 << 20


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
    """Gives an error of the operating system the path that it lacks.

    A full disk is met while writing, where Python knows no name.

    Args:
      path: the file that is written.

    Yields:
      Nothing.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


@contextlib.contextmanager
def atomic(path: pathlib.Path, binary: bool = False) -> Iterator[IO[Any]]:
    """A file that appears at ``path`` only when it is complete.

    Args:
      path: the file.
      binary: whether bytes are written; else text in UTF-8, with line ends as
        they are written.

    Yields:
      The file to write to.  After an exception nothing is left of it.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with (
            naming(path),
            open(temporary, "wb")
            if binary
            else open(temporary, "w", encoding="utf-8", newline="") as file,
        ):
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextlib.contextmanager
def atomic_folder(path: pathlib.Path, field: str) -> Iterator[pathlib.Path]:
    """A folder that appears at ``path`` only when it is complete.

    Args:
      path: is not there, or an empty folder.
      field: the flag that names it, for messages.

    Yields:
      The folder to write to, beside it.  After an exception nothing is left.

    Raises:
      UserError: something is there, or the folder that it is to stand in is
        not.
    """
    where = f"{field}: {path}"
    if not path.absolute().parent.is_dir():
        raise UserError(f"{where.removesuffix(path.name)}: no such folder")
    if path.exists() and not path.is_dir():
        raise UserError(f"{where}: is no folder; name one that is not there")
    if path.is_dir() and any(path.iterdir()):
        raise UserError(f"{where}: is not empty; name a new folder")
    path = path.resolve()
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        temporary.mkdir()
    except FileExistsError:
        raise UserError(
            f"{field}: {temporary}: is there, of a command at work or killed; "
            "remove it if none works"
        ) from None
    try:
        with naming(temporary):
            yield temporary
            # Replaces a folder that is empty, and no other.
            os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_kind(path: pathlib.Path, folder: bool = False) -> None:
    """Refuses what stands in the place of a file or a folder.

    Args:
      path: may be absent.
      folder: whether a folder belongs there.

    Raises:
      UserError: a folder, a pipe or a device in the place of a file, or
        anything but a folder in the place of one.
    """
    right = path.is_dir() if folder else path.is_file()
    if path.exists() and not right:
        kind = "folder" if folder else "file"
        raise UserError(f"{path}: is not a {kind}; move it elsewhere")


def read_text(path: pathlib.Path) -> str | None:
    """The text of a file, None where there is none.

    Args:
      path: in UTF-8.

    Returns:
      The text.

    Raises:
      UserError: it is no regular file, too large, cannot be read, or is not
        UTF-8.
    """
    check_kind(path)
    try:
        if (size := path.stat().st_size) > _TEXT:
            raise UserError(
                f"{path}: has {size:,} bytes, no run writes so many"
            )
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason})") from error
