"""The label audit against cleanlab, AUM and small loss, on the same labels.

Run as ``python -m jaxnlt.bench.audit``; needs ``pip install jaxnlt[bench]``.
"""

import dataclasses
import functools
import pathlib
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from sklearn import datasets as sklearn_sets

from jaxnlt import command_line, train
from jaxnlt.auditing import pilot
from jaxnlt.bench import command, detectors
from jaxnlt.bench.command import Figures
from jaxnlt.bench.detection import Verdict, figures, tail_third
from jaxnlt.bench.detectors import Row
from jaxnlt.config import base as config_lib
from jaxnlt.data import load
from jaxnlt.data.records import Dataset, verdicts
from jaxnlt.infer import vote
from jaxnlt.method import Memory, TrainState
from jaxnlt.predict import read_run
from jaxnlt.results import labels as labels_csv
from jaxnlt.results import pred_probs, summary
from jaxnlt.runtime import console, paths, sharding
from jaxnlt.runtime.errors import UserError, one_of
from jaxnlt.trainer import Trainer

#: Figures of every detector, see ``compare``.
Measured = dict[Row, dict[str, Any]]


@dataclasses.dataclass(frozen=True)
class Setting:
    """Data of one part of the table.

    Attributes:
      arg: the text after the colon of --config.
      fields: fields of the config.
      table: name of a set of scikit-learn's, whose features are written to an
        npz file; '' where the benchmark has its own files.
    """

    arg: str
    fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    table: str = ""


# About 2,000 images, a narrow network.
_CIFAR = {"data.n_max": 500, "model.width": 8}
_NOISES = {"sym40": "sym,rate=0.4", "flip30": "flip,rate=0.3"}

SETTINGS = {
    "digits-sym40": Setting("digits,noise=sym,rate=0.4"),
    "digits-sym10": Setting("digits,noise=sym,rate=0.1"),
    "digits-sym05": Setting("digits,noise=sym,rate=0.05"),
    "digits-flip30": Setting("digits,noise=flip,rate=0.3"),
    "digits-none": Setting("digits,noise=none"),
    "digits-balanced-sym40": Setting("digits,imb=1,noise=sym,rate=0.4"),
    "cifar10n-random1": Setting("cifar10n,imb=0.1,noise=human:random1", _CIFAR),
    "cifar10n-worse": Setting("cifar10n,imb=0.1,noise=human:worse", _CIFAR),
    **{
        f"{table}-{name}": Setting(f"features,noise={noise}", table=table)
        for table in ("wine", "breast_cancer")
        for name, noise in _NOISES.items()
    },
}
_LOADERS = {
    "wine": sklearn_sets.load_wine,
    "breast_cancer": sklearn_sets.load_breast_cancer,
}

USAGE = f"""\
usage: python -m jaxnlt.bench.audit [--settings=digits-sym40,...]
           [--method=dasc] [--keys=split=dev,...] [--seeds=1] [--data=FOLDER]
           [--workdir=RUN,...] [--json=FILE]

Judges the same given labels by the labels.csv of a run, by what its networks
said after every epoch (AUM, small loss and others), and by cleanlab with
out-of-sample probabilities of nearest neighbours and of logistic regression.
Prints a table for every setting; percent, mean and deviation over the seeds.

  --settings   {", ".join(SETTINGS)};
               all of digits unless it is given
  --method     a config file, or several: dasc,erm
  --keys       further keys after the benchmark, as epochs=10
  --seeds      of data, noise and training: 1,2,3
  --data       folder of CIFAR-10 and of its human labels
  --workdir    finished runs instead, without figures by epoch

columns: average precision and area under the ROC curve of the wrong labels;
FNR, the share missed when as many are flagged as are wrong; precision and
recall of the flags, the share of right labels flagged, of all classes and of
the smallest third; ECE, the expected calibration error of clean_probability
in 10 bins of equal width; labels tied with another; seconds.
"""

#: Keys of ``detection.figures`` and their titles, all but ties in percent.
_COLUMNS = {
    "ap": "AP",
    "auroc": "AUROC",
    "fnr": "FNR",
    "precision": "precision",
    "recall": "recall",
    "right_flagged": "right flagged",
    "tail_flagged": "in tail",
    "ece": "ECE",
    "ties": "ties",
    "seconds": "seconds",
}


