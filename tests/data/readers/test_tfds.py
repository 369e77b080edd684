"""Any tensorflow-datasets set of which an array_record copy is on disk."""

import io
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxnlt.data import decode, load
from jaxnlt.data.readers import tfds_copy
from jaxnlt.runtime.errors import UserError
from tests.data import fakes
from tests.data.fake_tfds import NAMES, encoded, picture, record, rows, write


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """Images of one size, without `id`, some of them JPEG."""
    train = rows(9) + rows(3, 9, form="JPEG")
    folder = tmp_path_factory.mktemp("plain")
    return write(folder, {"train": train, "test": rows(6, 50)})


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """Images of several sizes with an `id`; validation in place of a test."""
    train = [
        record(k, width=6 + k % 3, height=9) | {"id": f"{'abc'[k % 3]}/{k}"}
        for k in range(12)
    ]
    held = [record(k, width=10) | {"id": f"v{k}"} for k in range(50, 53)]
    return write(
        tmp_path_factory.mktemp("odd"),
        {"train": train, "validation": held},
        id=tfds.features.Text(),
    )


def key_of(pixels, keys, **options):
    """The key of the picture that has these pixels."""
    (found,) = (
        k for k in keys if np.array_equal(pixels, picture(k, **options))
    )
    return found


def test_images_labels_and_names(plain):
    source = fakes.read("tfds", plain, name="fake")
    train, test = source.train, source.test
    assert source.class_names == NAMES
    assert source.path == str(plain / "fake" / "1.2.0")
    assert train.images.shape == (12, 8, 8, 3)
    assert train.images.dtype == np.uint8 and train.true_labels is None
    assert train.ids.tolist() == list(range(12))
    # JPEGs as Pillow decodes them.
    keys = {picture(k).tobytes(): k for k in range(9)}
    for k in range(9, 12):
        image = Image.open(io.BytesIO(encoded(picture(k), "JPEG")))
        keys[image.tobytes()] = k
    found = [keys[image.tobytes()] for image in train.images]
    assert sorted(found) == list(range(12)) != found
    assert train.labels.tolist() == [k % 3 for k in found]
    # Places are those of the library's own reading.
    own = tfds.builder_from_directory(source.path).as_data_source("train")
    assert [r["label"] for r in own] == train.labels.tolist()
    found = [key_of(image, range(50, 56)) % 3 for image in test.images]
    assert found == test.labels.tolist() == test.true_labels.tolist()


def test_sizes_are_refused_or_resized_as_folders_are(odd, tmp_path):
    refused(odd, r"split train: record \d+: is .x9.*image_size")
    source = fakes.read("tfds", odd, name="fake", image_size=7)
    assert source.test.images.shape == (3, 7, 7, 3)
    assert sorted(source.test.ids) == ["v50", "v51", "v52"]
    # The same pictures as files, read by the benchmark folder.
    for k in range(12):
        file = tmp_path / "train" / NAMES[k % 3] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(k, 6 + k % 3, 9)))
    folder = fakes.read("folder", tmp_path, image_size=7).train
    paths = {path: row for row, path in enumerate(folder.ids)}
    train = source.train
    labels = ["abc".index(name[0]) for name in train.ids]
    assert train.labels.tolist() == labels
    # Of "b/7" that is "train/dog/7.png".
    files = zip(np.array(NAMES)[labels], train.ids, strict=True)
    rows = [paths[f"train/{kind}/{name[2:]}.png"] for kind, name in files]
    np.testing.assert_array_equal(train.images, folder.images[rows])


def test_grey_images_and_plain_numbers_without_a_test_set(tmp_path):
    """An array in place of an encoded image, labels without names."""
    train = [
        {"image": picture(k, channels=1), "label": k % 2, "id": 100 + k}
        for k in range(10)
    ]
    write(
        tmp_path,
        {"train": train},
        image=tfds.features.Tensor(shape=(8, 8, 1), dtype=np.uint8),
        label=tfds.features.Scalar(np.int64),
        id=tfds.features.Scalar(np.int64),
    )
    config = fakes.config("tfds", path=tmp_path, noise="sym_excl", rate=0.25)
    config.data.name = "fake"
    loaded = load.dataset(config)
    assert loaded.class_names == ("0", "1")
    assert loaded.test_kind == "held_out"
    train = loaded.train
    assert train.images.shape[1:] == (8, 8, 1)
    keys = [key_of(image, range(10), channels=1) for image in train.images]
    assert train.ids.tolist() == [str(100 + key) for key in keys]
    assert train.true_labels.tolist() == [key % 2 for key in keys]
    changed = int((train.true_labels != train.labels).sum())
    assert changed == int(0.25 * len(train)) > 0


