"""Compares runs with those of the authors' code on the same arrays.

    python launch/parity.py ../shared/refruns --data digits_small \\
        --seeds 1 2 3 4 5 --out runs/parity
    python launch/parity.py ../shared/refruns --data digits_small \\
        --out runs/parity --report

REFERENCE holds data/NAME.npz and results.json, the authors' runs on these
arrays.  A run of ours has their settings and ends in OUT/DATA-METHOD-SEED.json;
what is there is not run again, and an interrupted run goes on.  --report runs
nothing.
"""

import argparse
import dataclasses
import json
import math
import pathlib
import statistics
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxnlt.bench import timed
from jaxnlt.results import files, metrics
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError
from jaxnlt.runtime.files import read_text

# Settings ---------------------------------------------------------------------


class Setting(NamedTuple):
    """What the authors' runs on one data set share; fields of configs.

    Attributes:
      epochs: of a run.
      warmup: epochs of the warm-up.
      contrast_start: epochs before DaSC's contrast.
      period: epochs from one recalibration of SMR to the next.
      batch: images a step; twice as many in the warm-up and plain training.
    """

    epochs: int
    warmup: int
    contrast_start: int
    period: int
    batch: int


SETTINGS = {
    "digits_small": Setting(30, 12, 6, 12, 32),
    "cifar10_small": Setting(25, 8, 4, 8, 64),
}
# Both sets are standardised by CIFAR-10's constants.
_SHARED = (
    "--config.data.mean=0.4914,0.4822,0.4465",
    "--config.data.std=0.2023,0.1994,0.2010",
    "--config.augment.weak=crop_flip",
    "--config.augment.strong=autoaugment",
    "--config.groups=paper",
    "--config.model.width=16",
    "--config.epochs={epochs}",
    "--config.optimizer.learning_rate=0.02",
    "--config.optimizer.momentum=0.9",
    "--config.optimizer.weight_decay={decay}",
)
_DIVIDED = (
    *_SHARED,
    "--config.batch_size={batch}",
    "--config.warmup_batch_size={double}",
    "--config.{group}.warmup={warmup}",
    "--config.{group}.lambda_u=25",
    "--config.{group}.ramp=16",
    "--config.{group}.alpha=4",
    "--config.{group}.sharpen_temperature=0.5",
    "--config.{group}.p_threshold=0.5",
)
_CONTRAST = "--config.dasc.contrast_start={contrast_start}"
#: Method as in the authors' records -> its config, and all that differs there;
#: their CE is DivideMix's script whose warm-up never ends.
METHODS = {
    "ce": (
        "configs/erm.py:npz,num_nets=2",
        *_SHARED,
        "--config.batch_size={double}",
    ),
    "dividemix": ("configs/dividemix.py:npz,as_released", *_DIVIDED),
    "sfa": ("configs/sfa.py:npz,as_released", *_DIVIDED),
    "smr": (
        "configs/smr.py:npz,as_released",
        *_DIVIDED,
        "--config.smr.period={period}",
    ),
    "dasc": ("configs/dasc.py:npz,as_released", *_DIVIDED, _CONTRAST),
    "dasc_fixed": ("configs/dasc.py:npz", *_DIVIDED, _CONTRAST),
}


def arguments(
    method: str, data: str, seed: int, path: pathlib.Path
) -> list[str]:
    """The arguments of jaxnlt.main for one run.

    Args:
      method: of ``METHODS``.
      data: of ``SETTINGS``.
      seed: of the run.
      path: the arrays.
    """
    config, *overrides = METHODS[method]
    setting = SETTINGS[data]
    group = pathlib.PurePath(config.partition(":")[0]).stem
    values = setting._asdict() | {
        "group": group,
        "double": 2 * setting.batch,
        "decay": "1e-4" if group == "dasc" else "5e-4",
    }
    return [
        f"--config={config},seed={seed}",
        f"--config.data.path={path}",
        *(text.format(**values) for text in overrides),
    ]


def run(
    method: str, data: str, seed: int, path: pathlib.Path, out: pathlib.Path
) -> None:
    """Trains one run, unless it is done, and writes its JSON.

    Args:
      method: of ``METHODS``.
      data: of ``SETTINGS``.
      seed: of the run.
      path: the arrays.
      out: folder of the runs.
    """
    workdir = out / f"{data}-{method}-{seed}"
    done = workdir.with_suffix(".json")
    if done.exists():
        return
    given = arguments(method, data, seed, path)
    epochs = timed.run(given, workdir).epochs
    files.write_json(done, {"arguments": given, "epochs": epochs})


