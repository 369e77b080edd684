"""The command line: `python -m jaxnlt.main --config=configs/METHOD.py ...`."""

import shlex
import sys
from collections.abc import Sequence

from jaxnlt import command_line, train, usage
from jaxnlt.config import base as config_lib
from jaxnlt.results import summary as summary_lib
from jaxnlt.runtime import console, preemption, processes

INTERRUPTED = "interrupted; the same command goes on from the last whole epoch"


def _command(argv: list[str]) -> None:
    if console.HELP_FLAGS & set(argv[1:]):
        print(usage.usage(), end="")
        return
    try:
        config, workdir = command_line.parse(argv)
    except config_lib.HelpRequested as request:
        name = command_line.take_config(argv)[0].partition(":")[0]
        console.echo(usage.method_help(name, request))
        return
    console.set_environment(config.deterministic)
    processes.join()
    console.check_devices()
    processes.check()
    watch = preemption.Watch()
    recorded = f"python -m jaxnlt.main {shlex.join(argv[1:])}"
    with watch.guarding():
        summary = train.run(config, workdir, recorded, watch)
        if processes.is_lead():
            console.echo(f"\n{summary_lib.summary_table(summary)}")


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status: 0, 2 for a mistake of the user's, 130 after Ctrl-C.  A
      run that is stopped by SIGTERM ends with 75.
    """
    return console.guarded(_command, argv, INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
