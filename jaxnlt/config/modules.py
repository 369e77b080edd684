"""Finds what a user wrote: the module of a method, by the name in its config.

``config.method`` names a file in jaxnlt/methods/, an entry point of the group
``jaxnlt.methods``, or any module that Python can import.  Its fields stand in
the group of the config that is called like the last part of the name:
``my_package.small_loss`` reads ``config.small_loss``.
"""

import contextlib
import importlib
import importlib.metadata
import importlib.util
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator
from types import ModuleType
from typing import TypeVar

from jaxnlt.runtime.errors import UserError

T = TypeVar("T")

#: The package of our own methods, and the group of installed ones.
METHODS = "jaxnlt.methods"
# How sys.path names the current folder.
_CURRENT = ""


def options_group(method: str) -> str:
    """Name of the group of the config that holds a method's fields."""
    return method.rpartition(".")[2]


@contextlib.contextmanager
def search_path(first: pathlib.Path | None = None) -> Iterator[None]:
    """Lets Python import from two more folders while it lasts.

    Args:
      first: comes before all others, as a script's folder does.  The current
        folder comes last: a stray file in it hides no library.
    """
    own = [] if first is None else [str(first.absolute())]
    sys.path[:] = [*own, *sys.path, _CURRENT]
    # Files may be newer than what Python remembers of their folder.
    importlib.invalidate_caches()
    try:
        yield
    finally:
        # What the imported code has added stays.
        for folder in own:
            _drop(folder, 0)
        _drop(_CURRENT, -1)


def _drop(folder: str, end: int) -> None:
    """Removes the first (0) or the last (-1) such folder, if it is there."""
    at = [i for i, entry in enumerate(sys.path) if entry == folder]
    if at:
        del sys.path[at[end]]


def load_method(name: str) -> ModuleType:
    """Imports the module of a method, from the current folder too.

    Args:
      name: ``config.method``.

    Returns:
      The module; the class ``Method`` in it is for the caller to check.

    Raises:
      UserError: there is no such module, or it fails; the line at fault is
        named.
    """
    if not re.fullmatch(r"[^\W\d][\w-]*(\.[^\W\d]\w*)*", name):
        raise UserError(f"config.method: {name!r} is not the name of a module")
    target = _target(name)
    try:
        with search_path():
            return importlib.import_module(target)
    except UserError:
        raise
    except Exception as error:
        missing = getattr(error, "name", None)
        if isinstance(error, ModuleNotFoundError) and _holds(missing, target):
            raise UserError(
                f"config.method: there is no module {target!r}; install it, "
                "run in the folder that holds it, or name that in PYTHONPATH"
            ) from None
        raise UserError(
            f"config.method: {target!r} cannot be imported: {described(error)}"
        ) from error


def load_class(name: str, base: type[T]) -> type[T]:
    """The class ``Method`` in the module of a method.

    Args:
      name: ``config.method``.
      base: the class that it extends.

    Raises:
      UserError: see ``load_method``; or the module has no such class.
    """
    kind = getattr(load_method(name), "Method", None)
    if not (isinstance(kind, type) and issubclass(kind, base)):
        raise UserError(
            f"config.method: the module {name!r} has no class Method that "
            "extends jaxnlt.Method"
        )
    return kind


def _target(name: str) -> str:
    own = f"{METHODS}.{name}"
    if "." not in name and importlib.util.find_spec(own):
        return own
    points = importlib.metadata.entry_points(group=METHODS, name=name)
    return next((point.module for point in points), name)


def _holds(package: str | None, module: str) -> bool:
    """Whether a module is the named one or within it."""
    return package is not None and f"{module}.".startswith(f"{package}.")


def described(error: Exception, file: pathlib.Path | None = None) -> str:
    """An error of the user's code: place, kind and text.

    Args:
      error: as raised.
      file: the code at fault, None where the innermost is.

    Returns:
      Such as ``my.py, line 3: NameError: ...``.
    """
    frames = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if (frame.filename == str(file) if file else "<" not in frame.filename)
    ]
    if isinstance(error, SyntaxError):
        frames = [(error.filename or str(file), error.lineno)]
    where, line = frames[-1] if frames else (str(file or ""), None)
    place = f"{where}, line {line}" if line else where
    return f"{place}: {type(error).__name__}: {error}"
