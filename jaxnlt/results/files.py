"""JSON and lines of JSON."""

import json
import math
import pathlib
from typing import Any

import numpy as np

from jaxnlt.runtime.errors import UserError
from jaxnlt.runtime.files import atomic, read_text

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


def read_json(path: str | pathlib.Path) -> Record | None:
    """The object of a JSON file, or None where there is no such file.

    Raises:
      UserError: it is no file, not JSON, or holds no object.
    """
    text = read_text(pathlib.Path(path))
    return None if text is None else _object(text, f"{path}:")


def _object(text: str, where: str) -> Record:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where} is not valid JSON ({error})") from None
    if not isinstance(found, dict):
        raise UserError(f"{where} must be a JSON object, is {found!r:.40}")
    return found


def read_jsonl(path: str | pathlib.Path) -> list[Record]:
    """The objects of a file with one JSON object on each line.

    A last line without its end (the writer was killed) is left out; a missing
    file holds none.

    Raises:
      UserError: it is no file, or another line is no JSON object.
    """
    lines = (read_text(pathlib.Path(path)) or "").split("\n")[:-1]
    return [
        _object(line, f"{path}: line {number}")
        for number, line in enumerate(lines, 1)
    ]
