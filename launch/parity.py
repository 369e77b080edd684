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
import shlex
import statistics
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from jaxnlt import command_line, train
from jaxnlt.results import files
from jaxnlt.results.metrics import GROUPS
from jaxnlt.runtime import console
from jaxnlt.runtime.errors import UserError
from jaxnlt.runtime.files import read_text

# Settings ---------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Setting:
    """What the authors' runs on one data set share.

    Attributes:
      epochs: of a run.
      warmup: epochs of the warm-up.
      contrast_start: epochs before DaSC's contrast.
      period: epochs from one recalibration of SMR to the next.
      batch: images a step.
      double: images a step of the warm-up, and of plain training.
    """

    epochs: int
    warmup: int
    contrast_start: int
    period: int
    batch: int
    double: int


SETTINGS = {
    "digits_small": Setting(30, 12, 6, 12, 32, 64),
    "cifar10_small": Setting(25, 8, 4, 8, 64, 128),
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
_DASC = (
    *_DIVIDED,
    "--config.optimizer.weight_decay=1e-4",
    "--config.dasc.contrast_start={contrast_start}",
)
_DECAY = "--config.optimizer.weight_decay=5e-4"
#: Method as in the authors' records -> its config, and all that differs there;
#: {...} are fields of ``Setting``, {group} is the method's.
METHODS = {
    # Theirs is DivideMix's script whose warm-up never ends.
    "ce": (
        "configs/erm.py:npz,num_nets=2",
        *_SHARED,
        _DECAY,
        "--config.batch_size={double}",
    ),
    "dividemix": (
        "configs/dividemix.py:npz,as_released",
        *_DIVIDED,
        _DECAY,
    ),
    "sfa": ("configs/sfa.py:npz,as_released", *_DIVIDED, _DECAY),
    "smr": (
        "configs/smr.py:npz,as_released",
        *_DIVIDED,
        _DECAY,
        "--config.smr.period={period}",
    ),
    "dasc": ("configs/dasc.py:npz,as_released", *_DASC),
    "dasc_fixed": ("configs/dasc.py:npz", *_DASC),
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
    fields = dataclasses.asdict(SETTINGS[data])
    fields["group"] = pathlib.PurePath(config.partition(":")[0]).stem
    return [
        f"--config={config},seed={seed}",
        f"--config.data.path={path}",
        *(text.format(**fields) for text in overrides),
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
    config, _ = command_line.parse(["main", *given])
    seconds: list[float] = []
    before = time.process_time()

    def observe(*_: Any) -> None:
        nonlocal before
        now = time.process_time()
        seconds.append(now - before)
        before = now

    train.run(config, workdir, shlex.join(given), observe=observe, quiet=True)
    records = files.read_jsonl(workdir / "metrics.jsonl")
    # A run that went on has measured its last epochs alone.
    for record, spent in zip(records[::-1], seconds[::-1], strict=False):
        record["cpu_seconds"] = spent
    files.write_json(done, {"arguments": given, "epochs": records})
