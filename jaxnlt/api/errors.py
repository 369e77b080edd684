"""Errors that name the arguments of a call, not the fields of a config."""

import contextlib
import pathlib
import re
from collections.abc import Iterator

from jaxnlt.runtime.errors import UserError

# config.json, which a message may name, is no field.
_FIELD = re.compile(r"(?:--)?config\.(?!json\b)(\w+(?:\.\w+)*)")
# The arrays of an npz file.
_ARRAY = re.compile(r"\btrain_(images|features|labels)\b")


class ArgumentError(UserError, ValueError):
    """A mistake in an argument; the message starts with its name."""


@contextlib.contextmanager
def naming_arguments(data: pathlib.Path | None = None) -> Iterator[None]:
    """Names keywords for fields: ``model__width`` for ``config.model.width``.

    Args:
      data: the file that the arrays were written to, which no caller knows.

    Yields:
      Nothing.

    Raises:
      ArgumentError: for every UserError inside.
    """
    try:
        yield
    except ArgumentError:
        raise
    except UserError as error:
        text = _FIELD.sub(lambda m: m[1].replace(".", "__"), str(error))
        text = text.replace("--config: ", "method: ")
        if data is not None and str(data) in text:
            text = _ARRAY.sub(r"\1", text.replace(f"{data}: ", ""))
        raise ArgumentError(text) from error