# Both sides -------------------------------------------------------------------

#: Name -> what it is called in our metrics.jsonl, and in their records.
SELECTION = {
    "selected": ("labelled", "n_selected"),
    "AUC": ("selection_auc", "auc"),
    "precision": ("clean_precision", "precision"),
    "recall": ("clean_recall", "recall"),
}
PHASES = ("warm-up", "semi", "recalibration")
#: A class that is right less often, in percent, is not learnt.
LOST = 10


@dataclasses.dataclass(frozen=True)
class Epoch:
    """One epoch of either side.

    Attributes:
      phase: of ``PHASES``.
      accuracy: of the test set, in percent.
      classes: the same of each of the ten classes.
      selection: of ``SELECTION``, means over both networks; empty where none is
        made.
      cpu: seconds of the process's clock; None where nobody looked.
    """

    phase: str
    accuracy: float
    classes: tuple[float, ...]
    selection: dict[str, float]
    cpu: float | None


def ours(record: Mapping[str, Any]) -> Epoch:
    """An epoch of metrics.jsonl, with ``cpu_seconds`` where measured."""
    made = record.get("labelled") is not None
    return Epoch(
        record["phase"] if record["phase"] in PHASES else "warm-up",
        100 * record["test_accuracy"],
        tuple(100 * share for share in record["accuracy_per_class"]),
        {key: record[mine] for key, (mine, _) in SELECTION.items() if made},
        record.get("cpu_seconds"),
    )


def theirs(record: Mapping[str, Any]) -> Epoch:
    """An entry of the authors' ``per_epoch``."""
    nets = record.get("selection", ())
    return Epoch(
        PHASES[("cpu_ssl" in record) + 2 * ("cpu_recal" in record)],
        record["acc"],
        tuple(record["per_class"]),
        {
            key: statistics.fmean(net[their] for net in nets)
            for key, (_, their) in SELECTION.items()
            if nets
        },
        record["cpu_total"],
    )


def figures(epochs: Sequence[Epoch]) -> dict[str, float]:
    """What a run is compared by.

    Args:
      epochs: all of a run.

    Returns:
      Accuracies, means over the last ten epochs except for the best; how many
      classes are lost, that is below ``LOST`` there; the first selection and
      the mean of the last five; the median of the CPU seconds of an epoch of
      each phase.
    """
    found = {"best": max(epoch.accuracy for epoch in epochs)}
    tail = epochs[-10:]
    found["accuracy"] = statistics.fmean(epoch.accuracy for epoch in tail)
    classes = np.mean([epoch.classes for epoch in tail], axis=0)
    groups = metrics.accuracy_groups(np.arange(len(classes)), "paper") or {}
    for name, members in groups.items():
        found[name] = float(classes[members].mean())
    found["classes lost"] = int((classes < LOST).sum())
    made = [epoch.selection for epoch in epochs if epoch.selection]
    for name in SELECTION if made else ():
        found[f"{name}, first"] = made[0][name]
        latest = [selection[name] for selection in made[-5:]]
        found[f"{name}, last 5"] = statistics.fmean(latest)
    for phase in PHASES:
        seconds = [e.cpu for e in epochs if e.phase == phase and e.cpu]
        if seconds:
            found[f"CPU s, {phase}"] = statistics.median(seconds)
    return found


def errors(mine: Sequence[float], other: Sequence[float]) -> float | None:
    r"""The difference of two means in units of its standard error.

    .. math:: \frac{\bar a - \bar b}{s \sqrt{1/n_a + 1/n_b}}

    where s pools the deviations of both sides.  Fewer than three values of
    theirs tell nothing of a deviation; s then is that of ours.

    Args:
      mine: a value of each seed.
      other: theirs.

    Returns:
      The quotient; None where s is 0 or unknown.
    """
    pooled = [mine, other] if len(other) >= 3 else [mine]
    free = sum(len(values) - 1 for values in pooled)
    if not free or len(mine) < 2:
        return None
    squares = sum((len(v) - 1) * statistics.variance(v) for v in pooled)
    share = 1 / len(mine) + 1 / len(other)
    error = math.sqrt(squares / free * share)
    difference = statistics.fmean(mine) - statistics.fmean(other)
    return difference / error if error else None


