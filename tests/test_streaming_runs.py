"""Runs on images that stay on disk: as in memory, whatever breaks."""

import csv
import dataclasses
import importlib

import numpy as np
import pytest

from jaxnlt import train
from jaxnlt.data import files, load, registry
from jaxnlt.data.decode import BadImage
from jaxnlt.runtime import checkpoint
from jaxnlt.runtime.errors import UserError
from tests import runs
from tests.data.streamed import CLASSES, configuration, given, write_folder

# ``jaxnlt.predict`` is the function.
predict = importlib.import_module("jaxnlt.predict")

# Whole runs: too dear for every change.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Images of several sizes, so that crops matter."""
    root = tmp_path_factory.mktemp("large")
    return write_folder(root, sizes=(11, 14, 17))


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    names = ("train/class0/03.png", "train/class1/02.png", "test/class2/01.png")
    return write_folder(tmp_path_factory.mktemp("bad"), bad=names)


# Runs ------------------------------------------------------------------------


def assert_equal_figures(a, b):
    """Two epochs' records but for times; sums may be in another order."""
    for record in (a, b):
        for name in ("seconds", "images_per_second", "bad_images"):
            record.pop(name, None)
    for name in a.keys() | b.keys():
        wanted = b[name]
        if isinstance(wanted, float):
            # float32's last digits: the step is compiled with and without
            # the gathering of images.
            wanted = pytest.approx(wanted, rel=1e-5, abs=1e-7)
        assert a[name] == wanted, name


@pytest.mark.parametrize("method", ["erm", "dividemix"])
def test_streamed_or_in_memory_the_figures_are_equal(
    method, tmp_path, monkeypatch
):
    entry = registry.get("images")
    held = dataclasses.replace(
        registry.get("folder"), mean=entry.mean, std=entry.std
    )
    monkeypatch.setitem(registry.BENCHMARKS, "folder", held)
    # A random crop of 64 of 64 pixels, or of 8 of 8, is the image.
    folder = write_folder(tmp_path / "images")
    streamed = configuration(
        method, folder, epochs=3, **{"data.transform": "animal10n"}
    )
    if method == "dividemix":
        with streamed.unlocked():
            streamed.dividemix.warmup = 1
            # Of images from the web the papers leave it out.
            streamed.dividemix.unlabelled_loss = True
            streamed.dividemix.lambda_u = 25.0
    memory = streamed.copy_and_resolve_references()
    with memory.unlocked():
        memory.benchmark, memory.data.transform = "folder", ""
        memory.data.workers = 0
    assert isinstance(load.dataset(streamed).train.images, files.CutImages)
    assert isinstance(load.dataset(memory).train.images, np.ndarray)
    for name, config in (("streamed", streamed), ("memory", memory)):
        train.run(config, tmp_path / name)
    records = [runs.records(tmp_path / name) for name in ("streamed", "memory")]
    assert [r["bad_images"] for r in records[0]] == [0, 0, 0]
    assert all("bad_images" not in r for r in records[1])
    if method == "dividemix":
        for record in records[0][1:]:
            assert record["phase"] == "semi" and record["unlabelled"] > 0
        assert records[0][-1]["loss_mse"] > 0
    for a, b in zip(*records, strict=True):
        assert_equal_figures(a, b)
    tables = (
        csv.DictReader((tmp_path / name / "labels.csv").open())
        for name in ("streamed", "memory")
    )
    for a, b in zip(*tables, strict=True):
        for name, rel in (("clean_probability", 1e-4), ("label_quality", 1e-5)):
            wanted = pytest.approx(float(b.pop(name)), rel=rel)
            assert float(a.pop(name)) == wanted, name
        assert a == b


@pytest.fixture(scope="module")
def finished(large, tmp_path_factory):
    """A run of random crops with one thread."""
    config = configuration("dividemix", large, epochs=3)
    with config.unlocked():
        config.dividemix.warmup, config.data.workers = 1, 1
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return config, workdir, train.run(config, workdir)


def test_a_resumed_run_ends_alike(finished):
    config, workdir, _ = finished
    runs.check_resume(config, workdir)


def test_a_run_can_label_other_images(finished, large):
    _, workdir, summary = finished
    ids, probs, names = predict.predict(workdir, large / "test")
    assert len(ids) == 4 * CLASSES and names == ("class0", "class1", "class2")
    truth = np.repeat(np.arange(CLASSES), 4)
    right = (probs.argmax(1) == truth).mean()
    assert right == summary["last_test_accuracy"]


def test_bad_images_are_skipped_logged_and_counted(damaged, tmp_path, caplog):
    config = configuration("erm", damaged, epochs=2, max_steps=0)
    with pytest.raises(BadImage, match="png: unreadable image"):
        train.run(config, tmp_path / "stopped")
    with config.unlocked():
        config.data.on_bad_image = "skip"
    caplog.clear()
    train.run(config, tmp_path / "run")
    counted = [r["bad_images"] for r in runs.records(tmp_path / "run")]
    # Two of training, one of the test.
    assert counted == [3, 3]
    said = [record.getMessage() for record in caplog.records]
    said = [text for text in said if text.endswith("; skipped")]
    assert len(said) == len(set(said)) == 3
    assert checkpoint.load(tmp_path / "run").epoch == 1


def test_images_of_one_size_are_not_resized(tmp_path):
    fields = given("animal10n_binary", tmp_path / "set")
    config = runs.tiny("erm", "animal10n", **fields | {"data.image_size": 16})
    with pytest.raises(UserError, match="^config.data.image_size: .* 64 pix"):
        load.dataset(config)
