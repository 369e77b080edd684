"""Prints, runs, submits and gathers the runs of a results table.

    python launch/sweep.py digits                 the command lines
    python launch/sweep.py digits --run           runs what is missing, one
                                                  after the other, then gathers
    python launch/sweep.py digits --submit "sbatch launch/slurm.sbatch"
                                                  hands what is missing to the
                                                  queue, a job each
    python launch/sweep.py digits --gather        the table in markdown

A table of one's own is a product; its methods are names of configs/, files of
your own or rows of the other tables.  Give --run, --submit and --gather the
same words:

    python launch/sweep.py --methods ce mixup dasc --benchmarks cifar10 \\
        --imb 0.1 0.02 --noise none sym --rate 0.4 0.6 --seeds 0 1 2 \\
        --submit "sbatch --gpus-per-node=1 launch/slurm.sbatch"

--config.FIELD=VALUE goes to every run, as in --config.data.path=DIR.
--dry-run prints what --run or --submit would do.  Several runs can go on at
once, each in its own folder; submit no job twice while it runs.
"""

import argparse
import collections
import csv
import itertools
import json
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

COLUMNS = {
    "last 10": "mean_last10_test_accuracy",
    "best": "best_test_accuracy",
    "last": "last_test_accuracy",
    "few-shot, last 10": "mean_last10_accuracy_few",
    "clean precision": "mean_last10_clean_precision",
    "clean recall": "mean_last10_clean_recall",
    "selection AUC": "mean_last10_selection_auc",
    "wrong labels learnt": "wrong_learnt",
}


class Table(NamedTuple):
    """Rows of a table, and further benchmarks that each fill one column.

    Attributes:
      rows: name -> config line and overrides.
      seeds: how many seeds a row has: 0, 1, 2 ..., so that rows are paired.
      also: key=value of the config line -> its seeds.
      columns: heading -> name in summary.json, or of what `from_labels` tells.
    """

    rows: dict[str, list[str]]
    seeds: int
    also: dict[str, int] = {}
    columns: dict[str, str] = COLUMNS


DASC, ERM, H2E = (
    f"configs/{name}.py:digits" for name in ("dasc", "erm", "h2e")
)
ERM_ROWS = {
    "CE": [ERM],
    "CE, two networks": [f"{ERM},num_nets=2"],
    "CE, strong augmentation": [f"{ERM},view=strong"],
    "mixup": [f"{ERM},loss=mixup"],
    "focal": [f"{ERM},loss=focal"],
    "balanced softmax": [f"{ERM},loss=balanced_softmax"],
    "logit adjustment": [f"{ERM},loss=logit_adjustment"],
    "LDAM-DRW": [f"{ERM},loss=ldam_drw"],
} | {name: [f"{ERM},loss={name.lower()}"] for name in ("GCE", "SCE", "ELR")}
METHOD_ROWS = {
    name: [f"configs/{name.lower()}.py:digits"]
    for name in ("DivideMix", "SMR", "SFA", "TABASCO", "UNICON", "RoLT")
} | {
    "RoLT+": ["configs/rolt.py:digits,plus"],
    "DaSC": [DASC],
    "H2E": [H2E],
    "H2E, two rounds": [f"{H2E},rounds=2"],
}
FLAGS = {
    "last 10": "mean_last10_test_accuracy",
    "best": "best_test_accuracy",
    "noise precision": "flag_precision",
    "precision, head": "flag_precision_head",
    "precision, middle": "flag_precision_middle",
    "precision, tail": "flag_precision_tail",
    "noise recall": "flag_recall",
    "recall, head": "flag_recall_head",
    "recall, middle": "flag_recall_middle",
    "recall, tail": "flag_recall_tail",
}
MIDL, ALIGNED = "midl_label=arange", "aligned_clean_prob"
TABLES = {
    "digits": Table(ERM_ROWS | METHOD_ROWS, 5, {"noise=none": 3, "imb=1": 3}),
    # About a tenth of the labels is really wrong.
    "digits-h2e": Table(
        {
            "H2E, base alone": [f"{H2E},rounds=0,rate=0.11"],
            "H2E": [f"{H2E},rounds=1,rate=0.11"],
            "H2E, two rounds": [f"{H2E},rounds=2,rate=0.11"],
        },
        5,
        columns=FLAGS,
    ),
    # Where a method harms clean data: the right labels that it mistrusts.
    "digits-clean": Table(
        {
            name: [f"{line},noise=none", *rest]
            for name, (line, *rest) in (ERM_ROWS | METHOD_ROWS).items()
        },
        3,
        columns={
            "last 10": "mean_last10_test_accuracy",
            "few-shot, last 10": "mean_last10_accuracy_few",
            "labels mistrusted, head": "right_flagged_head",
            "middle": "right_flagged_middle",
            "tail third": "right_flagged_tail",
            "labels learnt, head": "right_learnt_head",
            "middle third": "right_learnt_middle",
            "tail": "right_learnt_tail",
        },
    ),
    "digits-switches": Table(
        {
            "DaSC": [DASC],
            f"DaSC, {MIDL}": [DASC, f"--config.dasc.{MIDL}"],
            f"DaSC, {ALIGNED}=False": [DASC, f"--noconfig.dasc.{ALIGNED}"],
        },
        3,
    ),
}