class Recorder:
    """Keeps what the vote says of the training set after every epoch."""

    def __init__(self) -> None:
        self._logits: list[np.ndarray] = []

    def __call__(
        self, trainer: Trainer, states: Sequence[TrainState], memory: Memory
    ) -> None:
        """See ``train.Observe``."""
        method = trainer.method
        outputs = sharding.fetch(trainer.infer_train(states))
        scores = vote(method, outputs, len(trainer.info.labels), memory).scores
        self._logits.append(scores)

    def judged(self, method: str, labels: np.ndarray) -> dict[Row, Verdict]:
        """What the detectors that read it say of labels, int [N]."""
        if not self._logits:
            return {}
        return detectors.in_sample(method, np.stack(self._logits), labels)


def configured(
    setting: Setting, method: str, keys: str, folder: pathlib.Path, data: str
) -> ml_collections.ConfigDict:
    """The configuration of a run on a setting.

    Args:
      setting: which data.
      method: a config file.
      keys: further keys, separated by commas.
      folder: where the features of a table are written.
      data: folder of the files of a benchmark, or ''.
    """
    arg = ",".join(filter(None, [setting.arg, keys]))
    config = command_line.load_config(method, arg)
    values = dict(setting.fields)
    if setting.table:
        values["data.path"] = str(folder / f"{setting.table}.npz")
        _write_table(setting.table, values["data.path"])
    elif data and not arg.startswith("digits"):
        values["data.path"] = data
    with config.unlocked():
        config.update_from_flattened_dict(values)
    return config


def _write_table(name: str, path: str) -> None:
    """Writes a set of scikit-learn's as features, all of it for training."""
    features, labels = _LOADERS[name](return_X_y=True)
    features = features.astype(np.float32)
    np.savez(
        path,
        train_features=features,
        train_labels=labels,
        test_features=features,
        test_labels=labels,
    )


def compare(
    config: ml_collections.ConfigDict, workdir: pathlib.Path
) -> Measured:
    """Figures of every detector on the labels of one run.

    Args:
      config: of the run.
      workdir: of the run, which is trained unless it is finished there; what
        its networks say after every epoch is known of a new one alone.

    Returns:
      Figures of ``detection.figures`` and ``seconds``.

    Raises:
      UserError: the true labels are not known, or the run fails.
    """
    dataset, recorder = load.dataset(config), Recorder()
    known, wrong = verdicts(dataset.train)
    if not known.any():
        raise UserError(
            f"{workdir}: its true labels are not known; take a run with noise "
            "that was drawn, or with true labels"
        )
    seconds = train.run(config, workdir, observe=recorder)["seconds"]
    method, labels = config.method, dataset.train.labels
    own = {
        Row(f"jaxnlt {method}", "labels.csv", "", "in"): _listed(
            workdir / "labels.csv", dataset
        ),
        **recorder.judged(method, labels),
    }
    timed = {row: (verdict, seconds) for row, verdict in own.items()}
    for source, read in _probabilities(config, dataset, workdir).items():
        began = time.perf_counter()
        probs = read()
        found = {
            **detectors.audit(source, probs, labels),
            **detectors.cleanlab(source, probs, labels),
        }
        seconds = time.perf_counter() - began
        timed |= {row: (verdict, seconds) for row, verdict in found.items()}
    tail = tail_third(dataset.given_counts)
    if dataset.true_counts is not None:
        tail = tail_third(dataset.true_counts)
    return {
        row: figures(verdict.take(known), labels[known], wrong[known], tail)
        | {"seconds": seconds}
        for row, (verdict, seconds) in timed.items()
    }


def _probabilities(
    config: ml_collections.ConfigDict, dataset: Dataset, workdir: pathlib.Path
) -> dict[str, Callable[[], np.ndarray]]:
    """What makes or reads out-of-sample probabilities [N, C], by source."""
    images = dataset.train.images
    if not isinstance(images, np.ndarray):
        raise UserError(
            "config.benchmark: cleanlab's rows need images in memory; take a "
            "smaller set, or features"
        )
    features = images.reshape(len(images), -1).astype(np.float64)
    if images.dtype == np.uint8:
        features /= 255
    else:  # a constant feature stays 0
        spread = features.std(0)
        features = (features - features.mean(0)) / np.where(spread, spread, 1)
    found: dict[str, Callable[[], np.ndarray]] = {
        source: functools.partial(
            pilot.out_of_sample,
            make,
            features,
            dataset.train.labels,
            dataset.num_classes,
            config.seed,
        )
        for source, make in detectors.CLASSIFIERS.items()
    }
    if config.audit.out_of_sample:
        path = workdir / pred_probs.PRED_PROBS_FILE
        found[f"{config.method} folds"] = functools.partial(np.load, path)
    return found


