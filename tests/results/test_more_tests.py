"""Several test sets, top-5, and true labels of which only a part is known."""

import csv
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.data import load
from jaxnlt.data.decode import BadImage
from jaxnlt.data.records import UNKNOWN, WRONG
from jaxnlt.infer import Votes
from jaxnlt.results import files as result_files
from jaxnlt.results import journal, metrics
from jaxnlt.results import summary as summary_lib
from jaxnlt.runtime import checkpoint
from jaxnlt.trainer import Trainer
from launch import sweep
from tests import runs
from tests.data import fake_web


def of_set(name, path, **fields):
    small = {
        "data.path": str(path),
        "data.image_size": 8,
        "model.name": "preact_resnet18",
        "model.blocks": (1, 1),
        "max_steps": 1,
        "batch_size": 4,
        "warmup_batch_size": 4,
        "eval_batch_size": 32,
    }
    return runs.tiny("erm", name, epochs=3, **small | fields)


# A validation set ------------------------------------------------------------


@pytest.fixture(scope="module")
def clothing(tmp_path_factory):
    """Clothing1M with one bad image, of its validation set."""
    root = fake_web.clothing(tmp_path_factory.mktemp("clothing"))
    fields = {"data.on_bad_image": "skip", "max_steps": 4}
    fields["optimizer.learning_rate"] = 0.1  # so that figures move
    config = of_set("clothing1m", root, **fields)
    split = load.dataset(config).more_tests["val"]
    bad = root / str(split.images.files.paths[3])
    bad.write_bytes(bad.read_bytes()[:40])
    return config, bad