# Keys of a product, in the order of a row's name.
KEYS = ("imb", "noise", "rate")


def product(
    methods: Sequence[str],
    benchmarks: Sequence[str],
    axes: Mapping[str, Sequence[str]],
    seeds: int,
) -> Table:
    """A row for every method on every data set.

    Args:
      methods: names of configs/, config files, or names of rows of the tables
        above.
      benchmarks: names.
      axes: values of `KEYS`; without any the benchmark's default stays.
      seeds: how many a row has.

    Raises:
      UserError: no such method, or a command line that would be refused.
    """
    from jaxnlt import command_line
    from jaxnlt.runtime.errors import UserError

    known = {name: [f"configs/{name}.py"] for name in command_line.methods()}
    known |= {name: [name] for name in methods if name.endswith(".py")}
    for table in TABLES.values():
        for name, row in table.rows.items():
            known.setdefault(name.lower(), row)
    rows: dict[str, list[str]] = {}
    values = (axes.get(key) or [""] for key in KEYS)
    for benchmark, *cells, method in itertools.product(
        benchmarks, *values, methods
    ):
        found = known.get(method) or known.get(method.lower())
        if found is None:
            raise UserError(f"--methods {method}: is no config or row")
        line, *rest = found
        file, _, own = line.partition(":")
        keys = dict(zip(KEYS, cells, strict=True))
        if keys["noise"] == "none" or keys["noise"].startswith("human:"):
            del keys["rate"]
        parts = [f"{key}={value}" for key, value in keys.items() if value]
        # Of a table's row, what comes after its benchmark.
        line = ",".join([f"{file}:{benchmark}", *own.split(",")[1:], *parts])
        command_line.parse(["main", f"--config={line}", *rest])
        rows[", ".join([method, benchmark, *parts])] = [line, *rest]
    return Table(rows, seeds)


def runs(
    table: Table, out: pathlib.Path, only: Collection[int] | None = None
) -> Iterator[tuple[str, str, pathlib.Path, list[str]]]:
    """Row, column (empty: the row itself), workdir, arguments of every run.

    Args:
      table: its rows and seeds.
      out: folder of the workdirs.
      only: its seeds that are wanted; None: all.
    """
    for seed in range(max(table.seeds, *table.also.values(), 0)):
        if only is not None and seed not in only:
            continue
        for name, (config, *overrides) in table.rows.items():
            for column, seeds in {"": table.seeds, **table.also}.items():
                if seed >= seeds:
                    continue
                keys = [config, *filter(None, [column]), f"seed={seed}"]
                line = ",".join(keys)
                file, _, rest = line.partition(":")
                folder = "-".join([pathlib.Path(file).stem, rest, *overrides])
                cleaned = {"--": "", "config.": "", ",": "-", "/": "_"}
                for old, new in cleaned.items():
                    folder = folder.replace(old, new)
                workdir = out / folder
                arguments = [f"--config={line}", *overrides]
                arguments.append(f"--workdir={workdir}")
                yield name, column, workdir, arguments


