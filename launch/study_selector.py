"""Studies a selector: replays the selections of one run with other settings.

    python -m jaxnlt.main --config=configs/sfa.py:digits,split=dev \\
        --config.log_outputs --workdir=runs/study
    python launch/study_selector.py runs/study \\
        --vary sfa.beta=0,0.9 --vary sfa.draws=5,20

Nothing is trained: the outputs that the run kept are selected from again,
epoch by epoch, with the selector's memory carried along and the run's own
random draws.  One field changes at a time.  This shows how well a setting
tells right labels from wrong ones on the networks of this run; networks that
are trained with it may be others.  `--vary selector=dividemix` puts another
selector in the place of the run's.
"""

import argparse
import pathlib
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import ml_collections
import numpy as np

from jaxnlt import command_line
from jaxnlt import method as base
from jaxnlt.config import base as config_lib
from jaxnlt.data import load, records
from jaxnlt.data.records import Dataset
from jaxnlt.predict import read_run
from jaxnlt.results import files as result_files
from jaxnlt.results import metrics
from jaxnlt.results import outputs as outputs_log
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import Once, UserError, logger
from jaxnlt.trainer import Trainer

LATEST = 10  # epochs that the tables average over


class Replay(Trainer):
    """A trainer that can only select: it has no network and no images.

    Args:
      config: of the run, or changed.
      dataset: the run's.
    """

    def __init__(self, config, dataset: Dataset):
        # Not super's: it would build and compile the networks.
        self.config, self.dataset = config, dataset
        self.info = base.DataInfo(
            dataset.train.labels, dataset.num_classes, dataset.train.ids
        )
        self.method = base.create(config, self.info)
        # Only the selectors' memory: a method's may come from its networks.
        self.memory = base.Memory(
            selector={
                phase.name: [
                    phase.selector.init_memory()
                    for _ in range(self.method.num_nets)
                ]
                for phase in self.method.phases()
                if phase.selector
            },
            method=(),
            audit={},
        )

    def selecting_epochs(self) -> list[int]:
        """Epochs of a phase with a selector."""
        every = range(self.config.epochs)
        return [e for e in every if self.method.phase(e).selector]

    def advance(self, epoch: int, pooled: list) -> list[base.Selection]:
        """Selects for every network and keeps the memory.

        Args:
          epoch: the one that follows the last call's.
          pooled: its outputs.

        Returns:
          One selection a network.

        Raises:
          UserError: the selector reads what the run has not logged.
        """
        phase = self.method.phase(epoch)
        assert phase.selector is not None
        lacking = set(phase.selector.outputs) - set(pooled[0][0][0])
        if lacking:
            raise UserError(
                f"config.selector: {self.config.selector} reads "
                f"{', '.join(sorted(lacking))}, which the run did not log"
            )
        nets = range(self.method.num_nets)
        chosen, self.memory = self.select(
            epoch, phase, pooled, self.memory, nets
        )
        return [chosen[k] for k in nets]


