"""Runs on images that stay on disk: as in memory, whatever breaks."""

import csv
import dataclasses
import pathlib

import numpy as np
import pytest

from jaxnlt import predict, train
from jaxnlt.data import files, load, registry
from jaxnlt.data.decode import BadImage
from jaxnlt.results import files as result_files
from jaxnlt.runtime import checkpoint
from jaxnlt.runtime.errors import UserError
from tests import runs
from tests.data import fake_web
from tests.data.streamed import CLASSES, configuration, given, write_folder

# Whole runs: too dear for every change.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("equal"))


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
    assert a.keys() == b.keys()
    for name, value in a.items():
        if isinstance(value, float):
            # float32's last digits: the step is compiled with and without
            # the gathering of images.
            assert value == pytest.approx(b[name], rel=1e-5, abs=1e-7), name
        else:
            assert value == b[name], name


@pytest.mark.parametrize("method", ["erm", "dividemix"])
def test_streamed_or_in_memory_the_figures_are_equal(
    method, folder, tmp_path, monkeypatch
):
    entry = registry.get("images")
    held = dataclasses.replace(
        registry.get("folder"), mean=entry.mean, std=entry.std
    )
    monkeypatch.setitem(registry.BENCHMARKS, "folder", held)
    # A random crop of 64 of 64 pixels, or of 8 of 8, is the image.
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
    tables = []
    for name in ("streamed", "memory"):
        with open(tmp_path / name / "labels.csv") as table:
            tables.append(list(csv.DictReader(table)))
    for a, b in zip(*tables, strict=True):
        clean = "clean_probability"
        assert float(a.pop(clean)) == pytest.approx(float(b.pop(clean)), 1e-4)
        assert a == b


@pytest.fixture(scope="module")
def finished(large, tmp_path_factory):
    """A run of random crops with one thread."""
    config = configuration("dividemix", large, epochs=3)
    with config.unlocked():
        config.dividemix.warmup, config.data.workers = 1, 1
    workdir = tmp_path_factory.mktemp("runs") / "run"
    return config, workdir, train.run(config, workdir)


def test_the_number_of_threads_changes_no_byte(finished, tmp_path):
    config, workdir, summary = finished
    more = config.copy_and_resolve_references()
    with more.unlocked():
        more.data.workers = 4
    again = train.run(more, tmp_path / "more")
    assert again["weights_sha256"] == summary["weights_sha256"]
    for a, b in zip(
        runs.records(workdir), runs.records(tmp_path / "more"), strict=True
    ):
        assert runs.same_figures(a, b)


def test_a_resumed_run_ends_alike(finished):
    config, workdir, _ = finished
    runs.check_resume(config, workdir)


def test_a_run_can_label_other_images(finished, large):
    _, workdir, _ = finished
    ids, probs, names = predict.predict(workdir, large / "test")
    assert len(ids) == 4 * CLASSES and names == ("class0", "class1", "class2")
    scores = result_files.read_json(workdir / "summary.json")[
        "last_test_accuracy"
    ]
    truth = [f"class{c}" for c in range(CLASSES) for _ in range(4)]
    right = np.mean([names[k] for k in probs.argmax(1)] == np.array(truth))
    assert right == scores


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
    said = [
        record.getMessage()
        for record in caplog.records
        if record.name == "jaxnlt" and "skipped" in record.getMessage()
    ]
    assert len(said) == len(set(said)) == 3
    kept = checkpoint.load(tmp_path / "run")
    assert kept.epoch == 1


def test_fields_of_streaming_are_checked(folder):
    for fields, message in (
        ({"data.transform": "paper"}, "config.data.transform"),
        ({"data.transform": ""}, "config.data.transform"),
    ):
        with pytest.raises(UserError, match=f"^{message}: "):
            load.check(configuration("erm", folder, **fields))
    for field, value in (
        ("transform", "images"),
        ("on_bad_image", "skip"),
        ("workers", 3),
    ):
        config = runs.tiny("erm", "digits", **{f"data.{field}": value})
        with pytest.raises(UserError, match=f"^config.data.{field}: digits"):
            load.check(config)


# Every benchmark of files; that they are trained on: test_web_smoke.py -------


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Fields of the sets that the tests below load."""
    names = ("red_mini_imagenet", "food101n", "animal10n")
    root = tmp_path_factory.mktemp("sets")
    return {name: given(name, root / name) for name in names}


def of_set(name, fields, **more):
    return runs.tiny("erm", name, **{"data.image_size": 16} | fields | more)


def test_noise_of_the_web_and_verified_labels_are_what_is_known(sets):
    red = load.dataset(of_set("red_mini_imagenet", sets["red_mini_imagenet"]))
    clean = len(red.train) - (red.train.true_labels < 0).sum()
    assert len(red.train) - clean == int(clean / 0.6 - clean) > 0
    assert red.true_counts is None and red.description.counts_true is None
    rate = red.description.noise_rate_realised
    assert rate == (len(red.train) - clean) / len(red.train)
    split = of_set(
        "red_mini_imagenet",
        sets["red_mini_imagenet"],
        **{"data.noise": "split:red_noise_nl_0.8", "data.imb": 1.0},
    )
    assert len(load.dataset(split).train) == 8 + 12
    # Of Food-101N's four images a class two were verified, one of them wrong.
    food = load.dataset(of_set("food101n", sets["food101n"]))
    assert food.description.noise_rate_realised == 0.5
    assert food.true_counts is None


def test_the_binary_of_animal10n_is_the_raw_images(sets, tmp_path):
    source = pathlib.Path(sets["animal10n"]["data.path"])
    (folder,) = {p.parent.parent for p in source.rglob("training/*.jpg")}
    made = fake_web.animal_binary(tmp_path / "binary", folder)
    fields = {"data.path": str(made)}
    with pytest.raises(
        UserError, match="^config.data.image_size: .* 64 pixels"
    ):
        load.dataset(of_set("animal10n", fields))
    whole = {"data.image_size": 0}
    binary = load.dataset(of_set("animal10n", fields, **whole))
    raw = load.dataset(of_set("animal10n", sets["animal10n"], **whole))
    assert binary.train.images.shape == raw.train.images.shape
    np.testing.assert_array_equal(binary.train.labels, raw.train.labels)
    for k in (0, 7):
        np.testing.assert_array_equal(
            binary.train.images[k], raw.train.images[k]
        )
