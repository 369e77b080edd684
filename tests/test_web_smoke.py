"""`smoke` of the methods on every data set of files, in its true layout."""

import csv
import functools
import itertools
import os

import numpy as np
import pytest

from jaxnlt import command_line, train
from jaxnlt.data import files, registry
from tests import runs
from tests.data.streamed import MINIATURES, given

METHODS = sorted(runs.methods())
#: Set -> the method that runs on it by default, most where a paper has both;
#: JAXNLT_SMOKE=all runs the whole product, some 17 minutes on two cores.
DIAGONAL = {
    "webvision": "sfa",
    "clothing1m": "dividemix",
    "animal10n": "smr",
    "animal10n_binary": "erm",
    "food101n": "rolt_plus",
    "red_mini_imagenet": "dasc",
    "red_mini_imagenet_84": "tabasco",
    "imagenet_nlt": "h2e",
    "animal10_nlt": "rolt",
    "food101_nlt": "erm",
    "images": "unicon",
    "tfds": "erm",
}
# Augmentations of theirs compile for long; others keep the sets' own ones.
PLAIN = {
    "dasc": {"augment.weak": "crop_flip", "augment.strong": "crop_flip"},
    "h2e": {"augment.strong": "flip_rotate"},
}
EVERYTHING = os.environ.get("JAXNLT_SMOKE") == "all"
# Nothing is left out: every method takes every set.
CASES = (
    list(itertools.product(METHODS, MINIATURES))
    if EVERYTHING
    else [(method, name) for name, method in DIAGONAL.items()]
    + [(method, "tfds") for method in {*METHODS} - {*DIAGONAL.values()}]
)
FILES = {"checkpoints", "config.json", "dataset.json", "events", "labels.csv"}
FILES |= {"fingerprint.json", "metrics.jsonl", "noise.json", "report.html"}
FILES |= {"summary.json", "audit.json", ".lock"}


def test_by_default_every_method_and_every_set_is_met():
    assert set(DIAGONAL) == set(MINIATURES)
    assert {method for method, _ in CASES} == set(METHODS)
    streamed = {b.name for b in registry.BENCHMARKS.values() if b.transform}
    met = {made.benchmark for made in MINIATURES.values()}
    assert met == streamed | {"tfds"}


@pytest.fixture(scope="module")
def miniature(tmp_path_factory):
    """Fields of a set, of which the files are written once."""
    root = tmp_path_factory.mktemp("sets")
    return functools.cache(lambda name: given(name, root / name))


def narrowed(method, name):
    """Fields that leave the set's kind of network, one block a stage."""
    network = registry.get(MINIATURES[name].benchmark).model
    fields = {"model.width": 4, "model.blocks": (1,), "data.image_size": 16}
    if name in ("tfds", "animal10n_binary"):  # images of one size, in memory
        del fields["data.image_size"]
    elif network == "inception_resnet_v2" and EVERYTHING:
        fields |= {"model.blocks": (1, 1, 1), "data.image_size": 75}
    elif network == "inception_resnet_v2":  # compiles for long
        fields["model.name"] = "preact_resnet18"
    if not EVERYTHING:
        fields |= PLAIN.get(method, {})
    return fields


def command(method, name, fields):
    """The command line of a smoke run."""
    module, text = runs.methods()[method]
    file = module.__name__.rpartition(".")[2]
    arg = f"{MINIATURES[name].benchmark},smoke{text}"
    config = module.get_config(arg)
    few = {k: v for k, v in runs.FEW.items() if k in config[method]}
    small = {
        "batch_size": 4,
        "warmup_batch_size": 4,
        "eval_batch_size": 16,
        **{f"{method}.{key}": value for key, value in few.items()},
        **fields,
        **narrowed(method, name),
    }
    if EVERYTHING:  # the last phase twice: what it kept is used
        small["epochs"] = config.epochs + 1
    flags = [f"--config.{key}={value}" for key, value in small.items()]
    return ["main", f"--config=configs/{file}.py:{arg}", *flags]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "name"), CASES)
def test_smoke(method, name, miniature, tmp_path, monkeypatch):
    seen, make = [], train.Trainer

    def remember(*args):
        seen.append(make(*args))
        return seen[-1]

    monkeypatch.setattr(train, "Trainer", remember)
    config, _ = command_line.parse(command(method, name, miniature(name)))
    workdir = tmp_path / "run"
    summary = train.run(config, workdir)
    (trainer,) = seen
    check_records(config, trainer, runs.records(workdir))
    assert summary["epochs"] == config.epochs
    size = config.data.image_size
    assert not size or summary["data"]["image_shape"] == [size, size, 3]
    check_files(workdir, trainer.dataset)
    if EVERYTHING:  # by default: test_every_method.py, test_streaming_runs.py
        runs.check_resume(config, workdir)


def check_records(config, trainer, rows):
    """Every phase was trained, its losses are finite, all images were read."""
    method, dataset = trainer.method, trainer.dataset
    phases = [method.phase(epoch) for epoch in range(config.epochs)]
    assert [row["phase"] for row in rows] == [p.name for p in phases]
    assert {p.name for p in phases} == {p.name for p in method.phases()}
    tests = [f"{name}_accuracy" for name in dataset.tests]
    if dataset.top5:
        tests += [f"{name}_top5_accuracy" for name in dataset.tests]
    streamed = isinstance(dataset.train.images, files.CutImages)
    for row, phase in zip(rows, phases, strict=True):
        terms = {k: v for k, v in row.items() if k.startswith("loss")}
        assert "loss" in terms and np.isfinite([*terms.values()]).all()
        assert ("labelled" in row) == (phase.selector is not None)
        assert row.get("bad_images") == (0 if streamed else None)
        if phase.selector is not None:
            assert row["labelled"] > 0
            if dataset.train.true_labels is not None:
                assert 0 <= row["clean_precision"] <= 1
        if phase.evaluated:
            assert all(0 <= row[test] <= 1 for test in tests)


def check_files(workdir, dataset):
    """Everything that a run leaves is there; its table tells which image."""
    found = {path.name for path in workdir.iterdir()}
    assert found - {"labels.parquet"} == FILES
    with open(workdir / "labels.csv") as table:
        rows = list(csv.DictReader(table))
    assert len(rows) == len(dataset.train)
    if isinstance(dataset.train.images, files.CutImages):
        root = dataset.train.images.files.root
        assert all((root / row["path"]).is_file() for row in rows)
        assert {row["path"] for row in rows} == set(dataset.train.ids)
