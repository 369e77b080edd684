import io
import pathlib
import pickle
import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data import registry
from jaxnlt.data.readers import cifar
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

BENCH = registry.get("cifar10")
FOLDER = "cifar-10-batches-py"


def archive(root: pathlib.Path) -> pathlib.Path:
    file = root / "cifar-10-python.tar.gz"
    with tarfile.open(file, "w:gz") as tar:
        tar.add(root / FOLDER, FOLDER)
    return file


@pytest.mark.parametrize("below", ["", FOLDER])
def test_folder(tmp_path, below):
    images, labels = fakes.cifar10(tmp_path / FOLDER)
    source = cifar.read(BENCH, str(tmp_path / below))
    assert (source.train.images == images[:100]).all()
    assert (source.train.labels == labels[:100]).all()
    assert (source.train.ids == np.arange(100)).all()
    assert source.test is not None
    assert (source.test.images == images[100:]).all()
    assert source.class_names[3] == "kind3"
    assert source.train.images.flags.c_contiguous


def test_cifar100_reads_fine_labels(tmp_path):
    labels = fakes.cifar100(tmp_path / "cifar-100-python")
    source = cifar.read(registry.get("cifar100n"), str(tmp_path))
    assert (source.train.labels == labels).all()
    assert len(source.class_names) == 100


def test_archive_equals_folder_and_comes_second(tmp_path):
    fakes.cifar10(tmp_path / FOLDER)
    file = archive(tmp_path)
    folder = cifar.read(BENCH, str(tmp_path))
    assert folder.path.endswith(FOLDER)
    shutil.rmtree(tmp_path / FOLDER)
    for path in (tmp_path, file):
        source = cifar.read(BENCH, str(path))
        assert source.path == str(file)
        assert (source.train.images == folder.train.images).all()
        assert (source.train.labels == folder.train.labels).all()


def test_usual_places(tmp_path, monkeypatch):
    fakes.cifar10(tmp_path / "data" / FOLDER)
    monkeypatch.chdir(tmp_path)
    assert len(cifar.read(BENCH, "").train) == 100
    monkeypatch.chdir(tmp_path / "data")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with pytest.raises(UserError, match="not found.*home/data.*cs.toronto"):
        cifar.read(BENCH, "")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "data"))
    assert len(cifar.read(BENCH, "").train) == 100


def test_not_found_says_where_it_looked(tmp_path):
    with pytest.raises(UserError, match="config.data.path: .*does not exist"):
        cifar.read(BENCH, str(tmp_path / "x"))
    with pytest.raises(UserError, match=f"{FOLDER}.*tar.gz.*{tmp_path}.*toron"):
        cifar.read(BENCH, str(tmp_path))


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_truncated_archive(tmp_path, share):
    fakes.cifar10(tmp_path / FOLDER)
    file = archive(tmp_path)
    shutil.rmtree(tmp_path / FOLDER)
    data = file.read_bytes()
    file.write_bytes(data[: int(share * len(data))])
    with pytest.raises(UserError, match="truncated or damaged archive") as e:
        cifar.read(BENCH, str(tmp_path))
    assert str(file) in str(e.value) and "\n" not in str(e.value)


def test_damaged_archive(tmp_path):
    fakes.cifar10(tmp_path / FOLDER)
    file = archive(tmp_path)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(UserError, match="archive"):
        cifar.read(BENCH, str(file))


@pytest.mark.parametrize("name", ["data_batch_3", "test_batch", "batches.meta"])
def test_incomplete_folder(tmp_path, name):
    fakes.cifar10(tmp_path / FOLDER)
    (tmp_path / FOLDER / name).unlink()
    with pytest.raises(UserError, match=f"{name}: No such file"):
        cifar.read(BENCH, str(tmp_path))
    archive(tmp_path)
    shutil.rmtree(tmp_path / FOLDER)
    with pytest.raises(UserError, match=f"holds no {name}"):
        cifar.read(BENCH, str(tmp_path))


@pytest.mark.parametrize(
    "change, word",
    [
        ({b"labels": [0] * 3}, "labels must be 20 integers"),
        ({b"labels": [0.5] * 20}, "labels must be 20 integers"),
        ({b"labels": [10] * 20}, r"labels must lie in 0\.\.9"),
        ({b"data": np.zeros((20, 5), np.uint8)}, "data must be uint8 rows"),
        ({b"data": np.zeros((20, 3072))}, "data must be uint8 rows"),
        (None, "holds no labels; not cifar10"),
    ],
)
def test_wrong_content(tmp_path, change, word):
    fakes.cifar10(tmp_path / FOLDER)
    file = tmp_path / FOLDER / "data_batch_2"
    batch = pickle.loads(file.read_bytes(), encoding="bytes")
    if change is None:
        del batch[b"labels"]
    file.write_bytes(pickle.dumps(batch | (change or {}), protocol=2))
    with pytest.raises(UserError, match=word) as error:
        cifar.read(BENCH, str(tmp_path))
    assert str(file) in str(error.value)


def test_truncated_batch(tmp_path):
    fakes.cifar10(tmp_path / FOLDER)
    file = tmp_path / FOLDER / "data_batch_2"
    file.write_bytes(file.read_bytes()[:999])
    with pytest.raises(UserError, match="data_batch_2: damaged"):
        cifar.read(BENCH, str(tmp_path))


@pytest.fixture(scope="module")
def tfds_copy(tmp_path_factory):
    """An array_record copy, written by the stock builder without TensorFlow."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    images, labels = fakes.cifar10(root / FOLDER)

    def examples(split, start, stop):
        for i in range(start, stop):
            out = io.BytesIO()
            Image.fromarray(images[i]).save(out, "PNG")
            row = {"id": f"{split}_{i - start:05d}", "image": out.getvalue()}
            yield i, row | {"label": int(labels[i])}

    builder = tfds.builder(
        "cifar10", data_dir=root, file_format="array_record", try_gcs=False
    )
    builder.info.features["label"].names = [f"kind{k}" for k in range(10)]
    builder._split_generators = lambda dl_manager: {
        "train": examples("train", 0, 100),
        "test": examples("test", 100, 110),
    }
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return root


def test_tfds_copy_has_the_official_order(tfds_copy, tmp_path):
    folder = cifar.read(BENCH, str(tfds_copy / FOLDER))
    copy = tmp_path / "copy"
    shutil.copytree(tfds_copy / "cifar10", copy / "cifar10")
    for path in (copy, *(copy / "cifar10").iterdir()):
        source = cifar.read(BENCH, str(path))
        assert source.class_names == folder.class_names
        assert source.test is not None and folder.test is not None
        for a, b in (
            (source.train, folder.train),
            (source.test, folder.test),
        ):
            assert (a.images == b.images).all()
            assert (a.labels == b.labels).all()
            assert (a.ids == b.ids).all()


def test_damaged_tfds_copy(tfds_copy, tmp_path):
    shutil.copytree(tfds_copy / "cifar10", tmp_path / "cifar10")
    file = next(tmp_path.glob("cifar10/*/*train*"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged tensorflow-datasets") as error:
        cifar.read(BENCH, str(tmp_path))
    assert "\n" not in str(error.value)


def test_tfrecord_copies_are_named_not_read(tfds_copy, tmp_path):
    shutil.copytree(tfds_copy / "cifar10", tmp_path / "cifar10")
    info = next(tmp_path.glob("cifar10/*/dataset_info.json"))
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="tfrecord format, only array_record"):
        cifar.read(BENCH, str(tmp_path))