def overridden(table: Table, overrides: Sequence[str]) -> Table:
    """A table whose runs all have some overrides; each row is checked.

    Args:
      table: its rows.
      overrides: --config.FIELD=VALUE, or --noconfig.FIELD.

    Raises:
      UserError: a row's config has no such field, or not such a value.
    """
    from jaxnlt import command_line

    rows = {name: [*row, *overrides] for name, row in table.rows.items()}
    for config, *rest in rows.values() if overrides else ():
        command_line.parse(["main", f"--config={config}", *rest])
    return table._replace(rows=rows)


def cell(values: list[float | None]) -> str:
    """Mean and sample standard deviation in percent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}"


def summary_of(workdir: pathlib.Path) -> dict[str, Any] | None:
    """The summary of a finished run; None where it is not finished.

    Raises:
      UserError: summary.json cannot be read or is no JSON object.
    """
    from jaxnlt.results import files

    found = files.read_json(workdir / "summary.json")
    return found if found and "mean_last10_test_accuracy" in found else None


def lambda_u(workdir: pathlib.Path) -> str:
    """The weight of the squared error after its ramp, if there is one."""
    config = json.loads((workdir / "config.json").read_text())
    group = config["method"].rpartition(".")[2]
    value = config.get(group, {}).get("lambda_u")
    return "–" if value is None else f"{value:g}"


def from_labels(workdir: pathlib.Path) -> dict[str, float | None]:
    """What labels.csv tells beyond the summary.

    Returns:
      `wrong_learnt` and `right_learnt`, the shares of the wrong and the right
      training labels that the networks predict; `flag_precision` and
      `flag_recall` of the labels that are flagged as wrong; `right_flagged`,
      the share of right labels that are.  Also within
      each third of the given classes, the largest first.  None where there is
      nothing to divide by.  Labels of which nothing is known are left out.
    """
    with (workdir / "labels.csv").open(newline="") as file:
        rows = [
            row
            for row in csv.DictReader(file)
            # Neither held-out images nor those that cannot be read.
            if row.get("split") != "held_out" and row["clean_probability"]
        ]
    if "true_label" not in rows[0]:
        return {}
    given = collections.Counter(row["given_label"] for row in rows)
    classes = [label for label, _ in given.most_common()]
    place = {label: 3 * i // len(classes) for i, label in enumerate(classes)}
    facts = {}
    for part, name in enumerate(("_head", "_middle", "_tail", "")):
        inside = [
            (
                row["given_label"] != row["true_label"],
                row["is_label_issue"] == "True",
                row["given_label"] == row["predicted_label"],
            )
            for row in rows
            if row["true_label"]
            and (not name or place[row["given_label"]] == part)
        ]
        for fact, values in (
            ("flag_precision", [wrong for wrong, flag, _ in inside if flag]),
            ("flag_recall", [flag for wrong, flag, _ in inside if wrong]),
            ("wrong_learnt", [fit for wrong, _, fit in inside if wrong]),
            ("right_learnt", [fit for wrong, _, fit in inside if not wrong]),
            ("right_flagged", [flag for wrong, flag, _ in inside if not wrong]),
        ):
            facts[fact + name] = statistics.mean(values) if values else None
    return facts


def gather(
    table: Table, out: pathlib.Path, only: Collection[int] | None = None
) -> str:
    """The finished runs of a table as markdown; arguments as of `runs`."""
    rows: dict[str, dict[str, list[dict]]] = {}
    weights = {}
    for name, column, workdir, _ in runs(table, out, only):
        summary = summary_of(workdir)
        if summary is not None:
            facts = summary | from_labels(workdir)
            rows.setdefault(name, {}).setdefault(column, []).append(facts)
            weights[name] = lambda_u(workdir)
    heads = ["", "seeds", *table.columns, "nets", "lambda_u", "seconds"]
    heads += [f"{column}, last 10" for column in table.also]
    lines = [heads, ["---"] * len(heads)]
    for name in filter(rows.__contains__, table.rows):
        found = rows[name].get("", [])
        if not found:
            continue
        seconds = statistics.mean(s["seconds"] for s in found)
        line = [name, str(len(found))]
        line += [
            cell([s.get(k) for s in found]) for k in table.columns.values()
        ]
        nets = str(found[0]["networks_voting"])
        line += [nets, weights[name], f"{seconds:.0f}"]
        for column in table.also:
            others = rows[name].get(column, [])
            value = cell([s["mean_last10_test_accuracy"] for s in others])
            line.append(f"{value} ({len(others)})" if others else "–")
        lines.append(line)
    state = finished(table, out, only)
    if not rows:
        return state
    text = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([*text, "", f"{remarks(rows)} {state}"])


def finished(
    table: Table, out: pathlib.Path, only: Collection[int] | None = None
) -> str:
    """How many runs of a table are finished; arguments as of `runs`."""
    done = [
        summary_of(workdir) is not None
        for _, _, workdir, _ in runs(table, out, only)
    ]
    return f"{sum(done)} of {len(done)} finished in {out}."


def remarks(rows: dict[str, dict[str, list[dict]]]) -> str:
    """What a table does not say: noise, the worst seeds, the device."""
    every = [
        s for row in rows.values() for found in row.values() for s in found
    ]
    rates = [s["noise_rate_realised"] for s in every]
    wrong = [100 * rate for rate in rates if rate is not None]
    devices = ", ".join(sorted({s["device"] for s in every}))
    lowest = []
    for name, found in rows.items():
        if "" in found:
            worst = min(s["mean_last10_test_accuracy"] for s in found[""])
            lowest.append(f"{name} {100 * worst:.1f}")
    facts = [f"Device: {devices}."]
    if lowest:
        facts.insert(0, f"Lowest last-10 of a seed: {', '.join(lowest)}.")
    if wrong:
        share = f"{min(wrong):.1f}-{max(wrong):.1f} %"
        facts.insert(0, f"Labels really wrong: {share}.")
    return " ".join(facts)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=TABLES, nargs="?")
    for axis in ("methods", "benchmarks", *KEYS):
        parser.add_argument(f"--{axis}", nargs="+", metavar="VALUE", default=[])
    text = "of a product: its seeds (0); of a table: only these"
    parser.add_argument("--seeds", nargs="+", type=int, help=text)
    parser.add_argument("--out", type=pathlib.Path, default="runs")
    parser.add_argument("--dry-run", action="store_true")
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--run", action="store_true")
    action.add_argument("--gather", action="store_true")
    text = "is given the arguments of jaxnlt.main of every missing run"
    action.add_argument("--submit", metavar="COMMAND", help=text)
    return parser


def _command(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    if args.table:
        table = TABLES[args.table]
    else:
        args.seeds = args.seeds or [0]
        axes = {key: getattr(args, key) for key in KEYS}
        benchmarks = args.benchmarks or ["digits"]
        table = product(args.methods, benchmarks, axes, max(args.seeds) + 1)
    table = overridden(table, overrides)
    from jaxnlt.runtime import console

    program = shlex.split(args.submit or "python -m jaxnlt.main")
    wanted = () if args.gather else runs(table, args.out, args.seeds)
    for _, _, workdir, arguments in wanted:
        if args.submit and summary_of(workdir) is not None:
            continue
        print(shlex.join([*program, *arguments]), flush=True)
        if args.dry_run or not (args.run or args.submit):
            continue
        command = [sys.executable, *program[1:]] if args.run else program
        done = subprocess.run([*command, *arguments], check=False)
        if done.returncode:
            if args.run:
                print(finished(table, args.out, args.seeds), file=sys.stderr)
            return done.returncode
    if args.gather or args.run and not args.dry_run:
        console.echo(gather(table, args.out, args.seeds))
    return 0


def main() -> int:
    """Runs the command line; 2 for a mistake in it."""
    # Here, for in a clone nothing may be installed.
    from jaxnlt.runtime import console
    from jaxnlt.runtime.errors import UserError

    parser = _parser()
    args, rest = parser.parse_known_args()
    for text in rest:
        if not re.match(r"--(no)?config\.\w", text):
            parser.error(f"{text}: is not known; see --help")
    cells = (args.methods, args.benchmarks, args.imb, args.noise, args.rate)
    if bool(args.table) == bool(args.methods) or args.table and any(cells):
        parser.error("expects either a table or --methods and its other axes")
    if args.submit and not shutil.which((shlex.split(args.submit) or [""])[0]):
        parser.error(f"--submit {args.submit!r}: no such command")
    try:
        return _command(args, rest)
    except UserError as error:
        line = f"jaxnlt: error: {console.one_line(error)}"
        console.echo(line, sys.stderr)
        return console.USER_ERROR


if __name__ == "__main__":
    sys.path.append(str(pathlib.Path(__file__).parents[1]))
    sys.exit(main())
