"""CSV files whose cells no spreadsheet takes for formulas.

A cell that starts with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return
is run by spreadsheets when the file is opened.  An apostrophe in front makes
it text, for them and for the readers of this package alike.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import IO, Any

_STARTS = "=+\\-@\t\r"
# What every text starts with that is guarded.
_FIRST = tuple("'=+-@\t\r")
_GUARDED, _GUARD = re.compile(f"'+[{_STARTS}]"), re.compile(f"'*[{_STARTS}]")


def guarded(name: str) -> str:
    """The cell of a name; ``plain`` takes it back unchanged.

    Args:
      name: of a class or a file.

    Returns:
      The same, with an apostrophe in front where a spreadsheet would run it,
      or where it looks as if it had been given one.
    """
    return f"'{name}" if _GUARD.match(name) else name


def plain(cell: str) -> str:
    """The name of a cell.

    Args:
      cell: of a file that ``write`` wrote, or of the user's own.

    Returns:
      The name that ``guarded`` was given.
    """
    return cell[1:] if _GUARDED.match(cell) else cell


def write(file: IO[str], rows: Iterable[Iterable[Any]]) -> None:
    """Writes rows of a CSV file.

    Args:
      file: opened with ``newline=""``.
      rows: texts are guarded, numbers are not; None becomes an empty cell.
    """
    usual = csv.writer(file, lineterminator="\n")
    # The usual writer leaves a carriage return bare, which ends a row.
    quoting = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_ALL)
    for row in rows:
        cells = [guarded(v) if isinstance(v, str) else v for v in row]
        bare = any(isinstance(v, str) and "\r" in v for v in cells)
        (quoting if bare else usual).writerow(cells)


def write_table(file: IO[str], table: Mapping[str, Sequence[Any]]) -> None:
    """Writes a CSV file column by column, as ``write`` does, but faster.

    Args:
      file: opened with ``newline=""``.
      table: values by the name of their column, all columns of one length.
    """
    write(file, [table])
    columns, bare = [], False
    for values in table.values():
        texts = set()
        if str in set(map(type, values)):
            # Names of classes come again and again.
            texts = {v for v in set(values) if isinstance(v, str)}
        known = {t: guarded(t) for t in texts if t.startswith(_FIRST)}
        bare |= any("\r" in text for text in texts)
        columns.append([known.get(v, v) for v in values] if known else values)
    if bare:
        write(file, zip(*table.values(), strict=True))
    else:
        rows = zip(*columns, strict=True)
        csv.writer(file, lineterminator="\n").writerows(rows)