def varied(
    config: ml_collections.ConfigDict, field: str, text: str
) -> ml_collections.ConfigDict:
    """A config with one field changed.

    Args:
      config: of the run; stays as it is.
      field: dotted name.
      text: its value, read as the type that the field has.

    Returns:
      A changed copy.

    Raises:
      UserError: no such field, or a value of another type.
    """
    old = config_lib.flatten(config.to_dict())
    if field not in old:
        raise UserError(f"config.{field}: no such field")
    copy = config.copy_and_resolve_references().unlock()
    if field == "selector":
        return command_line.with_selector(copy, text, config.benchmark)
    kind = type(old[field])
    words = {"true": True, "1": True, "false": False, "0": False}
    try:
        value = words[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise UserError(
            f"config.{field}: expects {kind.__name__}, is {text!r}"
        ) from None
    copy.update_from_flattened_dict({field: value})
    return copy


def settings(
    config: ml_collections.ConfigDict, vary: Iterable[str]
) -> dict[str, ml_collections.ConfigDict]:
    """The run's own setting first, then one for every other value.

    Args:
      config: of the run.
      vary: texts FIELD=VALUE,VALUE...

    Returns:
      Name -> config.

    Raises:
      UserError: see `varied`.
    """
    flat = config_lib.flatten(config.to_dict())
    own: list[str] = []
    others: dict[str, ml_collections.ConfigDict] = {}
    for text in vary:
        field, sign, values = text.partition("=")
        if not sign:
            raise UserError(f"--vary {text}: expects FIELD=VALUE,VALUE...")
        for value in values.split(","):
            changed = varied(config, field, value)
            if config_lib.flatten(changed.to_dict()) != flat:
                others[f"{field}={value}"] = changed
        own.append(f"{field}={flat[field]}")
    return {" ".join(["as run:", *own]) if own else "as run": config} | others


def figures(selections: list[base.Selection], dataset) -> dict[str, Any]:
    """How right the selections of one epoch are, mean over the networks.

    Args:
      selections: one a network.
      dataset: given and true labels.

    Returns:
      What metrics.selection_metrics names, NaN where undefined, and `classes`,
      float [C]: the area under the curve within every given class.
    """
    train, rows = dataset.train, []
    judged, _ = records.verdicts(train)
    for selection in selections:
        if selection.clean_probability is None:
            raise UserError("config.method: its selector gives no probability")
        chosen = np.zeros(len(train), bool)
        chosen[selection.labelled] = True
        arrays = (
            selection.clean_probability,
            chosen,
            train.labels,
            train.true_labels,
        )
        arrays = tuple(values[judged] for values in arrays)
        row: dict[str, Any] = dict(metrics.selection_metrics(*arrays))
        given = train.labels[judged]
        within = [given == c for c in range(dataset.num_classes)]
        row["classes"] = [
            metrics.selection_metrics(*(a[at] for a in arrays))["selection_auc"]
            for at in within
        ]
        rows.append(row)
    return {name: mean([row[name] for row in rows]) for name in rows[0]}


def mean(values: Sequence | np.ndarray) -> np.ndarray:
    """Mean over the first axis of what is defined, NaN where nothing is."""
    array = np.array(values, float)  # None becomes NaN
    known = ~np.isnan(array)
    total = np.where(known, array, 0).sum(0)
    return np.where(known.any(0), total / np.maximum(known.sum(0), 1), np.nan)


def study(
    workdir: pathlib.Path, vary: Iterable[str]
) -> tuple[Dataset, dict[str, dict[int, dict]]]:
    """Replays a run with every setting.

    Args:
      workdir: of the run.
      vary: texts FIELD=VALUE,VALUE...

    Returns:
      The data set, and setting -> epoch -> `figures`; the first setting is
      the run's own.

    Raises:
      UserError: nothing was logged, or true labels are unknown, or a setting
        cannot be replayed.
    """
    config, _ = read_run(workdir)
    folder = workdir / outputs_log.FOLDER
    if not any(folder.glob("epoch_*.npz")):
        raise UserError(
            f"{folder}: holds no outputs; they are logged by a run with "
            "--config.log_outputs"
        )
    if config.start_phase:
        raise UserError(
            "config.start_phase: the selector's memory came from another run, "
            "which a replay lacks"
        )
    dataset = load.dataset(config)
    if not records.verdicts(dataset.train)[0].any():
        raise UserError(f"{workdir}: true labels are unknown, nothing to study")
    replays = {
        name: Replay(changed, dataset)
        for name, changed in settings(config, vary).items()
    }
    expected = next(iter(replays.values())).selecting_epochs()
    for name, replay in replays.items():
        if replay.selecting_epochs() != expected:
            raise UserError(
                f"config.{name}: changes which epochs select, which only a "
                "run can show"
            )
    there = sum(outputs_log.file_of(workdir, e).exists() for e in expected)
    found: dict[str, dict[int, dict]] = {name: {} for name in replays}
    # A gap is met and refused: memory runs through every epoch.
    for epoch in expected[:there]:
        pooled = outputs_log.read(workdir, epoch)
        for name, replay in replays.items():
            selections = replay.advance(epoch, pooled)
            found[name][epoch] = figures(selections, dataset)
    return dataset, found


def largest_difference(workdir: pathlib.Path, own: dict[int, dict]) -> float:
    """How far the replayed run is from what the run itself has logged.

    Args:
      workdir: of the run.
      own: epoch -> `figures` of the unchanged setting.

    Returns:
      The largest difference of `selection_auc` in metrics.jsonl; 0 if the
      code, the libraries and the machine are the run's.
    """
    records = result_files.read_jsonl(workdir / "metrics.jsonl")
    pairs = [
        (record["selection_auc"], own[record["epoch"]]["selection_auc"])
        for record in records
        if record["epoch"] in own and record["selection_auc"] is not None
    ]
    return max((abs(a - float(b)) for a, b in pairs), default=0.0)


def tail(dataset: Dataset) -> np.ndarray:
    """Ids of the smallest third of the classes by true size."""
    third = max(1, dataset.num_classes // 3)
    counts = np.asarray(dataset.true_counts)
    return np.sort(np.argsort(-counts, kind="stable")[-third:])


def tables(dataset: Dataset, found: dict[str, dict[int, dict]]) -> str:
    """Two tables in markdown: what all settings reach, and in every class.

    Args:
      dataset: class names and sizes.
      found: as `study` returns it.

    Returns:
      The text; means over the last ten logged epochs.
    """
    small = tail(dataset)
    names = dataset.class_names
    first = [
        ["setting", "AUC", "AUC per class, mean", "AUC per class, tail third"]
        + ["clean precision", "clean recall"]
    ]
    sizes = zip(names, np.asarray(dataset.true_counts), strict=True)
    second = [["AUC within", *(f"{name} ({n})" for name, n in sizes)]]
    for setting, by_epoch in found.items():
        latest = list(by_epoch.values())[-LATEST:]
        row = {key: mean([f[key] for f in latest]) for key in latest[0]}
        classes = row["classes"]
        values = (
            row["selection_auc"],
            mean(classes),
            mean(classes[small]),
            row["clean_precision"],
            row["clean_recall"],
        )
        first.append([setting, *(shown(float(v), 4) for v in values)])
        second.append([setting, *(shown(value, 3) for value in classes)])
    return "\n\n".join(map(markdown, (first, second)))


def markdown(rows: list[list[str]]) -> str:
    """A table whose first row is its head."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    lines = ("| " + " | ".join(row) + " |" for row in rows)
    return "\n".join(lines)


def shown(value: float, digits: int) -> str:
    """A number, or a dash where it is undefined."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}"


def _command(argv: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("workdir", type=pathlib.Path)
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="FIELD=VALUE,VALUE...",
        help="a field of the selector, such as sfa.beta=0,0.9",
    )
    args = parser.parse_args(argv[1:])
    once = Once()
    logger.addFilter(once)
    try:
        dataset, found = study(args.workdir, args.vary)
    finally:
        logger.removeFilter(once)
    own = next(iter(found.values()))
    off = largest_difference(args.workdir, own)
    console.echo(tables(dataset, found))
    console.echo(
        f"\nMeans over the last {min(LATEST, len(own))} of {len(own)} logged "
        f"epochs, {args.workdir}.  In parentheses: true class sizes.  The "
        f"replay of the run itself differs from its metrics.jsonl by {off:g}."
    )


def main() -> int:
    """Runs the command line; 0, or 2 with one line on stderr."""
    return console.guarded(_command, sys.argv, "interrupted")


if __name__ == "__main__":
    sys.exit(main())
