import pathlib
import pickle
import shutil
import tarfile

import numpy as np
import pytest

from jaxnlt.runtime.errors import UserError
from tests.data import fakes

FOLDER = "cifar-10-batches-py"


def archive(root: pathlib.Path) -> pathlib.Path:
    """Moves the folder into its archive."""
    file = root / "cifar-10-python.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(root / FOLDER, FOLDER)
    shutil.rmtree(root / FOLDER)
    return file


@pytest.mark.parametrize("below", ["", FOLDER])
def test_folder(tmp_path, below):
    images, labels = fakes.cifar10(tmp_path / FOLDER)
    source = fakes.read("cifar10", tmp_path / below)
    assert (source.train.images == images[:100]).all()
    assert (source.train.labels == labels[:100]).all()
    assert (source.train.ids == np.arange(100)).all()
    assert (source.test.images == images[100:]).all()
    assert source.class_names[3] == "kind3"
    assert source.train.images.flags.c_contiguous


def test_cifar100_reads_fine_labels(tmp_path):
    labels = fakes.cifar100(tmp_path / "cifar-100-python")
    source = fakes.read("cifar100n", tmp_path)
    assert (source.train.labels == labels).all()
    assert len(source.class_names) == 100


def test_archive_equals_folder_and_comes_second(tmp_path):
    images, labels = fakes.cifar10(tmp_path / FOLDER)
    file = archive(tmp_path)
    for path in (tmp_path, file):
        source = fakes.read("cifar10", path)
        assert source.path == str(file)
        assert (source.train.images == images[:100]).all()
        assert (source.train.labels == labels[:100]).all()
    fakes.cifar10(tmp_path / FOLDER)
    assert fakes.read("cifar10", tmp_path).path.endswith(FOLDER)


def test_usual_places(tmp_path, monkeypatch):
    fakes.cifar10(tmp_path / "data" / FOLDER)
    monkeypatch.chdir(tmp_path)
    assert len(fakes.read("cifar10").train) == 100
    monkeypatch.chdir(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with pytest.raises(UserError, match="^config.data.path: .*home/data"):
        fakes.read("cifar10")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    assert len(fakes.read("cifar10").train) == 100


def test_not_found_says_where_it_looked(tmp_path):
    with pytest.raises(UserError, match=f"^config.data.path: {tmp_path}/x: "):
        fakes.read("cifar10", tmp_path / "x")
    for name, words in (
        ("cifar10n", f"{FOLDER}.*tar.gz.* in {tmp_path};.*--dataset=cifar10 "),
        ("cifar100", f" in {tmp_path};.*download --dataset=cifar100 .*toronto"),
    ):
        with pytest.raises(UserError, match=f"^config.data.path: .*{words}"):
            fakes.read(name, tmp_path)


def flipped(data):
    return data[: len(data) // 2] + b"\0\1\2" + data[len(data) // 2 + 3 :]


@pytest.mark.parametrize(
    "damage",
    [lambda d: b"", lambda d: d[: len(d) // 2], lambda d: d[:-9], flipped],
)
def test_damaged_archive(tmp_path, damage):
    fakes.cifar10(tmp_path / FOLDER)
    file = archive(tmp_path)
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(UserError, match=rf"^{file}: .*archive.*\Z"):
        fakes.read("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_incomplete_folder(tmp_path, name):
    fakes.cifar10(tmp_path / FOLDER)
    (tmp_path / FOLDER / name).unlink()
    with pytest.raises(UserError, match=f"^{tmp_path}/.*{name}: "):
        fakes.read("cifar10", tmp_path)
    archive(tmp_path)
    with pytest.raises(UserError, match=f"^{tmp_path}/.*holds no {name}"):
        fakes.read("cifar10", tmp_path)


@pytest.mark.parametrize(
    "change, word",
    [
        ({b"labels": [0] * 3}, "labels must be 20 integers"),
        ({b"labels": [10] * 20}, "labels must be in"),
        ({b"data": np.zeros((20, 5), np.uint8)}, "data must be uint8 rows"),
        ({b"data": np.zeros((20, 3072))}, "data must be uint8 rows"),
        ({b"labels": None}, "holds no labels"),
    ],
)
def test_wrong_content(tmp_path, change, word):
    fakes.cifar10(tmp_path / FOLDER)
    file = tmp_path / FOLDER / "data_batch_2"
    batch = pickle.loads(file.read_bytes(), encoding="bytes") | change
    fakes.dump(file, {k: v for k, v in batch.items() if v is not None})
    with pytest.raises(UserError, match=f"^{file}: .*{word}"):
        fakes.read("cifar10", tmp_path)
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(UserError, match=f"^{file}: damaged"):
        fakes.read("cifar10", tmp_path)
