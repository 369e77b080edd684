"""Compares recipes over several settings, paired by seed.

    python launch/recipe.py --split dev --seeds 1 2 3 --out runs/recipe
    python launch/recipe.py --split dev --setting cifar-sym40 --data DIR \\
        --row dasc dasc+floor+retrain --seeds 1 2 3 --out runs/recipe
    python launch/recipe.py --split dev --out runs/recipe --report \\
        --baseline dasc

A row is a method of ``METHODS``, with ``PIECES`` after plus signs; without
--row all methods, and CE with averaged weights.  A run ends in
OUT/SPLIT-SETTING-ROW-SEED.json; what is there is not run again, an interrupted
run goes on, and several commands at a time may divide the seeds among them.
Settings of CIFAR-10 are left out without --data, the folder of its files.
--report runs nothing.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterable
from typing import Any, NamedTuple

from jaxnlt import command_line, selection
from jaxnlt.bench import timed
from jaxnlt.bench.paired import Cell, Figures, Found, report
from jaxnlt.config import modules
from jaxnlt.infer import vote
from jaxnlt.results import files, metrics
from jaxnlt.runtime import console, sharding
from jaxnlt.runtime.errors import UserError, one_of

# What is compared -------------------------------------------------------------


class Setting(NamedTuple):
    """One data set with its noise.

    Attributes:
      data: the text after the colon of a config.
      fields: of every run.
      family: of methods that have such a field, ``{group}`` their group.
    """

    data: str
    fields: tuple[str, ...] = ()
    family: tuple[str, ...] = ()


def _cifar(data: str) -> Setting:
    """Some 4,000 images; the shares of the phases are those of digits."""
    fields = (
        "--config.data.n_max=1000",
        "--config.model.width=16",
        "--config.optimizer.drops=()",
        "--config.groups=paper",
    )
    family = ("warmup=15", "contrast_start=5", "ramp=8", "cosine_epochs=40")
    return Setting(
        f"{data},epochs=40",
        fields,
        tuple(f"--config.{{group}}.{field}" for field in family),
    )


SETTINGS = {
    "digits-sym40": Setting("digits,imb=0.1,noise=sym,rate=0.4"),
    "digits-sym20": Setting("digits,imb=0.1,noise=sym,rate=0.2"),
    "digits-flip30": Setting("digits,imb=0.1,noise=flip,rate=0.3"),
    "digits-clean": Setting("digits,imb=0.1,noise=none"),
    "digits-balanced": Setting("digits,imb=1,noise=sym,rate=0.4"),
    "digits-imb05": Setting("digits,imb=0.05,noise=sym,rate=0.4"),
    "cifar-sym40": _cifar("cifar10,imb=0.1,noise=sym,rate=0.4"),
    "cifar-flip30": _cifar("cifar10,imb=0.1,noise=flip,rate=0.3"),
    "cifar-human": _cifar("cifar10n,imb=0.1"),
}

#: Method, or our recipe -> config and keys after its benchmark.
METHODS = {
    "ce": "erm,num_nets=2",
    "dividemix": "dividemix",
    "smr": "smr",
    "sfa": "sfa",
    "tabasco": "tabasco",
    "unicon": "unicon",
    "rolt": "rolt",
    "rolt-plus": "rolt,plus",
    "h2e": "h2e",
    "h2e-two-rounds": "h2e,rounds=2",
    "dasc": "dasc",
    "best": "best",
}
#: What a row adds to a method -> fields; ``{group}`` is the method's own.
PIECES = {
    "mean": ("model.ema=0.9",),
    "short-mean": ("model.ema=0.5",),
    "teacher-guesses": ("model.ema=0.8", "model.ema_teaches=guesses"),
    "teacher-selection": ("model.ema=0.8", "model.ema_teaches=selection"),
    "teacher-both": ("model.ema=0.8", "model.ema_teaches=both"),
    "align-uniform": ("{group}.align_to=uniform",),
    "align-estimated": ("{group}.align_to=estimated",),
    "both-agree": ("{group}.trust_by=both",),
    "either-agrees": ("{group}.trust_by=either",),
    "floor": ("{group}.trust_floor=0.2",),
    "select-tabasco": ("selector=tabasco",),
    "select-unicon": ("selector=unicon",),
    "retrain": ("{group}.retrain_epochs=5",),
    "retrain-all": ("{group}.retrain_epochs=10", "{group}.retrain_part=all"),
    "cosine": ("optimizer.schedule=cosine", "optimizer.rise=2"),
    "strong-warmup": ("{group}.warmup_view=strong",),
}
#: All of them, and CE with averaged weights.
COMPARED = (*METHODS, "ce+mean")


def row_name(text: str) -> str:
    """Checks a row: a method, and pieces after plus signs.

    Raises:
      UserError: one of them is not known.
    """
    method, *pieces = text.split("+")
    one_of("--row", method, METHODS)
    for piece in pieces:
        one_of("--row", piece, PIECES)
    return text


def arguments(
    row: str, setting: str, seed: int, split: str, data: str
) -> list[str]:
    """The arguments of jaxnlt.main for one run.

    Args:
      row: as ``row_name`` checks it.
      setting: of ``SETTINGS``.
      seed: of the run.
      split: dev or test.
      data: folder of CIFAR-10.
    """
    method, *pieces = row.split("+")
    name, _, own = METHODS[method].partition(",")
    chosen = SETTINGS[setting]
    keys = [chosen.data, *filter(None, [own]), f"seed={seed}"]
    if split == "dev":
        keys.append("split=dev")
    text = ",".join(keys)
    config = command_line.load_config(name, text)
    group = modules.options_group(config.method)
    family = [
        field.format(group=group)
        for field in chosen.family
        if field.partition("=")[0].rpartition(".")[2] in config[group]
    ]
    fields = [*chosen.fields, *family]
    if chosen.data.startswith("cifar10"):
        fields.append(f"--config.data.path={data}")
    # Those of the row come last, so that they hold.
    fields += [
        f"--config.{field.format(group=group)}"
        for piece in pieces
        for field in PIECES[piece]
    ]
    return [f"--config=configs/{name}.py:{text}", *fields]


# A run ------------------------------------------------------------------------


def calibration(final: timed.Final) -> float:
    """Expected calibration error of the vote on the test images."""
    trainer, memory = final.trainer, final.memory
    labels = trainer.dataset.tests["test"].labels
    outputs = sharding.fetch(trainer.infer_test(final.states))
    scores = vote(trainer.method, outputs, len(labels), memory).scores
    right = scores.argmax(1) == labels
    return metrics.calibration_error(selection.largest_softmax(scores), right)


def figures(done: timed.Timed) -> Figures:
    """The figures of a run that has ended."""
    spent = [epoch.get("cpu_seconds") for epoch in done.epochs]
    summary = done.summary
    return Figures(
        summary["mean_last10_test_accuracy"],
        summary.get("mean_last10_accuracy_few"),
        calibration(done.final) if done.final else None,
        summary.get("issue_average_precision"),
        None if None in spent else sum(spent),
    )


def place(cell: Cell, split: str, out: pathlib.Path) -> pathlib.Path:
    """Where a run is, before ``.json``."""
    return out / f"{split}-{cell.setting}-{cell.row}-{cell.seed}"


def run(cell: Cell, split: str, data: str, out: pathlib.Path) -> None:
    """Trains one run, unless it is done, and writes its JSON."""
    given = arguments(cell.row, cell.setting, cell.seed, split, data)
    workdir = place(cell, split, out)
    path = workdir.with_name(f"{workdir.name}.json")
    known = files.read_json(path)
    if known is not None and known.get("arguments") != given:
        raise UserError(
            f"{path}: is of a run with other arguments; choose another --out"
        )
    if known is None:
        found = figures(timed.run(given, workdir))
        files.write_json(path, {"arguments": given, **found._asdict()})


# The report -------------------------------------------------------------------


def gathered(cells: Iterable[Cell], split: str, out: pathlib.Path) -> Found:
    """The figures of the runs that are finished."""
    found = {}
    for cell in cells:
        workdir = place(cell, split, out)
        path = workdir.with_name(f"{workdir.name}.json")
        record = files.read_json(path)
        if record is not None:
            lacking = {"arguments", *Figures._fields} - set(record)
            if lacking:
                raise UserError(f"{path}: lacks {', '.join(sorted(lacking))}")
            values: Any = {name: record[name] for name in Figures._fields}
            found[cell] = Figures(**values)
    return found


# The command ------------------------------------------------------------------


def _command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--row", nargs="+", default=list(COMPARED))
    parser.add_argument("--setting", choices=SETTINGS, nargs="+")
    parser.add_argument("--split", choices=("dev", "test"), required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--data", default="")
    parser.add_argument("--out", type=pathlib.Path, default="runs/recipe")
    parser.add_argument("--baseline", default="dasc")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args(argv[1:])
    settings = args.setting or [
        name for name in SETTINGS if args.data or not name.startswith("cifar")
    ]
    rows = [*dict.fromkeys(map(row_name, [*args.row, args.baseline]))]
    # A seed's runs of a setting are paired: they come one after the other.
    cells = [
        Cell(row, setting, seed)
        for seed in args.seeds
        for setting in settings
        for row in rows
    ]
    for cell in () if args.report else cells:
        run(cell, args.split, args.data, args.out)
    found = gathered(cells, args.split, args.out)
    console.echo(report(found, rows, settings, args.baseline))


def main() -> int:
    """Runs the command line; 0, or 2 with one line on stderr."""
    stopped = "interrupted; the same command goes on"
    return console.guarded(_command, sys.argv, stopped)


if __name__ == "__main__":
    sys.exit(main())
