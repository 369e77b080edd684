"""A workdir and the data that change under it."""

import csv
import shutil

import numpy as np
import pytest

from jaxnlt import train
from jaxnlt.data import fingerprint, load
from jaxnlt.results import files as result_files
from jaxnlt.runtime import checkpoint
from jaxnlt.runtime.errors import UserError
from tests.runs import tiny, write_npz


def config_of(path, **fields):
    return tiny("erm", "npz,smoke", **{"data.path": str(path), **fields})


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A finished run without a test set: its data and its workdir."""
    folder = tmp_path_factory.mktemp("ran")
    path = write_npz(folder / "images.npz", size=8, per_class=40, test=False)
    train.run(config_of(path), folder / "run")
    return path, folder / "run"


@pytest.fixture
def case(ran, tmp_path):
    """The same data in the same place, and a copy of the workdir."""
    path, workdir = ran
    whole = path.read_bytes()
    yield path, shutil.copytree(workdir, tmp_path / "run")
    path.write_bytes(whole)


def edit(path, **changes):
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(
        path,
        **{k: changes[k](a) if k in changes else a for k, a in arrays.items()},
        **{k: v for k, v in changes.items() if k not in arrays},
    )


def mended(labels):
    """30 labels of the first class become the second."""
    return np.where(np.arange(len(labels)) < 30, 1, labels)


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"train_labels": mended},
            "30 labels changed, first: 0, 0 -> 1",
        ),
        (
            {
                "train_images": lambda x: x[:-1],
                "train_labels": lambda y: y[:-1],
            },
            "1 image gone, first: 119",
        ),
        (
            {"class_names": np.array(["0", "1", "b"])},
            "1 class names changed, first: 2 -> b",
        ),
        ({"train_images": lambda x: 255 - x}, "120 images changed, first"),
    ],
)
def test_other_data_are_refused(case, changes, words, stopped):
    path, workdir = case
    edit(path, **changes)
    if stopped:
        (workdir / "summary.json").unlink()
    before = {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}
    with pytest.raises(UserError, match=f"^{workdir}: .*{words}") as error:
        train.run(config_of(path), workdir)
    assert "--workdir" in str(error.value) and "init_from" in str(error.value)
    assert "\n" not in str(error.value)
    assert before == {p: p.stat().st_mtime_ns for p in workdir.rglob("*")}


def test_the_same_data_are_complete(case, monkeypatch):
    path, workdir = case
    edit(path)  # another file of the same content
    (workdir / "fingerprint.json").write_text("{}")  # of no use where all is
    monkeypatch.setattr(train, "Trainer", None)
    assert train.run(config_of(path), workdir)["method"] == "erm"


@pytest.mark.parametrize(
    "old, new", [("class_names", "x"), ("held_out", "test")]
)
def test_without_its_rows_a_change_is_refused_too(case, old, new):
    path, workdir = case
    file = workdir / "fingerprint.json"
    file.write_text(file.read_text().replace(old, new, 1))
    edit(path, train_labels=mended)
    with pytest.raises(UserError, match="fingerprint.json is damaged"):
        train.run(config_of(path), workdir)


def test_old_memory_needs_the_old_data(case, tmp_path):
    path, workdir = case
    phase = checkpoint.load(workdir).meta["phase"]
    edit(path, train_labels=mended)
    fields = {"init_from": str(workdir), "start_phase": phase}
    with pytest.raises(UserError, match="^config.start_phase: .*other images"):
        train.run(config_of(path, **fields), tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "names, first",
    [(["1", "0", "2"], "class 0 .*'0', .*'1'"), (["0", "1", "b"], "class 2 ")],
)
def test_old_networks_need_the_old_classes(case, tmp_path, names, first):
    path, workdir = case
    edit(path, class_names=np.array(names), train_labels=mended)
    with pytest.raises(UserError, match=f"^config.init_from: .*{first}"):
        train.run(config_of(path, init_from=str(workdir)), tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_what_the_workdir_tells(ran):
    path, workdir = ran
    facts = result_files.read_json(workdir / "dataset.json")
    meta = checkpoint.load(workdir).meta
    assert meta["data"] == facts["fingerprint"]
    data = fingerprint.of_dataset(load.dataset(config_of(path)))
    assert meta["train"] == data.train_sha256
    noise = result_files.read_json(workdir / "noise.json")
    assert noise["class_names"] == ["0", "1", "2"]
    assert len(noise["source_sha256"]) == 64
    with open(workdir / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(int(row["index"]) for row in rows) == list(range(120))
    held_out = [row for row in rows if row["split"] == "held_out"]
    assert len(held_out) == facts["facts"]["n_test"] == 30


def test_the_noise_is_called_by_its_file(case, tmp_path, capsys):
    path, workdir = case
    file = str(workdir / "noise.json")
    fields = {"data.noise_file": file, "data.noise": "sym", "data.rate": 0.3}
    edit(path, train_true_labels=np.repeat(np.arange(3), 40))
    summary = train.run(config_of(path, **fields), tmp_path / "new")
    assert summary["noise"] == f"file:{file}"
    assert f"(noise file:{file})" in capsys.readouterr().out
    assert f"file:{file}" in (tmp_path / "new" / "report.html").read_text()
