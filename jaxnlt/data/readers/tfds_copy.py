"""Prepared tensorflow-datasets copies: how one is found and opened.

A copy is a folder ``NAME/[CONFIG/]VERSION/`` with ``dataset_info.json``.
TensorFlow is never needed for copies in array_record format.
"""

import contextlib
import io
import json
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jaxnlt.runtime.errors import UserError

ARRAY_RECORD = "array_record"
_INFO = "dataset_info.json"
_VERSION = re.compile(r"\d+(\.\d+)*")
_NAME = re.compile(r"(\w+)(?:/([\w.\-]+))?(?::(\d+(?:\.\d+)*))?", re.ASCII)


def newest(path: pathlib.Path) -> pathlib.Path | None:
    """The folder of the newest version of a copy.

    Args:
      path: the folder of a version, or that of the data set above it.

    Returns:
      A folder that holds ``dataset_info.json``; None where there is none.
    """
    if (path / _INFO).is_file():
        return path
    versions = [
        info.parent
        for info in path.glob(f"*/{_INFO}")
        if _VERSION.fullmatch(info.parent.name)
    ]
    return max(
        versions,
        key=lambda v: tuple(int(part) for part in v.name.split(".")),
        default=None,
    )


def find(name: str, roots: Sequence[pathlib.Path]) -> pathlib.Path:
    """Looks for a copy.

    Args:
      name: ``config.data.name``, NAME[/CONFIG][:VERSION]; without a version
        the newest on disk, without a config the only one on disk.
      roots: folders that may hold it.

    Returns:
      The folder of its version.

    Raises:
      UserError: the name is missing or has another form, there is no copy, or
        there are several configs to choose from.
    """
    if not name:
        raise UserError(
            "config.data.name: is missing, it names the tensorflow-datasets "
            "set, as mnist, mnist:3.0.1 or NAME/CONFIG"
        )
    match = _NAME.fullmatch(name)
    if match is None:
        raise UserError(
            f"config.data.name: expects NAME[/CONFIG][:VERSION], is {name!r}"
        )
    title, config, version = match.groups(default="")
    for root in roots:
        found = newest(root / title / config / version)
        if found is None and not config:
            found = _only_config(root / title, version)
        if found is not None:
            return found
    raise UserError(
        f"config.data.path: {name} not found, looked for {title}/"
        f"{config or '[CONFIG]'}/{version or 'VERSION'}/{_INFO} in "
        f"{', '.join(map(str, roots))}; see https://www.tensorflow.org/datasets"
    )


def _only_config(base: pathlib.Path, version: str) -> pathlib.Path | None:
    folders = sorted(p for p in base.glob("*") if p.is_dir())
    copies = {p.name: newest(p / version) for p in folders}
    found = {name: copy for name, copy in copies.items() if copy is not None}
    if len(found) > 1:
        raise UserError(
            f"config.data.name: {base} holds several configs, name one of "
            f"them: {', '.join(f'{base.name}/{name}' for name in found)}"
        )
    return next(iter(found.values()), None)


def description(version: pathlib.Path) -> dict[str, Any]:
    """The description of a copy, without opening it.

    Args:
      version: the folder of a version.

    Returns:
      Its ``dataset_info.json``, with ``name`` and ``fileFormat``.

    Raises:
      OSError: it cannot be read.
      ValueError: it is not a JSON object.
    """
    with open(version / _INFO, encoding="utf-8") as file:
        info = json.load(file)
    if not isinstance(info, dict):
        raise ValueError("holds no JSON object")
    return info


def formats(info: dict[str, Any]) -> list[str]:
    """The formats in which a copy holds its records.

    Args:
      info: see ``description``.

    Returns:
      ``array_record``, ``tfrecord`` and so on, the main one first.
    """
    return [info.get("fileFormat", ""), *info.get("alternativeFileFormats", [])]


@contextlib.contextmanager
def quiet() -> Iterator[Any]:
    """The library, with its printed output suppressed.

    Yields:
      The module ``tensorflow_datasets``, imported only here: it takes a second.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        import tensorflow_datasets as tfds

        yield tfds


@contextlib.contextmanager
def reading(version: pathlib.Path | None) -> Iterator[None]:
    """Reports in one line what the library cannot read.

    Args:
      version: the folder of the copy.

    Raises:
      UserError: in place of the errors of its C++ code at damaged files.
    """
    try:
        yield
    except Exception as error:
        raise UserError(
            f"{version}: damaged tensorflow-datasets copy ({first_line(error)})"
        ) from None


def first_line(error: BaseException) -> str:
    """The message of an exception on one line.

    Args:
      error: of a library with messages of many lines.

    Returns:
      The first line, or the name of its class.
    """
    text = str(error).strip().split("\n")[0]
    return text or type(error).__name__