_HEADER = """{data}: means ± sample standard deviations over (seeds).  Where the
authors have fewer than three seeds, the deviation of ours stands for both.
Accuracies, in percent, of the last ten epochs but for the best; a class below
10 % there is lost.  CPU seconds are the median over the epochs of a phase, with
selection and test, on our side with audit and checkpoint too."""


def table(
    method: str,
    mine: Sequence[Mapping[str, float]],
    other: Sequence[Mapping[str, float]],
) -> str:
    """Markdown of one method's figures on both sides.

    Args:
      method: for the heading.
      mine: ``figures`` of each seed.
      other: theirs.
    """
    counts = f"theirs ({len(other)})", f"ours ({len(mine)})"
    lines = [(method, *counts, "difference", "in standard errors")]
    lines.append(("---",) * 5)
    for name in dict.fromkeys(key for run in (*other, *mine) for key in run):
        digits = 3 if name.startswith(("AUC", "precision", "recall")) else 1
        known, values = (
            [run[name] for run in side if name in run] for side in (other, mine)
        )
        difference, units = "–", None
        if known and values:
            apart = statistics.fmean(values) - statistics.fmean(known)
            difference, units = f"{apart:+.{digits}f}", errors(values, known)
        line = (name, *(_mean(side, digits) for side in (known, values)))
        shown = "–" if units is None else f"{units:+.1f}"
        lines.append((*line, difference, shown))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _mean(values: Sequence[float], digits: int) -> str:
    text = f"{statistics.fmean(values):.{digits}f}" if values else "–"
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{digits}f}"
    return text


def report(
    methods: Sequence[str],
    data: str,
    records: Sequence[Mapping[str, Any]],
    out: pathlib.Path,
) -> str:
    """Both sides of every method, in markdown.

    Args:
      methods: of ``METHODS``.
      data: of ``SETTINGS``.
      records: the authors' runs.
      out: folder of our runs.
    """
    parts = [_HEADER.format(data=data)]
    epochs = SETTINGS[data].epochs
    for method in methods:
        wanted = (data, method, epochs)
        other = [
            figures([theirs(epoch) for epoch in record["per_epoch"]])
            for record in records
            if (record["data"], record["method"], record["epochs"]) == wanted
        ]
        mine = [
            figures([ours(epoch) for epoch in found["epochs"]])
            for path in sorted(out.glob(f"{data}-{method}-*.json"))
            if (found := files.read_json(path))
        ]
        if mine or other:
            parts.append(table(method, mine, other))
    return "\n\n".join(parts)


def _records(path: pathlib.Path) -> list[dict[str, Any]]:
    """The authors' runs."""
    text = read_text(path)
    if text is None:
        raise UserError(f"{path}: no such file")
    try:
        found = json.loads(text)
    except ValueError as error:
        raise UserError(f"{path}: is not valid JSON ({error})") from None
    needed = {"data", "method", "epochs", "per_epoch"}
    if not isinstance(found, list) or not all(
        isinstance(record, dict) and needed <= set(record) for record in found
    ):
        names = ", ".join(sorted(needed))
        raise UserError(f"{path}: must be a list of objects with {names}")
    return found


# The command ------------------------------------------------------------------


def _command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("reference", type=pathlib.Path)
    parser.add_argument("--data", choices=SETTINGS, default="digits_small")
    parser.add_argument(
        "--method", choices=METHODS, nargs="+", default=list(METHODS)
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--out", type=pathlib.Path, default="runs/parity")
    parser.add_argument("--report", action="store_true")
    args = parser.parse_args(argv[1:])
    records = _records(args.reference / "results.json")
    path = args.reference / "data" / f"{args.data}.npz"
    for seed in () if args.report else args.seeds:
        for method in args.method:
            run(method, args.data, seed, path, args.out)
    console.echo(report(args.method, args.data, records, args.out))


def main() -> int:
    """Runs the command line; 0, or 2 with one line on stderr."""
    stopped = "interrupted; the same command goes on"
    return console.guarded(_command, sys.argv, stopped)


if __name__ == "__main__":
    sys.exit(main())
