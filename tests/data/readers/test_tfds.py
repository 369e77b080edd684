"""Any tensorflow-datasets set of which an array_record copy is on disk."""

import functools
import io
import json
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from jaxnlt import command_line
from jaxnlt.data import load
from jaxnlt.data.readers import tfds as tfds_reader
from jaxnlt.data.readers import tfds_copy, user
from jaxnlt.runtime.errors import UserError
from tests import runs
from tests.data import fakes

NAMES = ("cat", "dog", "owl")


@functools.cache
def picture(key: int, width=8, height=8, channels=3) -> np.ndarray:
    rng = np.random.default_rng(key)
    return rng.integers(0, 256, (height, width, channels), np.uint8)


def encoded(pixels: np.ndarray, form="PNG") -> bytes:
    out = io.BytesIO()
    image = pixels[..., 0] if pixels.shape[2] == 1 else pixels
    Image.fromarray(image).save(out, form)
    return out.getvalue()


def record(key: int, width=8, height=8, channels=3, form="PNG") -> dict:
    pixels = picture(key, width, height, channels)
    return {"image": encoded(pixels, form), "label": key % 3}


def write(folder, splits, name="fake", version="1.2.0", **features):
    """Makes a copy as tensorflow-datasets does, without TensorFlow.

    `splits` maps a name to records, `features` replaces or adds some.
    """
    kinds = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=NAMES),
    }
    kinds = {k: v for k, v in (kinds | features).items() if v is not None}

    def info(self):
        found = tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(kinds)
        )
        found.initialize_from_bucket = lambda: None
        return found

    body = {
        "__module__": __name__,
        "VERSION": tfds.core.Version(version),
        "name": name,
        "pkg_dir_path": folder,
        "url_infos": {},
        "_info": info,
        "_split_generators": lambda self, manager: {
            split: iter(enumerate(rows)) for split, rows in splits.items()
        },
        "_generate_examples": None,
    }
    with tfds.core.registered.skip_registration():
        builder = type("Fake", (tfds.core.GeneratorBasedBuilder,), body)
    made = builder(data_dir=str(folder), file_format="array_record")
    tfds.disable_progress_bar()
    made.download_and_prepare(
        download_config=tfds.download.DownloadConfig(try_download_gcs=False)
    )
    return folder


def rows(count=12, first=0, **options):
    return [record(first + k, **options) for k in range(count)]


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
    source = tfds_reader.read("fake", str(plain))
    assert source.class_names == NAMES
    assert source.path == str(plain / "fake" / "1.2.0")
    assert source.train.images.shape == (12, 8, 8, 3)
    assert source.train.images.dtype == np.uint8
    assert source.train.true_labels is None
    assert source.train.ids.tolist() == list(range(12))
    # JPEGs as Pillow decodes them.
    keys = {picture(k).tobytes(): k for k in range(9)}
    for k in range(9, 12):
        with Image.open(io.BytesIO(encoded(picture(k), "JPEG"))) as image:
            keys[np.asarray(image).tobytes()] = k
    found = [keys[image.tobytes()] for image in source.train.images]
    assert sorted(found) == list(range(12)) != found
    assert source.train.labels.tolist() == [k % 3 for k in found]
    # Places are those of the library's own reading.
    own = tfds.builder_from_directory(source.path).as_data_source("train")
    assert [r["label"] for r in own] == source.train.labels.tolist()
    assert source.test is not None
    for image, label in zip(
        source.test.images, source.test.labels, strict=True
    ):
        assert key_of(image, range(50, 56)) % 3 == label
    assert (source.test.true_labels == source.test.labels).all()