def _listed(path: pathlib.Path, dataset: Dataset) -> Verdict:
    """What labels.csv says of the training labels, in their order."""
    listed = labels_csv.read(path)
    ids = listed["index" if "index" in listed else "path"].tolist()
    place = {key: row for row, key in enumerate(ids)}
    rows = np.array([place[key] for key in dataset.train.ids.tolist()])
    return Verdict(
        listed["label_quality"][rows],
        listed["is_label_issue"][rows],
        listed["clean_probability"][rows],
    )


# The table --------------------------------------------------------------------


def table(name: str, runs: Sequence[Measured]) -> str:
    """The figures of one setting as text.

    Args:
      name: of the setting.
      runs: of each seed what ``compare`` returned.

    Returns:
      A table in Markdown, the best average precision first, without a newline
      at the end.
    """
    rows = dict.fromkeys(row for run in runs for row in run)

    def mean_ap(row: Row) -> float:
        values = [run[row].get("ap") for run in runs if row in run]
        return -float(np.mean([v for v in values if v is not None] or [0]))

    lines = [[*(field for field in Row._fields), *_COLUMNS.values()]]
    lines.append(["---"] * len(lines[0]))
    for row in sorted(rows, key=mean_ap):
        measured = [run[row] for run in runs if row in run]
        cells = [
            _cell(key, [figures.get(key) for figures in measured])
            for key in _COLUMNS
        ]
        lines.append([*row, *cells])
    sizes = [max(map(len, column)) for column in zip(*lines, strict=True)]
    text = [
        "| "
        + " | ".join(c.ljust(n) for c, n in zip(line, sizes, strict=True))
        + " |"
        for line in lines
    ]
    return "\n".join([f"{name}, {len(runs)} seeds", "", *text])


def _cell(key: str, values: Sequence[float | None]) -> str:
    """Mean and sample deviation; '-' where there is no value."""
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    scale = 1 if key in ("ties", "seconds") else 100
    mean = scale * float(np.mean(known))
    digits = 0 if key == "ties" else 1
    if len(known) == 1:
        return f"{mean:.{digits}f}"
    spread = scale * float(np.std(known, ddof=1))
    return f"{mean:.{digits}f} ± {spread:.{digits}f}"


def _numbers(text: str) -> list[int]:
    """The seeds of a flag."""
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds: expects numbers as 1,2,3, is {text!r}")
    return [int(part) for part in parts]


def _command(argv: list[str]) -> None:
    digits = ",".join(name for name in SETTINGS if name.startswith("digits"))
    values = console.read_flags(
        argv,
        {
            "settings": digits,
            "method": "dasc",
            "keys": "",
            "seeds": "1",
            "data": "",
            "workdir": "",
            "json": str,
        },
    )
    runs: dict[str, list[Measured]] = {}
    for place in filter(None, values.workdir.split(",")):
        folder = paths.expanded(place, "--workdir")
        config, _ = read_run(folder)
        if summary.finished(folder, config_lib.as_json(config)) is None:
            raise UserError(f"--workdir: {folder}: its run is not finished")
        name = f"{config.benchmark}, {config.data.noise}"
        runs.setdefault(name, []).append(compare(config, folder))
    if not values.workdir:
        seeds, chosen = _numbers(values.seeds), values.settings.split(",")
        for name in chosen:
            one_of("--settings", name, SETTINGS)
        for name in chosen:
            setting = SETTINGS[name]
            runs[name] = [_trained(values, setting, seed) for seed in seeds]
    found: Figures = {
        name: [
            [{**row._asdict(), **measured} for row, measured in run.items()]
            for run in of_seeds
        ]
        for name, of_seeds in runs.items()
    }
    text = "\n\n".join(table(name, run) for name, run in runs.items())
    command.show(text, found, values.json)


def _trained(values: Any, setting: Setting, seed: int) -> Measured:
    """Figures of one seed, by runs of all methods in a temporary folder."""
    keys = ",".join(filter(None, [f"seed={seed}", values.keys]))
    found: Measured = {}
    for method in values.method.split(","):
        with tempfile.TemporaryDirectory() as name:
            folder = pathlib.Path(name)
            config = configured(setting, method, keys, folder, values.data)
            found |= compare(config, folder / "run")
    return found


def main(argv: Sequence[str]) -> int:
    """Runs the command line.

    Args:
      argv: program name and arguments.

    Returns:
      The exit status, see ``console.guarded``.
    """
    return console.guarded(_command, argv, "interrupted", USAGE)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
