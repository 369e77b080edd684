"""What H2E flags in each of its stages, beside what the stage reaches.

    python -m jaxnlt.main --config=configs/h2e.py:digits,rounds=2 \\
        --workdir=runs/h2e
    python launch/study_h2e.py runs/h2e [MORE RUNS OF OTHER SEEDS]

One row is base training, one each round: the accuracy and that of the few-shot
classes, means over the stage's last ten epochs, and precision and recall of
its flags, whole and by third of the given classes, the largest first.  Base
flags a label whose probability is below one half, a round what its identifier
gives the least weight.  Several runs of the same rounds make mean ± sample
standard deviation, in percent.
"""

import argparse
import pathlib
import statistics
import sys
from collections.abc import Sequence

import numpy as np

from jaxnlt import infer as inference
from jaxnlt.data import load
from jaxnlt.methods import h2e
from jaxnlt.predict import read_run
from jaxnlt.results import files as result_files
from jaxnlt.runtime import checkpoint, console, sharding
from jaxnlt.runtime.errors import UserError
from jaxnlt.selection import softmax
from jaxnlt.trainer import Trainer

LATEST = 10  # epochs that an accuracy averages over
COLUMNS = (
    "",
    "accuracy",
    "few-shot",
    "noise precision",
    "head",
    "middle",
    "tail third",
    "noise recall",
    "head",
    "middle",
    "tail third",
)


def quality(flags: np.ndarray, wrong: np.ndarray, given: np.ndarray) -> list:
    """Precision of the flags, whole and by third; then recall, alike.

    Args:
      flags: bool [N].
      wrong: bool [N], whether the given label is wrong.
      given: int [N] given labels; those of the head are the most frequent.

    Returns:
      Eight fractions, None where there is nothing to divide by.
    """
    labels, counts = np.unique(given, return_counts=True)
    order = labels[np.argsort(-counts, kind="stable")]
    third = {label: 3 * i // len(order) for i, label in enumerate(order)}
    part = np.array([third[label] for label in given])
    groups = [np.ones(len(given), bool), *(part == i for i in range(3))]
    both = flags & wrong
    return [
        float(both[group].sum() / of[group].sum()) if of[group].any() else None
        for of in (flags, wrong)
        for group in groups
    ]


def _base_flags(workdir: pathlib.Path, epoch: int, trainer: Trainer):
    """Labels that the base network of an epoch finds improbable."""
    saved = checkpoint.load(workdir, epoch, trainer.init_states())
    outputs = trainer.infer_train(trainer.put(saved.states))
    labels = trainer.info.labels
    logits = inference.collect(sharding.fetch(outputs)[0], len(labels))[
        "logits"
    ]
    return softmax(logits)[np.arange(len(labels)), labels] < 0.5


def _round_flags(workdir: pathlib.Path, number: int, trainer: Trainer):
    """Labels that the identifier of a round gave the least weight.

    Robust keeps the weights in all its epochs; the next round takes them over.
    """
    template = trainer.init_memory(trainer.init_states())
    for span in trainer.method.spans:
        ahead = span.round - number
        if ahead == (0 if span.step == "robust" else 1):
            for epoch in range(span.first, span.end):
                if (workdir / "checkpoints" / str(epoch)).is_dir():
                    saved = checkpoint.load(workdir, epoch, memory=template)
                    (kept,) = saved.memory.selector[span.step]
                    return kept.weights <= h2e.FLAGGED_WEIGHT
    raise UserError(f"{workdir}: has no checkpoint of round {number}")


def rows(workdir: pathlib.Path) -> dict[str, list]:
    """Figures of every stage of one run, fractions in the order of COLUMNS.

    Args:
      workdir: of a finished run of H2E.

    Returns:
      {stage: figures}.

    Raises:
      UserError: no such run, or nothing is known of its true labels.
    """
    config, _ = read_run(workdir)
    if config.method != "h2e":
        raise UserError(f"{workdir}: is a run of {config.method}, not of h2e")
    dataset = load.dataset(config)
    true, given = dataset.train.true_labels, dataset.train.labels
    if dataset.true_counts is None:
        raise UserError(f"{workdir}: true labels are unknown, nothing to study")
    trainer = Trainer(config, dataset)
    records = result_files.read_jsonl(workdir / "metrics.jsonl")
    found = {}
    for span in trainer.method.spans:
        if span.step == "base" and span.round == 1:
            name = "base"
            flags = _base_flags(workdir, span.end - 1, trainer)
        elif span.step == "robust":
            name = f"round {span.round}"
            flags = _round_flags(workdir, span.round, trainer)
        else:
            continue
        inside = [r for r in records if span.first <= r["epoch"] < span.end]
        found[name] = [
            *(
                statistics.mean(r[key] for r in inside[-LATEST:])
                if key in inside[-1]  # no few-shot class where all are alike
                else None
                for key in ("test_accuracy", "accuracy_few")
            ),
            *quality(flags, true != given, given),
        ]
    return found


def table(runs: Sequence[dict[str, list]]) -> str:
    """Markdown of several runs' figures."""
    lines = [COLUMNS, ["---"] * len(COLUMNS)]
    for name in runs[0]:
        cells = [name]
        for values in zip(*(run[name] for run in runs), strict=True):
            known = [100 * value for value in values if value is not None]
            text = f"{statistics.mean(known):.1f}" if known else "–"
            if len(known) > 1:
                text += f" ± {statistics.stdev(known):.1f}"
            cells.append(text)
        lines.append(cells)
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdirs", nargs="+", type=pathlib.Path)
    workdirs = parser.parse_args(argv[1:]).workdirs
    console.echo(table([rows(workdir) for workdir in workdirs]))


def main() -> int:
    """Runs the command line; 0, or 2 with one line on stderr."""
    return console.guarded(_command, sys.argv, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
