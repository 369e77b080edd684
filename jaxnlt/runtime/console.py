"""TODO."""

import contextlib
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

import tqdm
from absl import flags

from jaxnlt.runtime.errors import UserError, logger

HELP_FLAGS = frozenset(("-h", "-help", "--help", "--helpfull", "--helpshort"))


MENDABLE, INTERRUPTED = 2, 130


def one_line(text: object) -> str:
    """The text of an error or a warning, whatever its layout, on one line."""
    return " ".join(str(text).split("\n")).strip()


def _say(line: str) -> None:
    """Prints to stderr, stepping around a progress bar."""
    tqdm.tqdm.write(f"jaxnlt: {line}", file=sys.stderr)


class _Stderr(logging.Handler):
    """Prints our messages and what JAX warns of; other libraries' if errors.

    Messages wait until the run has started, which a record with the attribute
    `started` says: a run that is refused leaves one line, the error.
    """

    def __init__(self):
        super().__init__()
        self._held: list[str] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "started", False):
            self.start()
            return
        source, level = record.name.partition(".")[0], record.levelno
        least = {"jaxnlt": logging.INFO, "jax": logging.WARNING}
        if level < least.get(source, logging.ERROR):
            return
        kind = "warning" if level >= logging.WARNING else "note"
        line = f"{kind}: {one_line(record.getMessage())}"
        if self._held is None:
            _say(line)
        else:
            self._held.append(line)

    def start(self) -> None:
        """Prints what was held back, and from now on everything at once."""
        for line in self._held or ():
            _say(line)
        self._held = None


@contextlib.contextmanager
def _quiet() -> Iterator[_Stderr]:
    """Sends log records through `_Stderr`; silences Python warnings."""
    handler, level = _Stderr(), logger.level
    logging.root.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        with warnings.catch_warnings():
            if not sys.warnoptions:  # python -W asks for them
                warnings.simplefilter("ignore")
            yield handler
    finally:
        logger.setLevel(level)
        logging.root.removeHandler(handler)


def guarded(
    command: Callable[[list[str]], None], argv: Sequence[str], interrupted: str
) -> int:
    """Runs a command under the contract of errors.

    Args:
      command: takes argv; raises UserError for what the user can mend.
      argv: program name and arguments.
      interrupted: what Ctrl-C prints, one line.

    Returns:
      The exit status: 0; 2 with exactly one line on stderr after a UserError;
      130 after Ctrl-C.  Other exceptions pass, for they are our mistakes.
    """
    with _quiet() as messages:
        try:
            command(list(argv))
        except UserError as error:
            _say(f"error: {one_line(error)}")
            return MENDABLE
        except KeyboardInterrupt:
            messages.start()
            _say(interrupted)
            return INTERRUPTED
        except BaseException:
            messages.start()
            raise
        messages.start()
    return 0


def set_environment(deterministic: bool) -> None:
    """Sets what XLA reads when its first device is asked for.

    Args:
      deterministic: only operations that repeat to the bit, on GPUs.
    """
    # Its log would stand between our lines; errors reach us as exceptions.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if deterministic:
        given = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = (
            f"{given} --xla_gpu_deterministic_ops=true".strip()
        )


def check_devices() -> None:
    """Starts JAX.

    Raises:
      UserError: the environment asks for devices that are not there.
    """
    import jax

    try:
        jax.devices()
    # JAX raises RuntimeError, for an absent plugin AssertionError.
    except Exception as error:
        asked = os.environ.get("JAX_PLATFORMS", "")
        reason = str(error) or "no such device, or JAX lacks support for it"
        raise UserError(f"JAX_PLATFORMS={asked}: {reason}") from error


def parse_flags(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Parses flags; nothing but flags may stand in argv.

    Args:
      values: the defined flags.
      argv: program name and arguments.

    Raises:
      UserError: an unknown flag, a value of the wrong type, an argument that
        is no flag.
    """
    values.set_gnu_getopt(True)
    try:
        rest = values(list(argv))
    except flags.UnrecognizedFlagError as error:
        raise UserError(f"--{error.flagname}: unknown flag, see --help") from (
            error
        )
    except flags.IllegalFlagValueError as error:
        raise UserError(_wrong_type(values, str(error))) from error
    except flags.Error as error:
        raise UserError(f"command line: {one_line(error)}") from error
    if len(rest) > 1:
        raise UserError(f"{rest[1]!r}: is not a flag, see --help")


def _wrong_type(values: flags.FlagValues, message: str) -> str:
    match = re.match(r"flag --([^=]+)=(.*?): ", message, re.DOTALL)
    if match is None:
        return one_line(message)
    name, text = match.groups()
    kind = values[name].flag_type().removeprefix("multi ")
    prefix = "" if name.startswith("config.") else "--"
    return f"{prefix}{name}: expects {kind}, is {text!r}"
