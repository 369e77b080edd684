"""The command line: `python -m jaxnlt.main --config=configs/METHOD.py ...`."""

import shlex
import sys
import textwrap
from collections.abc import Mapping, Sequence

from jaxnlt import command_line, method, train
from jaxnlt.config import base as config_lib
from jaxnlt.config import fields
from jaxnlt.data import registry
from jaxnlt.results import summary as summary_lib
from jaxnlt.runtime import console, preemption, processes

USAGE = """\
jaxnlt trains an image classifier on data whose labels are partly wrong and
whose classes are long-tailed, and says which labels it distrusts.

usage: python -m jaxnlt.main --config=METHOD[:BENCHMARK[,KEY=VALUE,...]]
                             [--workdir=DIR] [--config.FIELD=VALUE ...]

  METHOD           {methods};
                   or a config file such as configs/dasc.py
  BENCHMARK        {benchmarks}
  KEY=VALUE        such as imb=0.1, noise=sym, rate=0.4, seed=1, epochs=20
  --workdir        where the results go
                   (default: runs/METHOD-BENCHMARK-<hash of the config>)
  --config.FIELD   changes any field of the configuration
  --config=METHOD:help lists all benchmarks, keys and fields.

examples
  Handwritten digits, built in; a few minutes on a laptop:
    python -m jaxnlt.main --config=configs/dasc.py
  Your own images, DIR/train/CLASS/*.jpg; finds the wrong labels among them:
    python -m jaxnlt.main --config=configs/dasc.py:folder --config.data.path=DIR
  CIFAR-10 with 60 % label noise, from its files in DIR:
    python -m jaxnlt.main --config=configs/dasc.py:cifar10,noise=sym,rate=0.6 \\
        --config.data.path=DIR --workdir=runs/cifar

results, in the workdir
  report.html      open it in a browser: plots and the most suspicious images
  labels.csv       every training image, the most suspicious label first
  summary.json     the final figures; metrics.jsonl has those of every epoch
  checkpoints/     networks; python -m jaxnlt.predict labels new images

Stopped?  The same command goes on from the last whole epoch.  Exit status: 0
done, 2 your mistake, 75 stopped by SIGTERM.  Several hosts: see launch/.
"""
INTERRUPTED = "interrupted; the same command goes on from the last whole epoch"


def usage() -> str:
    """What --help prints."""
    names = f"\n{'':19}".join(textwrap.wrap(", ".join(registry.BENCHMARKS), 60))
    methods = ", ".join(command_line.methods())
    return USAGE.format(methods=methods, benchmarks=names)


def method_help(name: str, keys: Mapping[str, config_lib.Key]) -> str:
    """What --config=configs/METHOD.py:help prints."""
    lines = [f"--config={name}:BENCHMARK,KEY=VALUE,...", "", "benchmarks"]
    for entry in registry.BENCHMARKS.values():
        lines += [
            f"  {entry.name:<10} {entry.about}",
            f"{'':13}imb {entry.imb:g}, noise {entry.noise}, "
            f"rate {entry.rate:g}, {entry.epochs} epochs",
        ]
    lines += ["", "keys (type, default; auto: from the benchmark)"]
    for key, (value_type, default, about) in keys.items():
        shown = "auto" if default is None else repr(default)
        lines.append(f"  {key:<12} {value_type.__name__:<6} {shown:<7} {about}")
    lines += ["", "fields (values on digits), each --config.FIELD=VALUE"]
    config = command_line.load_config(name)
    about_fields = fields.describe(config_lib.RunOptions) | fields.describe(
        method.find(config.method).options_type, f"{config.method}."
    )
    for field, value in config_lib.flatten(config.to_dict()).items():
        lines.append(f"  config.{field} = {value!r}")
        if field in about_fields:
            kind, meaning = about_fields[field]
            lines += textwrap.wrap(
                f"{meaning} ({kind})",
                78,
                initial_indent=" " * 8,
                subsequent_indent=" " * 8,
            )
    return "\n".join(lines)


def _command(argv: list[str]) -> None:
    if console.HELP_FLAGS & set(argv[1:]):
        print(usage(), end="")
        return
    try:
        config, workdir = command_line.parse(argv)
    except config_lib.HelpRequested as request:
        name = command_line.take_config(argv)[0].partition(":")[0]
        console.echo(method_help(name, request.keys))
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


def entry() -> None:
    """The console script `jaxnlt`."""
    sys.exit(main(sys.argv))


if __name__ == "__main__":
    entry()