def test_sizes_are_refused_or_resized_as_folders_are(odd, tmp_path, caplog):
    with pytest.raises(
        UserError, match=r"split train: record \d+: is .x9"
    ) as e:
        tfds_reader.read("fake", str(odd))
    assert "--config.data.image_size=N" in str(e.value)
    with caplog.at_level("INFO", "jaxnlt"):
        source = tfds_reader.read("fake", str(odd), image_size=7)
    assert "validation is the test set" in caplog.text
    assert source.test is not None
    assert source.test.images.shape == (3, 7, 7, 3)
    assert sorted(source.test.ids) == ["v50", "v51", "v52"]
    # The same pictures as files, read by the benchmark folder.
    for k in range(12):
        file = tmp_path / "train" / NAMES[k % 3] / f"{k}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encoded(picture(k, 6 + k % 3, 9)))
    folder = user.folder(str(tmp_path), image_size=7).train
    for name, image, label in zip(
        source.train.ids, source.train.images, source.train.labels, strict=True
    ):
        letter, number = name.split("/")
        assert label == "abc".index(letter)
        (row,) = np.flatnonzero(
            folder.ids == f"train/{NAMES[label]}/{number}.png"
        )
        np.testing.assert_array_equal(image, folder.images[row])


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
    assert train.images.shape[1:] == (8, 8, 1) and train.true_labels is not None
    for image, name, label in zip(
        train.images, train.ids, train.true_labels, strict=True
    ):
        key = key_of(image, range(10), channels=1)
        assert name == str(100 + key) and label == key % 2
    changed = int((train.true_labels != train.labels).sum())
    assert changed == int(0.25 * len(train)) > 0


def test_grey_files_stay_grey(tmp_path):
    kind = tfds.features.Image(shape=(8, 8, 1))
    write(tmp_path, {"train": rows(6, channels=1)}, image=kind)
    source = tfds_reader.read("fake", str(tmp_path))
    assert source.train.images.shape == (6, 8, 8, 1)
    for image, label in zip(
        source.train.images, source.train.labels, strict=True
    ):
        assert key_of(image, range(6), channels=1) % 3 == label


def test_test_set_without_labels_is_passed_over(tmp_path, caplog):
    hidden = [r | {"label": -1} for r in rows(3, 50)]
    splits = {"train": rows(6), "test": hidden, "validation": rows(3, 60)}
    write(tmp_path, splits)
    with caplog.at_level("INFO", "jaxnlt"):
        source = tfds_reader.read("fake", str(tmp_path))
    assert "split test has no labels" in caplog.text
    assert source.test is not None
    for image in source.test.images:
        assert key_of(image, range(60, 63))


@pytest.fixture(scope="module")
def several(plain, tmp_path_factory):
    """Versions and configs, as tensorflow-datasets nests them."""
    root, made = tmp_path_factory.mktemp("several"), plain / "fake" / "1.2.0"
    for place in (
        "two/1.2.0",
        "two/1.10.0",
        "one/red/1.2.0",
        "many/red/1.2.0",
        "many/blue_40/1.2.0",
    ):
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
    assert tfds_reader.read(name, "").path == str(several / place)


@pytest.mark.parametrize(
    "name, words",
    [
        (
            "many",
            "config.data.name: .*name one of them: many/blue_40, many/red",
        ),
        ("two:1.3.0", r"looked for two/\[CONFIG\]/1.3.0/dataset_info.json in"),
        ("many/x", "looked for many/x/VERSION/dataset_info.json in"),
        ("mnist", r"mnist not found, looked for .*tensorflow.org/datasets"),
        ("", "config.data.name: is missing"),
        ("../x", "config.data.name: expects NAME"),
        ("a b", "config.data.name: expects NAME"),
        ("a:latest", "config.data.name: expects NAME"),
        ("/etc", "config.data.name: expects NAME"),
    ],
)
def test_not_found(several, name, words):
    with pytest.raises(UserError, match=words) as error:
        tfds_reader.read(name, str(several))
    assert "\n" not in str(error.value)


