"""Entries that a user's module adds to the package's tables of names."""

import re
from typing import TypeVar

from jaxnlt.runtime.errors import UserError

T = TypeVar("T")


def add(table: dict[str, T], kind: str, name: str, entry: T) -> None:
    """Adds an entry; a name stands for one thing in a process.

    Args:
      table: name -> entry; changed.
      kind: of the entries, for messages.
      name: letters, digits and underscores, as command lines need it.
      entry: what the name stands for; the same one may be added again.

    Raises:
      UserError: another entry has the name, or it is no such name.
    """
    if not re.fullmatch(r"[A-Za-z]\w*", name):
        raise UserError(
            f"{kind} {name!r}: the name must be letters, digits and underscores"
        )
    if table.setdefault(name, entry) != entry:
        raise UserError(f"{kind} {name!r}: the name is taken, choose another")
