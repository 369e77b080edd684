"""Prepared tensorflow-datasets copies: how one is found and opened.

A copy is a folder ``NAME/[CONFIG/]VERSION/`` with ``dataset_info.json``.
TensorFlow is never needed for copies in array_record format.
"""

import contextlib
import io
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import Any

from jaxnlt.data import untrusted
from jaxnlt.runtime.errors import UserError

ARRAY_RECORD = "array_record"
_INFO, _FEATURES = "dataset_info.json", "features.json"
# Bytes of the largest list of names.
_TEXT = 64 * untrusted.MIB
# Where the library keeps its kinds of features.
_OWN = "tensorflow_datasets.core.features."
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
      UserError: it cannot be read or is no JSON object of that form.
    """
    info = untrusted.read_json(version / _INFO)
    if not isinstance(info, dict) or not all(
        isinstance(kind, str) for kind in formats(info)
    ):
        raise UserError(
            f"{version / _INFO}: is no description of a tensorflow-datasets "
            "copy"
        )
    return info


def opened(tfds: Any, version: pathlib.Path) -> Any:
    """The library's builder of a copy.

    Args:
      tfds: the module, see ``quiet``.
      version: the folder of the copy.

    Returns:
      What reads its records.

    Raises:
      UserError: a file of the copy is no regular file or too large, or its
        features are not the library's own: it would import any module that
        they name.
    """
    for file in version.iterdir():
        if not file.is_file() and not file.is_dir():
            raise UserError(f"{file}: is no regular file")
        # The library reads them whole.
        if file.suffix in (".txt", ".json") and file.stat().st_size > _TEXT:
            raise UserError(
                f"{file}: has more than {untrusted.size_text(_TEXT)}, which "
                "names of classes and features never have"
            )
    waiting = [untrusted.read_json(version / _FEATURES)]
    while waiting:
        entry = waiting.pop()
        if isinstance(entry, list):
            waiting += entry
        elif isinstance(entry, dict):
            waiting += entry.values()
            name = entry.get("pythonClassName", _OWN)
            if not isinstance(name, str) or not name.startswith(_OWN):
                raise UserError(
                    f"{version / _FEATURES}: refused, names the class "
                    f"{untrusted.shown(name)}, which is not one of {_OWN}*"
                )
    return tfds.builder_from_directory(str(version))


def formats(info: dict[str, Any]) -> list[str]:
    """The formats in which a copy holds its records.

    Args:
      info: see ``description``.

    Returns:
      ``array_record``, ``tfrecord`` and so on, the main one first.
    """
    others = info.get("alternativeFileFormats", [])
    others = others if isinstance(others, list) else [others]
    return [info.get("fileFormat", ""), *others]


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
    except UserError:
        raise
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
