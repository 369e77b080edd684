"""Options as typed classes: each field's type, range and meaning, stated once.

An options class is a frozen dataclass.  The annotation of a field states what
it may hold: a type, ``Literal`` choices, or a type with a ``Range``; its
meaning stands under ``Attributes`` of the class's docstring.  The config, the
help text, the check at the start of a run and the code that reads the options
all use the same class.
"""

import dataclasses
import functools
import inspect
import math
import re
import types
import typing
from collections.abc import Mapping
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    TypeVar,
)

import ml_collections

from jaxnlt.runtime.errors import UserError

# Metadata of a field that changes no number.
_CHANGEABLE = "changeable"


class OptionsClass(Protocol):
    """Any dataclass."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


T = TypeVar("T", bound=OptionsClass)


#: Largest integer of a field: row numbers are int32.
LARGEST = 2**31 - 1
#: Sizes of a float other than 0, so that float32 holds it and its reciprocal.
_LEAST_FLOAT, _LARGEST_FLOAT = 1e-30, 1e38
#: Most characters of a text: a path that no system takes is none.
_LONGEST = 4000


@dataclasses.dataclass(frozen=True)
class Range:
    """An interval of numbers.

    Attributes:
      low: least value.
      high: largest value.
      open_low: whether ``low`` itself is excluded.
      open_high: whether ``high`` itself is excluded.
    """

    low: float = -math.inf
    high: float = math.inf
    open_low: bool = False
    open_high: bool = False

    def __contains__(self, value: float) -> bool:
        above = value > self.low if self.open_low else value >= self.low
        below = value < self.high if self.open_high else value <= self.high
        return above and below

    def __str__(self) -> str:
        low, high = (f"{end:.10g}" for end in (self.low, self.high))
        if self.high in (LARGEST, math.inf):
            least = f"{'above' if self.open_low else 'at least'} {low}"
            most = "" if self.high == math.inf else f" and at most {high}"
            return least + most
        return f"in {'[('[self.open_low]}{low}, {high}{'])'[self.open_high]}"


#: A float of at least 0, such as the weight of a loss.
NotNegative = Annotated[float, Range(0, 1e6)]
#: A float above 0, such as a number of epochs.
Positive = Annotated[float, Range(1e-3, 1e6)]
#: A step size, without an upper bound: a run that diverges says so.
Rate = Annotated[float, Range(0)]
#: What logits or similarities are divided by.
Temperature = Annotated[float, Range(1e-3, 1e3)]
#: The parameter of a symmetric Beta distribution.
BetaParameter = Annotated[float, Range(1e-3, 1e3)]
#: A float in [0, 1], such as a probability.
Share = Annotated[float, Range(0, 1)]
#: A float in [0, 1), such as a momentum.
Decay = Annotated[float, Range(0, 1, open_high=True)]
#: A float in (0, 1], such as the factor of a decay.
Factor = Annotated[float, Range(0, 1, open_low=True)]
#: An integer of at least 1.
Count = Annotated[int, Range(1, LARGEST)]
#: An integer of at least 0.
Natural = Annotated[int, Range(0, LARGEST)]
#: What NumPy's RandomState takes.
Seed = Annotated[int, Range(0, 2**32 - 1)]


def changeable(default: Any) -> Any:
    """The default of a field that may change when a run is resumed.

    Such a field changes no number: it says how fast or from where.

    Args:
      default: of the field.

    Returns:
      What stands after the field's annotation.
    """
    return dataclasses.field(default=default, metadata={_CHANGEABLE: True})


def changeables(kind: type[OptionsClass], prefix: str = "") -> set[str]:
    """Dotted names of the fields that may change when a run is resumed.

    Args:
      kind: an options class.
      prefix: put before the names.
    """
    found = {
        prefix + field.name
        for field in dataclasses.fields(kind)
        if field.metadata.get(_CHANGEABLE)
    }
    for name, hint in _hints(kind).items():
        if dataclasses.is_dataclass(hint):
            inside = typing.cast(Any, hint)
            found |= changeables(inside, f"{prefix}{name}.")
    return found


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def names(kind: type[OptionsClass]) -> tuple[str, ...]:
    """Names of the fields of an options class, in order."""
    return tuple(_hints(kind))


def as_dict(options: OptionsClass) -> dict[str, Any]:
    """The fields of an options object, nested options as nested dicts."""
    return {
        name: as_dict(value)
        if hasattr(value, "__dataclass_fields__")
        else value
        for name in names(type(options))
        for value in [getattr(options, name)]
    }


def read(kind: type[T], values: Mapping[str, Any], where: str) -> T:
    """Makes an options object from config values and checks every field.

    Args:
      kind: an options class.
      values: holds at least the fields of ``kind``.
      where: dotted name of ``values``, such as ``config.dasc``.

    Returns:
      The options.

    Raises:
      UserError: a field of another type, out of its range, or not among its
        choices.
    """
    if not hasattr(values, "keys"):
        raise UserError(f"{where}: is a group of fields, is {shown(values)}")
    found: dict[str, Any] = {}
    if not isinstance(values, Mapping | ml_collections.ConfigDict):
        raise UserError(f"{where}: expects a group of fields, is {values!r}")
    for name, hint in _hints(kind).items():
        if name not in values:
            raise UserError(f"{where}.{name}: is missing")
        path, value = f"{where}.{name}", values[name]
        if dataclasses.is_dataclass(hint):
            found[name] = read(typing.cast(Any, hint), value, path)
        else:
            check_value(hint, value, path)
            found[name] = value
    return kind(**found)


def shown(value: Any) -> str:
    """A value in a message: short and on one line, whatever it is."""
    if hasattr(value, "keys"):
        return "a group"
    if isinstance(value, int) and value.bit_length() > 256:
        return f"an integer of {value.bit_length()} bits"
    text = "".join(c if c.isprintable() else " " for c in repr(value))
    return text if len(text) <= 80 else f"{text[:77]}..."


def check_value(hint: Any, value: Any, path: str) -> None:
    """Checks one value against a field's annotation.

    Args:
      hint: ``int``, ``float``, ``bool``, ``str``, ``Literal``, ``tuple[X,
        ...]``, or one of them in ``Annotated`` with a ``Range``.
      value: what the field holds.
      path: dotted name of the field.

    Raises:
      UserError: naming the field, what it may hold and what it holds.
    """
    if hint is Any:
        return
    if typing.get_origin(hint) is Annotated:
        kind, interval = typing.get_args(hint)
        check_value(kind, value, path)
        if value not in interval:
            raise UserError(f"{path}: must be {interval}, is {shown(value)}")
    elif typing.get_origin(hint) is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            known = ", ".join(repr(c) if c == "" else str(c) for c in choices)
            raise UserError(f"{path}: {shown(value)} is not one of {known}")
    elif typing.get_origin(hint) is tuple:
        kind = typing.get_args(hint)[0]
        if not isinstance(value, tuple | list):
            raise UserError(f"{path}: expects a tuple, is {shown(value)}")
        for item in value:
            check_value(kind, item, path)
    elif hint in (int, float):
        kinds = int if hint is int else int | float
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise UserError(
                f"{path}: expects {hint.__name__}, is {shown(value)}"
            )
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path}: must be finite, is {value}")
        size = abs(value)
        if hint is float and not (
            value == 0 or _LEAST_FLOAT <= size <= _LARGEST_FLOAT
        ):
            raise UserError(
                f"{path}: must be 0 or of a size that float32 holds, "
                f"{_LEAST_FLOAT:g} to {_LARGEST_FLOAT:g}, is {shown(value)}"
            )
    elif isinstance(hint, type) and not isinstance(value, hint):
        raise UserError(f"{path}: expects {hint.__name__}, is {shown(value)}")
    elif hint is str and (len(value) > _LONGEST or not value.isprintable()):
        raise UserError(
            f"{path}: must be at most {_LONGEST} characters, none of them a "
            f"control character, is {shown(value)}"
        )


def check_starts(starts: Mapping[str, int], epochs: int) -> None:
    """Checks that every phase of a run begins after the one before it.

    Args:
      starts: dotted field -> first epoch of a phase, in their order.
      epochs: of the run.

    Raises:
      UserError: naming the field of a phase that begins before the one that it
        follows, or after the last epoch.
    """
    before, name = -1, ""
    for field, start in starts.items():
        if start <= before:
            raise UserError(
                f"{field}: must be after {name}, {before}, is {start}"
            )
        if start >= epochs:
            raise UserError(
                f"{field}: must be below config.epochs, {epochs}, is {start}; "
                f"the key epochs={epochs} after the benchmark scales all such "
                "fields"
            )
        before, name = start, field


def describe_type(hint: Any) -> str:
    """What a field may hold, in words for the help text."""
    origin = typing.get_origin(hint)
    if origin is Annotated:
        kind, interval = typing.get_args(hint)
        return f"{describe_type(kind)} {interval}"
    if origin is Literal:
        return " | ".join(c or "''" for c in typing.get_args(hint))
    if isinstance(hint, types.GenericAlias):
        kinds = typing.get_args(hint)
        return f"{hint.__origin__.__name__} of {describe_type(kinds[0])}"
    return "any" if hint is Any else str(hint.__name__)


class FieldHelp(NamedTuple):
    """One field in the help text.

    Attributes:
      kind: what the field may hold.
      meaning: from the docstring of the options class.
    """

    kind: str
    meaning: str


def describe(
    kind: type[OptionsClass], prefix: str = ""
) -> dict[str, FieldHelp]:
    """What every field may hold and what it means.

    Args:
      kind: an options class.
      prefix: put before the names.

    Returns:
      Dotted field names, those of nested options classes included.
    """
    meanings: dict[str, str] = {}
    for base in reversed(inspect.getmro(kind)):
        if dataclasses.is_dataclass(base):
            meanings |= _attributes(base)
    found: dict[str, FieldHelp] = {}
    for name, hint in _hints(kind).items():
        if dataclasses.is_dataclass(hint):
            found |= describe(typing.cast(Any, hint), f"{prefix}{name}.")
        else:
            found[prefix + name] = FieldHelp(
                describe_type(hint), meanings.get(name, "")
            )
    return found


def _attributes(kind: type) -> dict[str, str]:
    """The entries under ``Attributes`` of a Google-style docstring."""
    text = inspect.cleandoc(kind.__doc__ or "")
    _, _, section = text.partition("\nAttributes:\n")
    section = re.split(r"\n(?=\S)", section)[0]
    entries = re.findall(
        r"^  (\w+): (.*(?:\n {4,}.*)*)", section, flags=re.MULTILINE
    )
    return {
        name: " ".join(body.replace("``", "").split()) for name, body in entries
    }