@pytest.fixture(scope="module")
def finished(clothing, tmp_path_factory):
    """A run: workdir, summary, accuracies handed to the checkpoints."""
    workdir, judged = tmp_path_factory.mktemp("runs") / "run", []
    save = checkpoint.Checkpoints.save

    def remember(self, *args, accuracy, **kwargs):
        judged.append(accuracy)
        save(self, *args, accuracy=accuracy, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", remember)
        summary = train.run(clothing[0], workdir)
    return workdir, summary, judged


def test_another_set_is_cut_like_the_test_set(clothing):
    dataset = load.dataset(clothing[0])
    assert list(dataset.tests) == ["test", "val"] and not dataset.top5
    assert dataset.choosing == "val"
    assert replace(dataset, more_tests={}).choosing == "test"
    val = dataset.more_tests["val"]
    assert len(val) == 13 and val.images.shape == (13, 8, 8, 3)
    assert val.images.transform == dataset.test.images.transform
    assert dataset.description.n_more_tests == {"val": 13}


def test_validation_is_recorded_and_chooses_the_checkpoint(finished):
    workdir, summary, judged = finished
    rows = runs.records(workdir)
    val = [r["val_accuracy"] for r in rows]
    # 14 images, 2 of each class in the test set; one cannot be read.
    assert all(13 * v == pytest.approx(round(13 * v)) for v in val)
    assert val != [r["test_accuracy"] for r in rows]
    assert judged == val
    assert summary["best_val_accuracy"] == max(val)
    assert summary["last_val_accuracy"] == val[-1]
    assert summary["mean_last10_val_accuracy"] == pytest.approx(np.mean(val))
    best = summary["best_val_epoch"]
    assert best == val.index(max(val))
    at_best = summary["test_accuracy_at_best_val"]
    assert at_best == rows[best]["test_accuracy"]
    assert not any("top5" in key for r in (*rows, summary) for key in r)


def test_events_and_report_show_the_other_set(finished):
    workdir, summary, _ = finished
    (path,) = (workdir / "events").iterdir()
    # Tags stand in the file as plain text, one an epoch.
    assert path.read_bytes().count(b"val_accuracy") == 3
    page = (workdir / "report.html").read_text()
    assert "Dashed: the same networks on val." in page
    for name, value in (
        ("accuracy on val, best epoch", summary["best_val_accuracy"]),
        ("best validation epoch", summary["test_accuracy_at_best_val"]),
    ):
        shown = rf"{name}</dt><dd>{100 * value:.2f} %</dd>"
        assert re.search(shown, page), name


def test_a_bad_image_of_another_set_is_counted_or_stops(finished, clothing):
    config, bad = clothing
    rows = runs.records(finished[0])
    assert [r["bad_images"] for r in rows] == [1, 1, 1]
    config = config.copy_and_resolve_references()
    with config.unlocked():
        config.data.on_bad_image = "stop"
    with pytest.raises(BadImage, match=f"^{bad}: unreadable"):
        load.dataset(config)


def test_a_resumed_run_ends_alike(finished, clothing):
    runs.check_resume(clothing[0], finished[0])


def test_another_set_changes_nothing_else(
    finished, clothing, tmp_path, monkeypatch, capsys
):
    loaded = load.dataset
    monkeypatch.setattr(
        load, "dataset", lambda config: replace(loaded(config), more_tests={})
    )
    alone = train.run(clothing[0], tmp_path / "alone")
    assert alone["weights_sha256"] == finished[1]["weights_sha256"]
    for row, other in zip(
        runs.records(tmp_path / "alone"), runs.records(finished[0]), strict=True
    ):
        assert set(other) - set(row) == {"val_accuracy"}
        del other["val_accuracy"], other["bad_images"], row["bad_images"]
        assert runs.same_figures(row, other)
    assert not any("val" in key for key in alone)
    assert "val " not in capsys.readouterr().out


# Top-5 -----------------------------------------------------------------------


def test_top5_of_webvision_and_imagenet(tmp_path, capsys):
    root = fake_web.webvision(tmp_path / "set", imagenet="synset")
    config = of_set("webvision", root, max_steps=1)
    dataset = load.dataset(config)
    assert list(dataset.tests) == ["test", "imagenet"] and dataset.top5
    assert dataset.choosing == "test"
    assert dataset.more_tests["imagenet"].images.shape == (50, 8, 8, 3)
    trainer = Trainer(config, dataset)

    def outputs(labels, ranks):
        """One network whose scores put image i's label at ranks[i]."""
        scores = -np.tile(np.arange(50.0), (len(labels), 1))
        for row, label, rank in zip(scores, labels, ranks, strict=True):
            row[label], row[rank] = row[rank], row[label]
        return [[{"logits": scores}]]

    ranks = {"test": np.arange(50), "imagenet": np.arange(50) // 2}
    made = {
        name: outputs(split.labels, ranks[name])
        for name, split in dataset.tests.items()
    }
    record = metrics.test_record(trainer, made, trainer.init_memory([]))
    assert record["test_accuracy"] == 1 / 50
    assert record["test_top5_accuracy"] == 5 / 50
    assert record["imagenet_accuracy"] == 2 / 50
    assert record["imagenet_top5_accuracy"] == 10 / 50
    record |= {"epoch": 0, "phase": "train", "seconds": 1.0, "loss": 1.0}
    record["images_per_second"] = 1.0
    journal.Progress(config, dataset, tmp_path, []).epoch(record)
    shown = capsys.readouterr().out
    assert "50 test images, 50 imagenet images" in shown
    assert "top-5  10.0 %  imagenet   4.0 %" in shown


# Truth in part ---------------------------------------------------------------


def finish(config, tmp_path):
    """Reports on a set without training; the data and labels.csv's rows."""
    dataset = load.dataset(config)
    n, classes = len(dataset.train), dataset.num_classes
    rng = np.random.default_rng(0)
    record = {"epoch": 0, "phase": "train", "loss": 1.0, "test_accuracy": 0.5}
    record["accuracy_per_class"] = [0.5] * classes
    scores = rng.normal(size=(n, classes))
    run = summary_lib.RunInfo("CPU", "", "", 1, 1, str(tmp_path))
    journal.write_results(
        tmp_path,
        config,
        dataset,
        [record],
        summary_lib.summarise(config, dataset, [record], run, 1.0),
        rng.random((1, n)),
        Votes(scores, scores),
    )
    with open(tmp_path / "labels.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    return dataset, [rows[path] for path in dataset.train.ids]


def selection_of(dataset):
    """The record of a selection that trusts every second image."""
    n = len(dataset.train)
    clean = np.arange(n) % 2 == 0
    chosen = base.Selection(
        labelled=np.flatnonzero(clean),
        unlabelled=np.flatnonzero(~clean),
        weights=np.ones(n),
        counts=np.ones(dataset.num_classes),
        clean_probability=clean.astype(float),
    )
    trainer = SimpleNamespace(dataset=dataset)
    phase = SimpleNamespace(selector=True, views={})
    return metrics.selection_record(trainer, phase, [chosen])


def test_wrong_labels_of_an_unknown_class(tmp_path):
    root = fake_web.red(tmp_path / "set")
    config = of_set("red_mini_imagenet", root)
    dataset, rows = finish(config, tmp_path)
    true = dataset.train.true_labels
    web = true == WRONG
    assert web.any() and not web.all()
    names = np.array(dataset.class_names)
    for row, is_web, label in zip(rows, web, true, strict=True):
        assert row["true_label"] == ("wrong" if is_web else names[label])
    page = (tmp_path / "report.html").read_text()
    assert page.count('class="wrong">label is wrong<') == min(web.sum(), 32)
    assert "truly" not in re.sub("truly (clean|noisy)", "", page)
    assert f"Right labels: {100 * (~web).mean():.1f}\xa0% of the given." in page
    found = selection_of(dataset)
    trusted = np.arange(len(web)) % 2 == 0
    assert found["clean_precision"] == (~web)[trusted].mean()
    assert found["noise_recall"] == (~trusted)[web].mean()
    # What tables of results make of it.
    facts = sweep.from_labels(tmp_path)
    guessed = [row["given_label"] == row["predicted_label"] for row in rows]
    assert facts["wrong_learnt"] == np.mean(np.array(guessed)[web])
    summary = result_files.read_json(tmp_path / "summary.json")
    assert summary["data"]["counts_true"] is None


def test_labels_that_few_have_verified(tmp_path):
    root = fake_web.food(tmp_path / "set")
    config = of_set("food101n", root)
    dataset, rows = finish(config, tmp_path)
    true = dataset.train.true_labels
    # Of four images a class one is right, one wrong, two were not looked at.
    assert [(true == k).sum() for k in (UNKNOWN, WRONG)] == [6, 3]
    names = np.array(dataset.class_names)
    for row, label in zip(rows, true, strict=True):
        special = {UNKNOWN: "", WRONG: "wrong"}
        assert row["true_label"] == special.get(label, names[label])
    page = (tmp_path / "report.html").read_text()
    assert page.count(">label is wrong<") == 3
    assert page.count(">label is right<") == 3
    assert "Of the 6 that were verified, 50.0\xa0% are right." in page
    judged, trusted = true != UNKNOWN, np.arange(12) % 2 == 0
    found = selection_of(dataset)
    clean = true >= 0
    assert found["clean_precision"] == clean[judged & trusted].mean()
    assert found["clean_recall"] == trusted[clean].mean()
    facts = sweep.from_labels(tmp_path)
    flagged = np.array([float(r["clean_probability"]) < 0.5 for r in rows])
    assert facts["flag_recall"] == flagged[true == WRONG].mean()
    assert facts["right_flagged"] == flagged[clean].mean()
    # The tail of a draw may hold no verified label at all.
    unknown = np.full_like(true, UNKNOWN)
    blind = replace(dataset, train=replace(dataset.train, true_labels=unknown))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "dataset", lambda config: blind)
        (tmp_path / "blind").mkdir()
        _, rows = finish(config, tmp_path / "blind")
    assert "true_label" not in rows[0]
