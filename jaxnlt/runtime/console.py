"""The command line's contract: flags, messages on stderr, exit statuses."""

import contextlib
import logging
import os
import re
import sys
import unicodedata
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TextIO

import tqdm
from absl import flags

from jaxnlt.runtime.errors import UserError, file_problem, logger

HELP_FLAGS = frozenset(("-h", "-help", "--help", "--helpfull", "--helpshort"))

#: Exit statuses: another process failed; a mistake of the user's; stopped, and
#: the same command goes on (EX_TEMPFAIL, on which schedulers queue a job
#: again); Ctrl-C.
FAILED = 1
USER_ERROR = 2
STOPPED = 75
INTERRUPTED = 130


# A message of more characters is shortened: a file can hold any name.
_LONGEST, _ENDS = 2000, (1500, 400)


def one_line(text: object) -> str:
    """The text of an error or a warning, whatever its layout, on one line."""
    line = " ".join(str(text).split("\n")).strip()
    if len(line) <= _LONGEST:
        return line
    first, last = _ENDS
    return f"{line[:first]} ... {line[-last:]}"


def printable(text: str) -> str:
    """A text that a terminal shows and does not obey.

    Names of classes and files may hold escape sequences, line ends of Unicode,
    marks that turn the direction of writing, or bytes that are no text.

    Args:
      text: any.

    Returns:
      The same, each character that has no glyph of its own written as in
      Python, such as ``\\x1b``; spaces of every width stay.
    """
    if text.isprintable():
        return text
    return "".join(
        char
        if char.isprintable() or unicodedata.category(char) == "Zs"
        else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )


def echo(text: str, file: TextIO | None = None) -> None:
    """Prints lines that may hold names; none reaches the terminal raw.

    Args:
      text: one or more lines.
      file: where to print; None is stdout.
    """
    print(_shown(text, file or sys.stdout), file=file, flush=True)


def _shown(text: str, file: TextIO) -> str:
    """``printable`` lines, in characters that the stream can encode."""
    lines = "\n".join(map(printable, text.split("\n")))
    encoding = getattr(file, "encoding", None) or "utf-8"
    return lines.encode(encoding, "backslashreplace").decode(encoding)


def _print_line(line: str) -> None:
    """Prints a message to stderr, above a progress bar."""
    line = _shown(f"jaxnlt: {one_line(line)}", sys.stderr)
    tqdm.tqdm.write(line, file=sys.stderr)


class _Stderr(logging.Handler):
    """Prints messages of jaxnlt, warnings of JAX and errors of other libraries.

    Messages are held back until the run has started, which a record with the
    attribute ``started`` reports: a run that is refused leaves one line, the
    error.
    """

    def __init__(self) -> None:
        super().__init__()
        self._held: list[str] | None = []

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "started", False):
            self.start()
            return
        source, level = record.name.partition(".")[0], record.levelno
        least = {
            "jaxnlt": logging.INFO,
            "jax": logging.WARNING,
            # Orbax logs there, with its tracebacks, what it raises as well.
            "absl": logging.CRITICAL,
        }
        if level < least.get(source, logging.ERROR):
            return
        kind = "warning" if level >= logging.WARNING else "note"
        line = f"{kind}: {one_line(record.getMessage())}"
        if self._held is None:
            _print_line(line)
        else:
            self._held.append(line)

    def start(self) -> None:
        """Prints what was held back, and from now on everything at once."""
        for line in self._held or ():
            _print_line(line)
        self._held = None


@contextlib.contextmanager
def _quiet() -> Iterator[_Stderr]:
    """Sends log records through ``_Stderr``; silences Python warnings."""
    handler, level = _Stderr(), logger.level
    # absl, which Orbax logs with, installs one while it is imported.
    plain = [
        other
        for other in logging.root.handlers
        if type(other) is logging.StreamHandler
    ]
    for other in plain:
        logging.root.removeHandler(other)
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
        for other in plain:
            logging.root.addHandler(other)


@contextlib.contextmanager
def without_absl() -> Iterator[None]:
    """Silences Orbax, which logs how long it waits, and what it raises too."""
    absl = logging.getLogger("absl")
    level = absl.level
    absl.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        absl.setLevel(level)


def guarded(
    command: Callable[[list[str]], None],
    argv: Sequence[str],
    interrupted: str,
    usage: str = "",
) -> int:
    """Runs a command under the contract of errors.

    Args:
      command: takes argv; raises UserError for a mistake of the user's.
      argv: program name and arguments.
      interrupted: what Ctrl-C prints, one line.
      usage: what ``--help`` prints instead of running the command; empty
        leaves the flag to the command.

    Returns:
      The exit status: 0; 2 with exactly one line on stderr after a UserError,
      or after what a file or a disk refused; 130 after Ctrl-C.  Other
      exceptions are raised, for they are bugs.
    """
    if usage and HELP_FLAGS & set(argv[1:]):
        print(usage, end="")
        return 0
    with _quiet() as messages:
        try:
            command(list(argv))
        except UserError as error:
            _print_line(f"error: {one_line(error)}")
            return USER_ERROR
        except KeyboardInterrupt:
            messages.start()
            _print_line(interrupted)
            return INTERRUPTED
        except OSError as error:
            if not (problem := file_problem(error)):
                messages.start()
                raise
            _print_line(f"error: {one_line(problem)}")
            return USER_ERROR
        except BaseException:
            messages.start()
            raise
        messages.start()
    return 0


def set_environment(deterministic: bool) -> None:
    """Sets the variables that XLA reads when its first device is used.

    Args:
      deterministic: only operations that repeat to the bit, on GPUs.
    """
    # XLA's log would mix with our lines; its errors are exceptions.
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


def read_flags(
    argv: Sequence[str],
    options: Mapping[str, type | str | bool | int | float],
    required: Sequence[str] = (),
) -> flags.FlagValues:
    """Defines and parses the flags of a command.

    Args:
      argv: program name and arguments.
      options: default of every flag, or its type where the default is None.
      required: flags that must be given and not empty.

    Returns:
      The values, one attribute for each flag.

    Raises:
      UserError: see ``parse_flags``; or a required flag is missing.
    """
    values = flags.FlagValues()
    define: dict[type, Callable[..., object]] = {
        str: flags.DEFINE_string,
        bool: flags.DEFINE_boolean,
        int: flags.DEFINE_integer,
        float: flags.DEFINE_float,
    }
    for name, option in options.items():
        if isinstance(option, type):
            define[option](name, None, "", flag_values=values)
        else:
            define[type(option)](name, option, "", flag_values=values)
    parse_flags(values, argv)
    for name in required:
        if not values[name].value:
            raise UserError(f"--{name}: is missing, see --help")
    return values


def parse_flags(values: flags.FlagValues, argv: Sequence[str]) -> None:
    """Parses flags; arguments that are no flags are refused.

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
    """The line for absl's message about a value of the wrong type."""
    match = re.match(r"flag --([^=]+)=(.*?): ", message, re.DOTALL)
    if match is None:
        return one_line(message)
    name, text = match.groups()
    kind = values[name].flag_type().removeprefix("multi ")
    prefix = "" if name.startswith("config.") else "--"
    return f"{prefix}{name}: expects {kind}, is {text!r}"
