"""Every reader of data and of weights, on altered files."""

import functools
import json
import pathlib
import shutil
import tarfile
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxnlt import models, predict
from jaxnlt.data import files, load
from jaxnlt.models import pretrained
from tests import runs
from tests.campaign import judge, mutate
from tests.data import fake_tfds, fake_web, fakes
from tests.models import weight_files

pytestmark = pytest.mark.slow
HUMAN = {"clean_label": np.tile(np.arange(10), 10)}
HUMAN |= {"worse_label": (HUMAN["clean_label"] * 3 + 1) % 10}
FORMATS = ("png", "jpg", "gif", "bmp", "webp", "tiff")


class Reader(NamedTuple):
    """A benchmark on tiny files.

    Attributes:
      benchmark: its name.
      write: (folder) writes it.
      places: fields of config.data -> paths relative to the folder.
      fields: other fields of config.data.
      cases: see ``judge.Kind``.
    """

    benchmark: str
    write: Callable[[pathlib.Path], Any]
    places: dict[str, str] = {"path": "."}
    fields: dict[str, Any] = {}
    cases: int = 150


def npz(folder):
    folder.mkdir()
    runs.write_npz(folder / "a.npz", size=8, per_class=4)
    with np.load(folder / "a.npz") as found:
        true = {"train_true_labels": found["train_labels"]}
        names = {"class_names": np.array(["a", "b", "c"])}
        np.savez(folder / "a.npz", **found, **true, **names)


def noise_list(folder, ids=False):
    npz(folder)
    labels = np.load(folder / "a.npz")["train_labels"].tolist()
    content = {"ids": list(range(12)), "labels": labels} if ids else labels
    (folder / "noise.json").write_text(json.dumps(content))


