"""Every file of a workdir, altered: the run ends alike, or says what is wrong.

What a finished run has written for people (labels.csv, report.html, events) may
be edited there; a run that goes on writes it anew.
"""

import importlib
import json
import logging
import pathlib
import shutil

import numpy as np
import pytest

from jaxnlt import train
from jaxnlt.runtime.errors import logger
from tests import runs
from tests.campaign import judge, mutate

# ``jaxnlt.predict`` is the function.
predict = importlib.import_module("jaxnlt.predict")

pytestmark = pytest.mark.slow
EPOCHS = 3
#: What may differ between two runs that agree.
TIMES = {"seconds", "images_per_second", "command", "workdir", "device"}
TIMES.add("sha256_of_this")  # of them, too


def config():
    return runs.tiny("erm", epochs=EPOCHS)


def without_times(record):
    return {k: v for k, v in record.items() if k not in TIMES}


def results(workdir: pathlib.Path):
    """What a complete workdir says, but for times: {file: content}."""
    read = {
        name: json.loads((workdir / name).read_text())
        for name in ("config.json", "dataset.json", "noise.json")
    }
    read["summary.json"] = without_times(
        json.loads((workdir / "summary.json").read_text())
    )
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    read["metrics.jsonl"] = [without_times(json.loads(x)) for x in lines]
    read["labels.csv"] = (workdir / "labels.csv").read_text()
    return read


def predicted(folder, epoch=None):
    run, images = folder / "run", folder / "a.npz"
    ids, probs, names = predict.predict(run, images, epoch)
    return {"ids": list(ids), "probs": probs.tolist(), "names": list(names)}


def make(folder: pathlib.Path) -> None:
    """A finished run, images to label, and what is right."""
    folder.mkdir()
    train.run(config(), folder / "run")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 8, 8, 1), np.uint8)
    np.savez(folder / "a.npz", images=images)
    right = results(folder / "run")
    # From the checkpoints of the last two epochs.
    right |= {f"predicted {k}": predicted(folder, EPOCHS - k) for k in (1, 2)}
    (folder / "right.json").write_text(json.dumps(right))


def make_half(folder: pathlib.Path) -> None:
    """The same, killed in its last epoch."""
    make(folder)
    for name in ("summary.json", "labels.csv", "report.html"):
        (folder / "run" / name).unlink()
    shutil.rmtree(folder / "run" / "checkpoints" / str(EPOCHS - 1))


def alter(rng, folder):
    """Changes a file, or takes a whole folder away."""
    if rng.random() > 0.1:
        return mutate.any_file(rng, folder / "run")
    folders = sorted(p for p in (folder / "run").rglob("*") if p.is_dir())
    chosen = mutate.pick(rng, folders)
    shutil.rmtree(chosen)
    if rng.random() < 0.3:
        chosen.touch()
    return f"without {chosen.relative_to(folder)}"


class _Warnings(logging.Handler):
    """Keeps what a call warns of."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.texts = []

    def emit(self, record):
        self.texts.append(record.getMessage())


def _compare(found, folder) -> None:
    right = json.loads((folder / "right.json").read_text())
    differs = [name for name in found if found[name] != right[name]]
    if differs:
        raise judge.Silent(f"{', '.join(differs)} differ")


def finished(folder) -> None:
    """A finished run is not trained again: only its table is given."""
    summary = train.run(config(), folder / "run")
    _compare({"summary.json": without_times(summary)}, folder)


def half_finished(folder) -> None:
    train.run(config(), folder / "run")
    _compare(results(folder / "run"), folder)


def labelled(folder) -> None:
    """By the newest checkpoint, or the one before where that is told."""
    told = _Warnings()
    logger.addHandler(told)
    try:
        found = predicted(folder)
    finally:
        logger.removeHandler(told)
    try:
        _compare({"predicted 1": found}, folder)
    except judge.Silent:
        if not any("checkpoint" in text for text in told.texts):
            raise
        _compare({"predicted 2": found}, folder)


KINDS = {
    "finished": judge.Kind(make, alter, finished, 120, 20),
    "half_finished": judge.Kind(make_half, alter, half_finished, 30, 60),
    "predict": judge.Kind(make, alter, labelled, 90, 20),
}


@pytest.mark.parametrize("name", KINDS)
def test_workdir(name, pytestconfig, tmp_path, record_property):
    judge.check(
        KINDS[name], name, pytestconfig.option, tmp_path, record_property
    )
