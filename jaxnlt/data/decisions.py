"""Decisions on single labels, as a person or ``jaxnlt.clean`` makes them.

A CSV with the columns ``path`` (or ``index``), ``given_label``, ``action`` and
``label`` (or ``new_label``): ``keep`` confirms the given label, ``relabel``
replaces it, ``drop`` removes the image.  What has no row keeps its label.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from jaxnlt.data import cells
from jaxnlt.data.readers import lists
from jaxnlt.runtime.errors import UserError

KEEP, RELABEL, DROP = ACTIONS = ("keep", "relabel", "drop")
_LABELS = ("label", "new_label")
_WANTED = "path (or index),given_label,label,action"


class Decision(NamedTuple):
    """What was decided of one image.

    Attributes:
      row: of the file, for messages.
      given: the label that was decided on, without spaces around it.
      label: the label from now on, likewise; None for an image that goes.
    """

    row: int
    given: str
    label: str | None


def marked(columns: Sequence[str]) -> bool:
    """Whether the columns of a CSV are those of decisions.

    Args:
      columns: their names.
    """
    return {"action", "given_label"} <= set(columns) and any(
        name in columns for name in _LABELS
    )


def read(file: pathlib.Path, field: str) -> dict[str, Decision]:
    """Reads decisions.

    Args:
      file: the CSV.
      field: the flag or field that names it, for messages.

    Returns:
      The decision on each image, by its path or index as it is written.

    Raises:
      UserError: unreadable, a column or a value is missing, a row contradicts
        itself, or an image has two rows.
    """
    columns, rows = lists.csv_rows(file, field)
    if not marked(columns):
        raise UserError(
            f"{file}: holds no decisions; the first line must name the "
            f"columns {_WANTED}"
        )
    place = lists.csv_column(
        file, columns, ("index", *lists.PATH_COLUMNS), _WANTED
    )
    label = next(name for name in _LABELS if name in columns)
    found: dict[str, Decision] = {}
    for number, row in enumerate(rows, 2):
        values = dict(zip(columns, row, strict=False))
        # A name may begin or end with a space.
        key = cells.plain(values.get(place, ""))
        if not key.strip():
            raise UserError(f"{file}: row {number} has no {place}")
        if key in found:
            raise UserError(
                f"{file}: row {number} repeats {key} of row {found[key].row}"
            )
        where = f"{file}: row {number} ({key})"
        found[key] = _decision(where, number, values, label)
    return found


def applied(
    file: pathlib.Path,
    field: str,
    ids: Sequence[str],
    given: Sequence[str],
    names: Sequence[str],
) -> list[str | None]:
    """The labels after the decisions of a file.

    Args:
      file: see ``read``.
      field: see ``read``.
      ids: N paths or indices.
      given: N labels.
      names: C class names.

    Returns:
      N labels; None for an image that goes.

    Raises:
      UserError: see ``read``; an image or a class is unknown, the given label
        is another one, or a class would be left without an image.
    """
    rows = {key: k for k, key in enumerate(ids)}
    known = {name.strip(): name for name in names}
    labels: list[str | None] = list(given)
    for key, decision in read(file, field).items():
        where = f"{file}: row {decision.row} ({key})"
        k = rows.get(key, rows.get(key.strip()))
        if k is None:
            raise UserError(
                f"{where}: is none of the {len(ids)} images; remove the row, "
                "or name the data that it was decided on"
            )
        if given[k].strip() != decision.given:
            raise UserError(
                f"{where}: given_label is {decision.given!r}, the image's is "
                f"{given[k]!r}; the decisions are on other labels than these"
            )
        if decision.label is None:
            labels[k] = None
        elif decision.label in known:
            labels[k] = known[decision.label]
        else:
            raise UserError(
                f"{where}: {decision.label!r} is no class; there are "
                f"{', '.join(names)}"
            )
    check_kept(str(file), given, labels, "keep one image of it")
    return labels


def check_kept(
    where: str,
    given: Sequence[str],
    labels: Sequence[str | None],
    way_out: str,
) -> None:
    """Refuses to leave a class without an image.

    Args:
      where: what changes the labels, for the message.
      given: N labels before.
      labels: N labels after; None for an image that goes.
      way_out: for the message.

    Raises:
      UserError: the first class that would be empty.
    """
    left = set(labels)
    for name in dict.fromkeys(given):
        if name not in left:
            raise UserError(
                f"{where}: class {name} would be left without an image, of "
                f"{given.count(name)}; {way_out}"
            )


def _decision(
    where: str, row: int, values: Mapping[str, str], label: str
) -> Decision:
    """The decision of a row."""
    action, given, new = (
        cells.plain(values.get(name, "").strip()).strip()
        for name in ("action", "given_label", label)
    )
    if action not in ACTIONS:
        raise UserError(
            f"{where}: action is {action!r}, none of {', '.join(ACTIONS)}"
        )
    if not given:
        raise UserError(f"{where}: has no given_label")
    if action == DROP:
        return Decision(row, given, None)
    if not new:
        raise UserError(
            f"{where}: has no {label}; write one, or {DROP} as action"
        )
    if action == KEEP and new != given:
        raise UserError(
            f"{where}: keeps {given!r} and names {new!r}; write {RELABEL} as "
            "action, or the same label"
        )
    return Decision(row, given, new)
