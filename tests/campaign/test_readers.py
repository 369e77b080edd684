"""Every reader of data and of weights, on altered files."""

import functools
import importlib
import json
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from jaxnlt import models
from jaxnlt.data import files, load
from jaxnlt.models import pretrained
from tests import runs
from tests.campaign import judge, mutate
from tests.data import fakes, streamed
from tests.data.streamed import Miniature
from tests.models import weight_files

# ``jaxnlt.predict`` is the function.
predict = importlib.import_module("jaxnlt.predict")

pytestmark = pytest.mark.slow
HUMAN = {"clean_label": np.tile(np.arange(10), 10)}
HUMAN |= {"worse_label": (HUMAN["clean_label"] * 3 + 1) % 10}
CASES = {"npz": 300, "folder": 200, "images": 200, "labels_file": 200}
FORMATS = ("png", "jpg", "gif", "bmp", "webp", "tiff")


# Each writes a valid input and gives the fields of config.data that name it.


def npz(folder):
    folder.mkdir()
    runs.write_npz(folder / "a.npz", size=8, per_class=4)
    with np.load(folder / "a.npz") as found:
        true = {"train_true_labels": found["train_labels"]}
        names = {"class_names": np.array(["a", "b", "c"])}
        np.savez(folder / "a.npz", **found, **true, **names)
    return {"path": folder / "a.npz"}


def noise_file(folder, ids=False):
    fields = npz(folder)
    labels = np.load(folder / "a.npz")["train_labels"].tolist()
    content = {"ids": list(range(12)), "labels": labels} if ids else labels
    (folder / "noise.json").write_text(json.dumps(content))
    return fields | {"noise_file": folder / "noise.json"}


def folder_of_images(folder):
    """A class of every format, train and test."""
    rng = np.random.default_rng(0)
    for k, end in enumerate(FORMATS):
        for place in (folder / "train" / f"c{k}", folder / "test" / f"c{k}"):
            place.mkdir(parents=True)
            for i in range(3):
                pixels = rng.integers(0, 256, (9, 8, 3), np.uint8)
                Image.fromarray(pixels).save(place / f"{i}.{end}")
    return {"path": folder}


def labels_file(folder):
    folder_of_images(folder)
    paths = sorted(p.relative_to(folder) for p in folder.glob("train/*/*"))
    rows = [f"{path},{path.parts[1]},{path.parts[1]}" for path in paths]
    text = "\n".join(["path,label,true_label", *rows])
    (folder / "labels.csv").write_text(f"{text}\n")
    return {"path": folder, "labels_file": folder / "labels.csv"}


def cifar(folder):
    fakes.cifar10(folder)
    return {"path": folder}


def cifar_tar(folder):
    fakes.cifar10(folder / "cifar-10-batches-py")
    with tarfile.open(folder / "cifar-10-python.tar.gz", "w:gz") as archive:
        archive.add(folder / "cifar-10-batches-py", "cifar-10-batches-py")
    shutil.rmtree(folder / "cifar-10-batches-py")
    return {"path": folder}


def cifar_human(folder, write, name):
    fakes.cifar10(folder / "cifar-10-batches-py")
    write(folder / name, HUMAN)
    return {"path": folder, "labels_file": folder / name}


def save_npz(file, content):
    np.savez(file, **content)


def _human(name, write):
    make = functools.partial(cifar_human, name=name, write=write)
    return Miniature("cifar10n", make)


READERS = streamed.MINIATURES | {
    "npz": Miniature("npz", npz),
    "noise_list": Miniature("npz", noise_file),
    "noise_object": Miniature("npz", functools.partial(noise_file, ids=True)),
    "folder": Miniature("folder", folder_of_images),
    "images": Miniature("images", folder_of_images),
    "labels_file": Miniature("folder", labels_file),
    "cifar": Miniature("cifar10", cifar),
    "cifar_tar": Miniature("cifar10", cifar_tar),
    "cifar_human_pt": _human("CIFAR-10_human.pt", fakes.torch_zip),
    "cifar_human_old": _human("CIFAR-10_human.pt", fakes.torch_legacy),
    "cifar_human_npz": _human("cifar10n.npz", save_npz),
}


def write(name, folder: pathlib.Path) -> None:
    """Writes a reader's input, and beside it the fields that name it."""
    fields = READERS[name].make(folder)
    given = json.dumps({k: str(v) for k, v in fields.items()})
    folder.with_name("fields.json").write_text(given)


def read(name, folder: pathlib.Path) -> None:
    """Loads a benchmark and every image of it; what is loaded fits together."""
    given = folder.with_name("fields.json").read_text()
    whole = str(folder.with_name("whole"))
    fields = json.loads(given.replace(whole, str(folder)))
    found = load.dataset(fakes.config(READERS[name].benchmark, **fields))
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
        pixels = found.read(0, len(found.ids)).pixels
        if pixels.shape[1:] != (9, 8, 3):
            raise judge.Silent("another shape")


def _weights(name, write):
    make = functools.partial(weights, name=name, write=write)
    act = functools.partial(read_weights, name=name)
    return judge.Kind(make, mutate.any_file, act, 120)


KINDS = {
    name: judge.Kind(
        functools.partial(write, name),
        mutate.any_file,
        functools.partial(read, name),
        CASES.get(name, 80),
    )
    for name in READERS
} | {
    "pretrained_pth": _weights("a.pth", weight_files.torch_zip),
    "pretrained_old": _weights("b.pth", weight_files.torch_legacy),
    "safetensors": _weights("c.safetensors", weight_files.safetensors),
    "to_label": judge.Kind(to_label, mutate.any_file, read_to_label, 120),
}


@pytest.mark.parametrize("name", KINDS)
def test_reader(name, pytestconfig, tmp_path, record_property):
    judge.check(
        KINDS[name], name, pytestconfig.option, tmp_path, record_property
    )
