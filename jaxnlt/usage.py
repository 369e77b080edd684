"""What --help and --config=METHOD:help print."""

import textwrap
from collections.abc import Iterable

import ml_collections

from jaxnlt import __main__ as commands
from jaxnlt import command_line
from jaxnlt.augment import table
from jaxnlt.config import base as config_lib
from jaxnlt.data import decode, imbalance, noise, registry
from jaxnlt.models import BACKBONES
from jaxnlt.selection import registry as selectors

USAGE = """\
jaxnlt trains an image classifier on data whose labels are partly wrong and
whose classes are long-tailed, and says which labels it distrusts.

usage: python -m jaxnlt.main --config=METHOD[:BENCHMARK[,KEY=VALUE,...]]
                             [--workdir=DIR] [--config.FIELD=VALUE ...]

  METHOD           {methods};
                   or a config file, one of your own too: path/to/my.py
  BENCHMARK        {benchmarks}
  KEY=VALUE        such as imb=0.1, noise=sym, rate=0.4, seed=1, epochs=20
  --workdir        where the results go
                   (default: runs/METHOD-BENCHMARK-<hash of the config>)
  --config.FIELD   changes any field of the configuration
  --config=METHOD:BENCHMARK,help lists benchmarks, keys and fields.

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
Installed, the same commands are {commands}.
"""


def usage() -> str:
    """What --help prints."""
    return USAGE.format(
        methods=_wrapped(command_line.methods(), 58),
        benchmarks=_wrapped(registry.BENCHMARKS, 60),
        commands="jaxnlt " + "|".join(commands.offered()),
    )


def _wrapped(names: Iterable[str], width: int) -> str:
    return f"\n{'':19}".join(textwrap.wrap(", ".join(names), width))


def method_help(name: str, request: config_lib.HelpRequested) -> str:
    """What --config=METHOD:BENCHMARK,KEY=VALUE,...,help prints.

    Args:
      name: of the config file.
      request: what stands after the colon.

    Raises:
      UserError: what stands there besides ``help`` is wrong.
    """
    lines = [f"--config={name}:BENCHMARK,KEY=VALUE,...", "", "benchmarks"]
    for entry in registry.BENCHMARKS.values():
        lines += [
            f"  {entry.name:<10} {entry.about}",
            f"{'':13}imb {entry.imb:g}, noise {entry.noise}, "
            f"rate {entry.rate:g}, {entry.epochs} epochs",
        ]
    lines += ["", "keys (type, default; auto: from the benchmark)"]
    for key, (value_type, default, about) in request.keys.items():
        shown = "auto" if default is None else repr(default)
        lines.append(f"  {key:<12} {value_type.__name__:<6} {shown:<7} {about}")
    config = command_line.load_config(name, request.rest or None)
    of = request.rest or config.benchmark
    lines += ["", f"fields (values on {of}), each --config.FIELD=VALUE"]
    about_fields = command_line.describe(config)
    choices = _choices(config)
    for field, value in config_lib.flatten(config.to_dict()).items():
        kind, meaning = about_fields[field]
        if field in choices:
            kind = " | ".join(choices[field])
        lines.append(f"  config.{field} = {value!r}")
        lines += textwrap.wrap(
            f"{meaning} ({kind})",
            78,
            initial_indent=" " * 8,
            subsequent_indent=" " * 8,
        )
    return "\n".join(lines)


def _choices(config: ml_collections.ConfigDict) -> dict[str, Iterable[str]]:
    """Names that fields may hold and that stand in tables."""
    entry = registry.get(config.benchmark)
    unset = () if entry.transform else ("''",)
    transforms = decode.TRANSFORMS if entry.transform or entry.choose else ()
    return {
        "benchmark": registry.BENCHMARKS,
        "selector": ("''", *selectors.SELECTORS),
        "model.name": BACKBONES,
        "augment.weak": table.AUGMENTATIONS,
        "augment.strong": table.AUGMENTATIONS,
        "data.imb_type": imbalance.TYPES,
        "data.noise": (*noise.SYNTHETIC, *entry.noises),
        "data.transform": (*unset, *transforms),
    }
