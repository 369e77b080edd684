"""Several test sets, top-5, and true labels of which only a part is known."""

import csv
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.data import fingerprint, load
from jaxnlt.data.decode import BadImage
from jaxnlt.data.records import UNKNOWN, WRONG
from jaxnlt.results import files as result_files
from jaxnlt.results import journal, metrics
from jaxnlt.results import summary as summary_lib
from jaxnlt.runtime import checkpoint
from jaxnlt.trainer import Trainer
from launch import sweep
from tests import runs
from tests.auditing import made
from tests.data import fake_web


def of_set(name, path, **fields):
    small = {"data.path": str(path), "data.image_size": 8, "max_steps": 1}
    small |= {"batch_size": 4, "warmup_batch_size": 4, "eval_batch_size": 32}
    small |= {"model.name": "preact_resnet18", "model.blocks": (1, 1)}
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


def test_validation_is_recorded_and_chooses_the_checkpoint(finished, clothing):
    workdir, summary, judged = finished
    rows = runs.records(workdir)
    val = [r["val_accuracy"] for r in rows]
    # 14 images, 2 of each class in the test set; one cannot be read.
    assert all(13 * v == pytest.approx(round(13 * v)) for v in val)
    assert val != [r["test_accuracy"] for r in rows]
    assert judged == val
    # By hand: test_summary.py.
    more = summary_lib.more_accuracies(rows, load.dataset(clothing[0]))
    assert more.items() <= summary.items() and "best_val_epoch" in more
    assert not any("top5" in key for r in (*rows, summary) for key in r)


def test_events_and_report_show_the_other_set(finished):
    workdir, summary, _ = finished
    (path,) = (workdir / "events").iterdir()
    # Tags stand in the file as plain text, one an epoch.
    assert path.read_bytes().count(b"val_accuracy") == 3
    page = (workdir / "report.html").read_text()
    for name, key in (
        ("accuracy on val, best epoch", "best_val_accuracy"),
        ("best validation epoch", "test_accuracy_at_best_val"),
    ):
        assert f"{name}</dt><dd>{100 * summary[key]:.2f} %</dd>" in page


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
    trainer, made = Trainer(config, dataset), {}
    for name, split in dataset.tests.items():
        # Image i's label is at place i, or at i / 2.
        places = np.arange(50) // (1 + (name == "imagenet"))
        scores = -np.tile(np.arange(50.0), (50, 1))
        for row, label, place in zip(scores, split.labels, places, strict=True):
            row[label], row[place] = row[place], row[label]
        made[name] = [[{"logits": scores}]]
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
    """Reports on a set without training; data, labels.csv's rows, the page."""
    dataset = load.dataset(config)
    classes = dataset.num_classes
    record = {"epoch": 0, "phase": "train", "loss": 1.0, "test_accuracy": 0.5}
    record["accuracy_per_class"] = [0.5] * classes
    about = summary_lib.RunInfo("CPU", 2, "", "", 1, 1, str(tmp_path))
    data = fingerprint.of_dataset(dataset)
    kept = journal.Journal(config, dataset, data, tmp_path, {}, 0, 0.0, [])
    kept.epoch(record | {"seconds": 1.0, "images_per_second": 1.0})
    audit = made.audit(dataset.train.labels, classes)
    kept.finish({"train": audit}, {}, about)
    with open(tmp_path / "labels.csv", newline="") as file:
        rows = {row["path"]: row for row in csv.DictReader(file)}
    page = (tmp_path / "report.html").read_text()
    return dataset, [rows[path] for path in dataset.train.ids], page


def check_truth(dataset, rows):
    """The column of true labels, and the quality of a selection.

    Returns which labels are known to be right, and which to be wrong.
    """
    true, names = dataset.train.true_labels, dataset.class_names
    special = {UNKNOWN: "", WRONG: "wrong"}
    shown = [special.get(k) if k < 0 else names[k] for k in true]
    assert [row["true_label"] for row in rows] == shown
    trusted = np.arange(len(true)) % 2 == 0
    chosen = base.Selection(
        labelled=np.flatnonzero(trusted),
        unlabelled=np.flatnonzero(~trusted),
        weights=np.ones(len(true)),
        counts=np.ones(dataset.num_classes),
        clean_probability=trusted.astype(float),
    )
    trainer = SimpleNamespace(dataset=dataset)
    phase = SimpleNamespace(selector=True, views={})
    found = metrics.selection_record(trainer, phase, [chosen])
    right, wrong = true >= 0, true == WRONG
    judged = right | wrong
    assert found["clean_precision"] == right[judged & trusted].mean()
    assert found["clean_recall"] == trusted[right].mean()
    assert found["noise_recall"] == (~trusted)[wrong].mean()
    return right, wrong


def test_wrong_labels_of_an_unknown_class(tmp_path):
    config = of_set("red_mini_imagenet", fake_web.red(tmp_path / "set"))
    dataset, rows, page = finish(config, tmp_path)
    right, wrong = check_truth(dataset, rows)
    assert wrong.any() and right.any() and (right | wrong).all()
    assert page.count('class="wrong">label is wrong<') == min(wrong.sum(), 32)
    assert "truly" not in re.sub("truly (clean|noisy)", "", page)
    assert f"Right labels: {100 * right.mean():.1f}\xa0% of the given." in page
    # What tables of results make of it.
    facts = sweep.from_labels(tmp_path)
    guessed = [row["given_label"] == row["predicted_label"] for row in rows]
    assert facts["wrong_learnt"] == np.mean(np.array(guessed)[wrong])
    summary = result_files.read_json(tmp_path / "summary.json")
    assert summary["data"]["counts_true"] is None


def test_labels_that_few_have_verified(tmp_path):
    config = of_set("food101n", fake_web.food(tmp_path / "set"))
    dataset, rows, page = finish(config, tmp_path)
    right, wrong = check_truth(dataset, rows)
    # Of four images a class one is right, one wrong, two were not looked at.
    assert [right.sum(), wrong.sum(), len(right)] == [3, 3, 12]
    assert page.count(">label is wrong<") == 3
    assert page.count(">label is right<") == 3
    assert "Of the 6 that were verified, 50.0\xa0% are right." in page
    facts = sweep.from_labels(tmp_path)
    flagged = np.array([float(r["clean_probability"]) < 0.5 for r in rows])
    assert facts["flag_recall"] == flagged[wrong].mean()
    assert facts["right_flagged"] == flagged[right].mean()


def test_a_draw_without_any_verified_label(tmp_path, monkeypatch):
    config = of_set("food101n", fake_web.food(tmp_path / "set"))
    dataset = load.dataset(config)
    unknown = np.full(len(dataset.train), UNKNOWN)
    train = replace(dataset.train, true_labels=unknown)
    blind = replace(dataset, train=train)
    monkeypatch.setattr(load, "dataset", lambda config: blind)
    _, rows, _ = finish(config, tmp_path)
    assert "true_label" not in rows[0]
