"""Files that are complete or absent; JSON and lines of JSON."""

import json
import math
import os
import pathlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np

from jaxnlt.runtime.errors import UserError

#: A JSON object: an epoch's line of metrics.jsonl, a summary, or parts of them.
Record = dict[str, Any]


def plain(obj: Any) -> Any:
    """The same in JSON's types; numbers that JSON lacks become null."""
    if isinstance(obj, dict):
        return {str(key): plain(value) for key, value in obj.items()}
    if isinstance(obj, list | tuple):
        return [plain(value) for value in obj]
    if isinstance(obj, np.ndarray | np.generic):
        return plain(obj.tolist())
    if isinstance(obj, float) and not math.isfinite(obj):
        return None
    return obj


@contextmanager
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
            open(temporary, "wb")
            if binary
            else open(temporary, "w", encoding="utf-8", newline="")
        ) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(
    path: str | pathlib.Path, obj: Any, indent: int | None = 2
) -> None:
    """Writes JSON; the file is replaced at once or not at all.

    Args:
      path: the file.
      obj: dicts, lists, numbers, numpy arrays and scalars, strings, None;
        non-finite numbers become null.
      indent: of nested values; None writes one line.
    """
    text = json.dumps(plain(obj), indent=indent, allow_nan=False)
    with atomic(pathlib.Path(path)) as file:
        file.write(text + "\n")


def read_json(path: str | pathlib.Path) -> Any:
    """The object of a JSON file, or None where there is no such file.

    Raises:
      UserError: the file is not JSON.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not valid JSON ({error})") from None


def read_jsonl(path: str | pathlib.Path) -> list[Record]:
    """The objects of a file with one JSON object on each line.

    A last line without its end (the writer was killed) is left out; a missing
    file holds none.

    Raises:
      UserError: another line is not JSON.
    """
    path = pathlib.Path(path)
    if not path.exists():
        return []
    records = []
    lines = path.read_text("utf-8").splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        if not line.endswith("\n"):
            break
        try:
            records.append(json.loads(line))
        except ValueError as error:
            raise UserError(f"{path}: line {number} is not JSON") from error
    return records