def test_test_set_without_labels_is_passed_over(tmp_path):
    """Of grey files, which stay grey."""
    hidden = [r | {"label": -1} for r in rows(3, 50, channels=1)]
    splits = {"train": rows(6, channels=1), "test": hidden}
    splits["validation"] = rows(3, 60, channels=1)
    write(tmp_path, splits, image=tfds.features.Image(shape=(8, 8, 1)))
    source = fakes.read("tfds", tmp_path, name="fake")
    assert source.train.images.shape == (6, 8, 8, 1)
    for split, keys in ((source.train, range(6)), (source.test, range(60, 63))):
        found = [key_of(image, keys, channels=1) % 3 for image in split.images]
        assert found == split.labels.tolist()


@pytest.fixture(scope="module")
def several(plain, tmp_path_factory):
    """Versions and configs, as tensorflow-datasets nests them."""
    root, made = tmp_path_factory.mktemp("several"), plain / "fake" / "1.2.0"
    places = ["two/1.2.0", "two/1.10.0", "one/red/1.2.0"]
    for place in (*places, "many/red/1.2.0", "many/blue_40/1.2.0"):
        shutil.copytree(made, root / place)
    return root


@pytest.mark.parametrize(
    "name, place",
    [
        ("two", "two/1.10.0"),
        ("two:1.2.0", "two/1.2.0"),
        ("one", "one/red/1.2.0"),
        ("one:1.2.0", "one/red/1.2.0"),
        ("many/blue_40", "many/blue_40/1.2.0"),
        ("many/red:1.2.0", "many/red/1.2.0"),
    ],
)
def test_versions_and_configs(several, monkeypatch, name, place):
    assert tfds_copy.find(name, [several]) == several / place
    monkeypatch.setenv("TFDS_DATA_DIR", str(several))
    assert fakes.read("tfds", name=name).path == str(several / place)


BAD = {"image": b"no image", "label": 0}


def refused(path, words, name="fake"):
    with pytest.raises(UserError, match=rf"{words}.*\Z"):
        fakes.read("tfds", path, name=name)


@pytest.mark.parametrize(
    "name, words",
    [
        ("many", "^config.data.name: .*many/blue_40, many/red"),
        ("two:1.3.0", r"^config.data.path: .* two/\[CONFIG\]/1.3.0/"),
        ("many/x", "^config.data.path: .* many/x/VERSION/"),
        ("mnist", "^config.data.path: .*tensorflow.org/datasets"),
        ("", "^config.data.name: "),
        ("../x", "^config.data.name: "),
        ("a:latest", "^config.data.name: "),
        ("/etc", "^config.data.name: "),
    ],
)
def test_not_found(several, name, words):
    refused(several, words, name)


@pytest.fixture
def version(plain, tmp_path):
    """Folder of a copy that a test may damage."""
    shutil.copytree(plain / "fake", tmp_path / "fake")
    return tmp_path / "fake" / "1.2.0"


def test_other_formats(version, tmp_path):
    info = version / "dataset_info.json"
    content = json.loads(info.read_text()) | {"fileFormat": "tfrecord"}
    info.write_text(json.dumps(content))
    refused(tmp_path, f"^{version}: .*tfrecord")
    # What convert_format leaves behind: both formats in one folder.
    both = {"alternativeFileFormats": ["array_record"]}
    info.write_text(json.dumps(content | both))
    assert len(fakes.read("tfds", tmp_path, name="fake").train) == 12
    info.write_text("{")
    refused(tmp_path, f"^{info}: ")


def test_damaged_copy(version, tmp_path):
    file = next(version.glob("*train*"))
    file.write_bytes(file.read_bytes()[:1000])
    refused(tmp_path, f"^{version}: damaged")


def test_features_are_listed(tmp_path):
    train = [{"label": "x", "picture": row["image"]} for row in rows(3)]
    kinds = {"image": None, "picture": tfds.features.Image()}
    write(tmp_path, {"train": train}, label=tfds.features.Text(), **kinds)
    refused(tmp_path, "has label Text, picture Image")


@pytest.mark.parametrize(
    "splits, words",
    [
        ({"test": rows(3)}, "no split train, only test"),
        ({"train": rows(2)}, "split train: class owl"),
        ({"train": [*rows(3), BAD]}, r"split train: record \d: unreadable"),
    ],
)
def test_wrong_content(tmp_path, splits, words):
    write(tmp_path, splits)
    refused(tmp_path, f"^{tmp_path / 'fake'}.*{words}")


def test_too_large_for_memory(plain, monkeypatch):
    wide = np.broadcast_to(np.uint8(0), (1 << 27, 1 << 27, 3))
    monkeypatch.setattr(decode, "fit", lambda *_: wide)
    refused(plain, "split train: too large for memory")


def test_repeated_id(tmp_path):
    train = [row | {"id": "same"} for row in rows(3)]
    write(tmp_path, {"train": train}, id=tfds.features.Text())
    refused(tmp_path, "split train: the feature id")
