"""What the commands of the bench share: flags, JSON, peak memory."""

import importlib.util
import json
import re
import resource
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections
from absl import flags

from jaxnlt import command_line
from jaxnlt.config import base as config_lib
from jaxnlt.runtime import console, paths
from jaxnlt.runtime.errors import UserError

#: Measured figures by name, JSON-able.
Figures = dict[str, Any]


def read_config(
    argv: Sequence[str], defaults: Mapping[str, int | str]
) -> tuple[ml_collections.ConfigDict, flags.FlagValues]:
    """Reads a command line with ``--config`` and flags of its own.

    Args:
      argv: program name and arguments.
      defaults: of its own flags, besides ``--json``.

    Returns:
      The run's configuration and the values of its own flags.

    Raises:
      UserError: a mistake of the user's.
    """
    known = "|".join((*defaults, "json"))
    own, rest = [argv[0]], [argv[0]]
    for text in argv[1:]:
        is_own = re.match(rf"--?({known})(=|$)", text)
        (own if is_own else rest).append(text)
    values = console.read_flags(own, {**defaults, "json": str})
    try:
        config, workdir = command_line.parse(rest)
    except config_lib.HelpRequested:
        raise UserError("--config: help is given by jaxnlt.main") from None
    if workdir is not None:
        raise UserError("--workdir: the bench writes no workdir")
    return config, values


def check_least(numbers: Mapping[str, tuple[int, int]]) -> None:
    """Refuses numbers that are too small.

    Args:
      numbers: flag -> its value and the least one.

    Raises:
      UserError: a value is below the least one.
    """
    for name, (value, least) in numbers.items():
        if value < least:
            raise UserError(f"--{name}: must be at least {least}, is {value}")


def show(text: str, figures: Figures, file: str | None) -> None:
    """Prints a table and writes its figures.

    Args:
      text: the table.
      figures: as JSON.
      file: where to write them; None writes nothing.

    Raises:
      UserError: the file cannot be written.
    """
    console.echo(text)
    if file is None:
        return
    try:
        place = paths.expanded(file, "--json")
        place.write_text(json.dumps(figures, indent=1) + "\n")
    except OSError as error:
        raise UserError(f"{file}: cannot be written ({error})") from None


def has_torch() -> bool:
    """Whether PyTorch can be imported; does not import it."""
    return importlib.util.find_spec("torch") is not None


def peak_mib() -> float:
    """The most memory in MiB that the process has held at once so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 1024)