def test_other_formats_are_named(plain, tmp_path):
    shutil.copytree(plain / "fake", tmp_path / "fake")
    info = tmp_path / "fake" / "1.2.0" / "dataset_info.json"
    content = json.loads(info.read_text())
    info.write_text(json.dumps(content | {"fileFormat": "tfrecord"}))
    with pytest.raises(UserError, match="tfrecord format.*convert_format") as e:
        tfds_reader.read("fake", str(tmp_path))
    assert "\n" not in str(e.value)
    # What convert_format leaves behind: both formats in one folder.
    both = {
        "fileFormat": "tfrecord",
        "alternativeFileFormats": ["array_record"],
    }
    info.write_text(json.dumps(content | both))
    assert len(tfds_reader.read("fake", str(tmp_path)).train) == 12
    info.write_text("{")
    with pytest.raises(UserError, match="dataset_info.json: cannot be read"):
        tfds_reader.read("fake", str(tmp_path))


def test_damaged_copy(plain, tmp_path):
    shutil.copytree(plain / "fake", tmp_path / "fake")
    file = next(tmp_path.glob("fake/*/*train*"))
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(UserError, match="damaged tensorflow-datasets") as error:
        tfds_reader.read("fake", str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "changed, words",
    [
        (
            {"image": None, "picture": tfds.features.Image()},
            "it has label ClassLabel, picture Image",
        ),
        (
            {"label": None, "kind": tfds.features.ClassLabel(names=NAMES)},
            "it has image Image, kind ClassLabel",
        ),
        (
            {"label": tfds.features.Text()},
            "it has image Image, label Text",
        ),
    ],
)
def test_features_are_listed(tmp_path, changed, words):
    train = []
    for row in rows(3):
        if "picture" in changed:
            row["picture"] = row.pop("image")
        elif "kind" in changed:
            row["kind"] = row.pop("label")
        else:
            row["label"] = str(row["label"])
        train.append(row)
    write(tmp_path, {"train": train}, **changed)
    with pytest.raises(UserError, match=f"features image.*{words}"):
        tfds_reader.read("fake", str(tmp_path))


@pytest.mark.parametrize(
    "splits, words",
    [
        ({"test": rows(3)}, "has no split train, only test"),
        ({"train": rows(2)}, "split train: class owl has no image"),
        (
            {"train": rows(3), "test": rows(2)},
            "test set: class owl has no image",
        ),
        (
            {"train": [*rows(3), {"image": b"no image", "label": 0}]},
            r"split train: record \d: unreadable image",
        ),
    ],
)
def test_wrong_content(tmp_path, splits, words):
    write(tmp_path, splits)
    with pytest.raises(UserError, match=words) as error:
        tfds_reader.read("fake", str(tmp_path))
    assert "\n" not in str(error.value)


def test_too_large_for_memory(plain, monkeypatch):
    monkeypatch.setattr(user, "fit", lambda *_: wide)
    wide = np.broadcast_to(np.uint8(0), (1 << 27, 1 << 27, 3))
    with pytest.raises(UserError, match="split train: too large for memory"):
        tfds_reader.read("fake", str(plain))


def test_repeated_id(tmp_path):
    train = [row | {"id": "same"} for row in rows(3)]
    write(tmp_path, {"train": train}, id=tfds.features.Text())
    with pytest.raises(UserError, match="feature id is not unique"):
        tfds_reader.read("fake", str(tmp_path))


def test_field_is_for_this_benchmark_alone():
    config = runs.tiny("erm", "digits", **{"data.name": "mnist"})
    with pytest.raises(UserError, match="config.data.name"):
        load.check(config)
    with pytest.raises(UserError, match="config.data.name: is missing"):
        load.check(runs.tiny("erm", "tfds"))


def test_command_line_reaches_the_data(plain):
    config, _ = command_line.parse(
        [
            "main",
            "--config=configs/dasc.py:tfds,imb=0.5,seed=3",
            "--config.data.name=fake:1.2.0",
            f"--config.data.path={plain}",
        ]
    )
    loaded = load.dataset(config)
    assert loaded.given_counts.tolist() == [4, 2, 2]
    assert loaded.facts["source"] == str(plain / "fake" / "1.2.0")
    assert len(loaded.test) == 6
