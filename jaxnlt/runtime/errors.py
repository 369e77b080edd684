"""Errors of the user's and the logger; imports nothing of jaxnlt."""

import logging
from collections.abc import Iterable

logger = logging.getLogger("jaxnlt")


class UserError(Exception):
    """A mistake that the user can mend; the command line prints it as one line.

    The message starts with the file, field or class concerned, as in
    ``config.data.rate: must lie in [0, 1), is 1.5``.
    """


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
