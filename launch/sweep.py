"""Prints, runs and gathers the runs of a results table.

    python launch/sweep.py digits                 the command lines
    python launch/sweep.py digits --run           runs what is missing, one
                                                  after the other, then gathers
    python launch/sweep.py digits --gather        the table in markdown

Several can be run at once: take the printed lines, each ends by itself.
"""

import argparse
import collections
import csv
import json
import pathlib
import shlex
import statistics
import subprocess
import sys
from typing import NamedTuple

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
    "GCE": [f"{ERM},loss=gce"],
    "SCE": [f"{ERM},loss=sce"],
    "ELR": [f"{ERM},loss=elr"],
}
METHOD_ROWS = {
    "DivideMix": ["configs/dividemix.py:digits"],
    "SMR": ["configs/smr.py:digits"],
    "SFA": ["configs/sfa.py:digits"],
    "TABASCO": ["configs/tabasco.py:digits"],
    "UNICON": ["configs/unicon.py:digits"],
    "RoLT": ["configs/rolt.py:digits"],
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
            "DaSC, midl_label=arange": [
                DASC,
                "--config.dasc.midl_label=arange",
            ],
            "DaSC, aligned_clean_prob=False": [
                DASC,
                "--noconfig.dasc.aligned_clean_prob",
            ],
        },
        3,
    ),
}


def runs(table: Table, out: pathlib.Path):
    """Row, column (empty: the row itself), workdir, arguments of every run."""
    for seed in range(max(table.seeds, *table.also.values(), 0)):
        for name, (config, *overrides) in table.rows.items():
            for column, seeds in {"": table.seeds, **table.also}.items():
                if seed >= seeds:
                    continue
                keys = [config, *filter(None, [column]), f"seed={seed}"]
                line = ",".join(keys)
                file, _, rest = line.partition(":")
                folder = "-".join([pathlib.Path(file).stem, rest, *overrides])
                for old, new in (("--", ""), ("config.", ""), (",", "-")):
                    folder = folder.replace(old, new)
                workdir = out / folder
                yield (
                    name,
                    column,
                    workdir,
                    [
                        *(f"--config={line}", *overrides),
                        f"--workdir={workdir}",
                    ],
                )


def cell(values: list[float | None]) -> str:
    """Mean and sample standard deviation in percent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}"


def lambda_u(workdir: pathlib.Path) -> str:
    """The weight of the squared error after its ramp, if there is one."""
    config = json.loads((workdir / "config.json").read_text())
    value = config.get(config["method"], {}).get("lambda_u")
    return "–" if value is None else f"{value:g}"


def from_labels(workdir: pathlib.Path) -> dict[str, float | None]:
    """What labels.csv tells beyond the summary.

    Returns:
      `wrong_learnt` and `right_learnt`, the shares of the wrong and the right
      training labels that the last epoch predicts; `flag_precision` and
      `flag_recall` of calling a label of clean probability below 0.5 wrong;
      `right_flagged`, the share of right labels called wrong.  Also within
      each third of the given classes, the largest first.  None where there is
      nothing to divide by.
    """
    with (workdir / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
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
                float(row["clean_probability"]) < 0.5,
                row["given_label"] == row["predicted_label"],
            )
            for row in rows
            if not name or place[row["given_label"]] == part
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


def gather(table: Table, out: pathlib.Path) -> str:
    """The finished runs of a table as markdown."""
    rows: dict[str, dict[str, list[dict]]] = {}
    weights = {}
    for name, column, workdir, _ in runs(table, out):
        summary = workdir / "summary.json"
        if summary.exists():
            facts = json.loads(summary.read_text()) | from_labels(workdir)
            rows.setdefault(name, {}).setdefault(column, []).append(facts)
            weights[name] = lambda_u(workdir)
    heads = ["", "seeds", *table.columns]
    heads += ["nets", "lambda_u", "seconds"]
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
        line += [str(found[0]["networks_voting"]), weights[name]]
        line.append(f"{seconds:.0f}")
        for column in table.also:
            others = rows[name].get(column, [])
            value = cell([s["mean_last10_test_accuracy"] for s in others])
            line.append(f"{value} ({len(others)})" if others else "–")
        lines.append(line)
    text = ["| " + " | ".join(line) + " |" for line in lines]
    if rows:
        text += ["", remarks(rows)]
    return "\n".join(text)


def remarks(rows: dict[str, dict[str, list[dict]]]) -> str:
    """What a table does not say: noise, the worst seeds, the device."""
    every = [s for found in rows.values() for s in found.get("", [])]
    wrong = [100 * s["noise_rate_realised"] for s in every]
    devices = ", ".join(sorted({s["device"] for s in every}))
    lowest = []
    for name, found in rows.items():
        if "" in found:
            worst = min(s["mean_last10_test_accuracy"] for s in found[""])
            lowest.append(f"{name} {100 * worst:.1f}")
    return (
        f"Labels really wrong: {min(wrong):.1f}-{max(wrong):.1f} %. "
        f"Lowest last-10 of a seed: {', '.join(lowest)}. Device: {devices}."
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("table", choices=TABLES)
    parser.add_argument("--out", type=pathlib.Path, default="runs")
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--gather", action="store_true")
    args = parser.parse_args()
    table = TABLES[args.table]
    for _, _, _, arguments in () if args.gather else runs(table, args.out):
        command = ["-m", "jaxnlt.main", *arguments]
        print(shlex.join(["python", *command]), flush=True)
        if args.run:
            done = subprocess.run([sys.executable, *command])
            if done.returncode:
                return done.returncode
    if args.run or args.gather:
        print(gather(table, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
