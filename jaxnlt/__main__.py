"""`jaxnlt COMMAND ...`, or `python -m jaxnlt COMMAND ...`."""

import difflib
import importlib
import importlib.util
import sys
from collections.abc import Sequence

import jaxnlt
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError

#: Command -> module, whose ``main`` takes argv and returns the exit status.
MODULES = {
    "train": "jaxnlt.main",
    "predict": "jaxnlt.predict",
    "check": "jaxnlt.data.check",
    "download": "jaxnlt.data.download",
    "clean": "jaxnlt.clean",
}


def offered() -> dict[str, str]:
    """The commands of `MODULES` that this version has."""
    return {
        name: module
        for name, module in MODULES.items()
        if importlib.util.find_spec(module)
    }


def _refuse(argv: list[str]) -> None:
    name, known = argv[1], offered()
    near = difflib.get_close_matches(name, known, 1)
    hint = f", did you mean {near[0]}?" if near else ""
    raise UserError(
        f"{name}: no such command{hint}; there are {', '.join(known)}"
    )


def main(argv: Sequence[str]) -> int:
    """Runs a command; without a name it is ``train``.

    Args:
      argv: program name, name of the command, its arguments.

    Returns:
      The exit status of the command, 2 for an unknown one.
    """
    if "--version" in argv[1:2]:
        print(f"jaxnlt {jaxnlt.__version__}")
        return 0
    name = "train"
    if len(argv) > 1 and not argv[1].startswith("-"):
        name, argv = argv[1], [argv[0], *argv[2:]]
        if name not in offered():
            return console.guarded(_refuse, [argv[0], name], "interrupted")
    return importlib.import_module(MODULES[name]).main(argv)


def entry() -> None:
    """The console script `jaxnlt`."""
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    entry()
