"""Prints, runs and gathers the runs of a results table.

    python launch/sweep.py digits                 the command lines
    python launch/sweep.py digits --run           runs what is missing, one
                                                  after the other, then gathers
    python launch/sweep.py digits --gather        the table in markdown

A table is a list of rows, a row a config line with its number of seeds; the
seeds are 0, 1, 2 ... in every row, so that rows are paired.
"""

import argparse
import json
import pathlib
import shlex
import statistics
import subprocess
import sys

DASC, ERM = "configs/dasc.py:digits", "configs/erm.py:digits"
TABLES = {
    "digits": [
        ("CE", 5, [ERM]),
        ("CE, two networks", 5, [f"{ERM},num_nets=2"]),
        ("CE, strong augmentation", 5, [f"{ERM},view=strong"]),
        ("mixup", 5, [f"{ERM},loss=mixup"]),
        ("DaSC", 5, [DASC]),
    ],
    "digits-switches": [
        ("DaSC", 3, [DASC]),
        (
            "DaSC, midl_label=arange",
            3,
            [DASC, "--config.dasc.midl_label=arange"],
        ),
        (
            "DaSC, aligned_clean_prob=False",
            3,
            [DASC, "--noconfig.dasc.aligned_clean_prob"],
        ),
    ],
    "digits-no-harm": [
        ("CE, noise=none", 5, [f"{ERM},noise=none"]),
        ("DaSC, noise=none", 5, [f"{DASC},noise=none"]),
        ("CE, imb=1", 3, [f"{ERM},imb=1"]),
        ("DaSC, imb=1", 3, [f"{DASC},imb=1"]),
    ],
}
TABLES["digits-methods"] = [
    *TABLES["digits"],
    *(
        (name, 3, [f"configs/{line}"])
        for name, line in (
            ("DivideMix", "dividemix.py:digits"),
            ("SMR", "smr.py:digits"),
            ("SFA", "sfa.py:digits"),
            ("TABASCO", "tabasco.py:digits"),
            ("UNICON", "unicon.py:digits"),
            ("RoLT", "rolt.py:digits"),
            ("RoLT+", "rolt.py:digits,plus"),
            ("balanced softmax", "erm.py:digits,loss=balanced_softmax"),
            ("LDAM-DRW", "erm.py:digits,loss=ldam_drw"),
            ("logit adjustment", "erm.py:digits,loss=logit_adjustment"),
            ("GCE", "erm.py:digits,loss=gce"),
            ("SCE", "erm.py:digits,loss=sce"),
            ("ELR", "erm.py:digits,loss=elr"),
            ("focal", "erm.py:digits,loss=focal"),
        )
    ),
]
COLUMNS = (
    ("last 10", "mean_last10_test_accuracy"),
    ("best", "best_test_accuracy"),
    ("last", "last_test_accuracy"),
    ("few-shot, last 10", "mean_last10_accuracy_few"),
    ("clean precision", "mean_last10_clean_precision"),
    ("clean recall", "mean_last10_clean_recall"),
)


def runs(table: str, out: pathlib.Path):
    """Row name, workdir and arguments of every run of a table."""
    for name, seeds, (config, *overrides) in TABLES[table]:
        for seed in range(seeds):
            line = [f"--config={config},seed={seed}", *overrides]
            folder = "-".join([*line[0].split(":")[1:], *overrides])
            folder = folder.replace("--", "").replace("config.", "")
            method = pathlib.Path(config.split(":")[0]).stem
            workdir = out / f"{method}-{folder}".replace(",", "-")
            yield name, workdir, [*line, f"--workdir={workdir}"]


def cell(values: list[float | None]) -> str:
    """Mean and sample standard deviation in percent."""
    known = [100 * value for value in values if value is not None]
    if not known:
        return "–"
    if len(known) == 1:
        return f"{known[0]:.1f}"
    return f"{statistics.mean(known):.1f} ± {statistics.stdev(known):.1f}"


def gather(table: str, out: pathlib.Path) -> str:
    """The finished runs of a table as markdown."""
    rows: dict[str, list[dict]] = {}
    for name, workdir, _ in runs(table, out):
        summary = workdir / "summary.json"
        if summary.exists():
            rows.setdefault(name, []).append(json.loads(summary.read_text()))
    heads = ["", "seeds", *(head for head, _ in COLUMNS), "nets", "seconds"]
    lines = [heads, ["---"] * len(heads)]
    for name, found in rows.items():
        seconds = statistics.mean(s["seconds"] for s in found)
        lines.append(
            [
                name,
                str(len(found)),
                *(cell([s.get(key) for s in found]) for _, key in COLUMNS),
                str(found[0]["networks_voting"]),
                f"{seconds:.0f}",
            ]
        )
    every = [s for found in rows.values() for s in found]
    wrong = [100 * s["noise_rate_realised"] for s in every]
    devices = ", ".join(sorted({s["device"] for s in every}))
    lowest = [
        f"{name} {100 * min(s['mean_last10_test_accuracy'] for s in found):.1f}"
        for name, found in rows.items()
    ]
    text = ["| " + " | ".join(line) + " |" for line in lines]
    if every:
        text += [
            "",
            f"Labels really wrong: {min(wrong):.1f}-{max(wrong):.1f} %. "
            f"Lowest last-10 of a seed: {', '.join(lowest)}. "
            f"Device: {devices}.",
        ]
    return "\n".join(text)


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
    for _, _, arguments in () if args.gather else runs(args.table, args.out):
        command = ["-m", "jaxnlt.main", *arguments]
        print(shlex.join(["python", *command]), flush=True)
        if args.run:
            done = subprocess.run([sys.executable, *command])
            if done.returncode:
                return done.returncode
    if args.run or args.gather:
        print(gather(args.table, args.out))
    return 0


if __name__ == "__main__":
    sys.exit(main())