def folder_of_images(folder):
    """A class of every format, train and test."""
    rng = np.random.default_rng(0)
    for k, end in enumerate(FORMATS):
        for place in (folder / "train" / f"c{k}", folder / "test" / f"c{k}"):
            place.mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (9, 8, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.{end}")


def labels_file(folder):
    folder_of_images(folder)
    paths = sorted(p.relative_to(folder) for p in folder.glob("train/*/*"))
    rows = [f"{path},{path.parts[1]},{path.parts[1]}" for path in paths]
    text = "\n".join(["path,label,true_label", *rows])
    (folder / "labels.csv").write_text(f"{text}\n")


def cifar_tar(folder):
    fakes.cifar10(folder / "cifar-10-batches-py")
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    shutil.rmtree(folder / "cifar-10-batches-py")


def cifar_human(folder, write, name):
    fakes.cifar10(folder / "cifar-10-batches-py")
    write(folder / name, HUMAN)


def save_npz(file, content):
    np.savez(file, **content)


def animal_binary(folder):
    raw = fake_web.animal_raw(folder.with_name("raw"), train=2, test=1)
    fake_web.animal_binary(folder, raw)
    shutil.rmtree(raw)


def manifest(folder, write):
    folder.mkdir()
    write(folder / "raw", folder / "out")


def tfds(folder):
    folder.mkdir()
    rows = fake_tfds.rows
    fake_tfds.write(folder, {"train": rows(12), "test": rows(6, 50)})


def _manifest(benchmark, write):
    places = {"path": "raw", "labels_file": "out/manifest.csv"}
    return Reader(benchmark, functools.partial(manifest, write=write), places)


def _noise(ids):
    places = {"path": "a.npz", "noise_file": "noise.json"}
    return Reader("npz", functools.partial(noise_list, ids=ids), places)


def _human(name, write):
    return Reader(
        "cifar10n",
        functools.partial(cifar_human, name=name, write=write),
        {"path": ".", "labels_file": name},
    )


READERS = {
    "npz": Reader("npz", npz, {"path": "a.npz"}, cases=600),
    "noise_list": _noise(False),
    "noise_object": _noise(True),
    "folder": Reader("folder", folder_of_images, cases=400),
    "images": Reader("images", folder_of_images, cases=300),
    "labels_file": Reader(
        "folder",
        labels_file,
        {"path": ".", "labels_file": "labels.csv"},
        cases=300,
    ),
    "cifar": Reader("cifar10", fakes.cifar10, cases=300),
    "cifar_tar": Reader("cifar10", cifar_tar),
    "cifar_human_pt": _human("CIFAR-10_human.pt", fakes.torch_zip),
    "cifar_human_old": _human("CIFAR-10_human.pt", fakes.torch_legacy),
    "cifar_human_npz": _human("cifar10n.npz", save_npz),
    "webvision": Reader(
        "webvision", functools.partial(fake_web.webvision, imagenet="synset")
    ),
    "clothing1m": Reader("clothing1m", fake_web.clothing),
    "animal10n": Reader("animal10n", fake_web.animal_raw),
    "animal10n_binary": Reader("animal10n", animal_binary),
    "food101n": Reader("food101n", fake_web.food),
    "red": Reader("red_mini_imagenet", fake_web.red, fields={"imb": 1.0}),
    "imagenet_nlt": _manifest("imagenet_nlt", fake_web.nlt),
    "animal10_nlt": _manifest("animal10_nlt", fake_web.animal_nlt),
    "food101_nlt": _manifest("food101_nlt", fake_web.food_nlt),
    "tfds": Reader("tfds", tfds, fields={"name": "fake"}),
}


def read(reader: Reader, folder: pathlib.Path) -> None:
    """Loads a benchmark and every image of it; what is loaded fits together."""
    places = {field: folder / name for field, name in reader.places.items()}
    config = fakes.config(reader.benchmark, **places, **reader.fields)
    found = load.dataset(config)
    for split in (found.train, found.test, *found.more_tests.values()):
        _check(split, found.num_classes)


def _check(split, classes) -> None:
    if isinstance(split.images, files.CutImages):
        for row in range(len(split)):
            split.images.files.open(row)
    elif split.images.dtype != np.uint8:
        raise judge.Silent(f"images of {split.images.dtype}")
    labels = split.labels
    if not len(split.images) == len(labels) == len(split.ids) > 0:
        raise judge.Silent(f"{len(split.images)} images, {len(labels)} labels")
    if labels.min() < 0 or labels.max() >= classes:
        raise judge.Silent(f"labels {labels.min()} to {labels.max()}")


# Weights, and images to label ------------------------------------------------


def weights(folder, write, name):
    folder.mkdir()
    write(folder / name, weight_files.resnet())


@functools.cache
def drawn():
    return _network("").init(0, (32, 32, 3))


def _network(file):
    fields = {"name": "resnet18", "width": 4, "blocks": (1, 2)}
    fields |= {"dtype": "float32", "pretrained": str(file)}
    return models.build(ConfigDict(fields), 5, ("logits",))


def read_weights(folder, name):
    found = pretrained.overlay(drawn(), str(folder / name))
    for kind, tree in drawn().items():
        if found[kind].keys() != tree.keys():
            raise judge.Silent(f"{kind} has other parts")


def to_label(folder):
    """One folder of images, and one file."""
    folder_of_images(folder / "images")
    np.savez(folder / "a.npz", images=np.zeros((3, 9, 8, 3), np.uint8))


def read_to_label(folder):
    for name, size in (("a.npz", 0), ("images", 8)):
        found = predict.find_images(folder / name, (9, 8, 3), size)
        if found.read(0, len(found.ids)).shape[1:] != (9, 8, 3):
            raise judge.Silent("another shape")


def _weights(name, write):
    make = functools.partial(weights, name=name, write=write)
    act = functools.partial(read_weights, name=name)
    return judge.Kind(make, mutate.any_file, act, 300)


KINDS = {
    name: judge.Kind(
        reader.write,
        mutate.any_file,
        functools.partial(read, reader),
        reader.cases,
    )
    for name, reader in READERS.items()
} | {
    "pretrained_pth": _weights("a.pth", weight_files.torch_zip),
    "pretrained_old": _weights("b.pth", weight_files.torch_legacy),
    "safetensors": _weights("c.safetensors", weight_files.safetensors),
    "to_label": judge.Kind(to_label, mutate.any_file, read_to_label, 200),
}


@pytest.mark.parametrize("name", KINDS)
def test_reader(name, options, tmp_path, record_property):
    judge.check(KINDS[name], name, options, tmp_path, record_property)
