"""The raw downloads behind the NLT benchmarks: miniatures, and lists alone."""

import pathlib

import numpy as np
from PIL import Image

from jaxnlt.data.nlt import build
from jaxnlt.data.readers.lists import RawSet
from jaxnlt.data.records import WRONG, ListedImage

SYNSETS = ("n01704323", "n04515003", "n02101006", "n03062245")
NAMES = ("triceratops", "upright piano", "Gordon setter", "cocktail shaker")
FOODS = ("apple_pie", "baby_back_ribs", "baklava")


def jpeg(file: pathlib.Path, seed: int, size=(20, 16)) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(file, "JPEG")


def text(file: pathlib.Path, lines) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{line}\n" for line in lines))


def web_name(label: int, i: int) -> str:
    return f"{0xABCDEF * (100 * label + i + 1):016x}.jpg"


def imagenet(raw: pathlib.Path, train=30, web=12, test=2) -> pathlib.Path:
    """ILSVRC-2012 and CNWL: images of a class, its web images in split 0.8."""
    base = raw / "dataset_no_images" / "mini-imagenet"
    text(base / "class_name.txt", NAMES)
    split, validation = [], []
    for label, synset in enumerate(SYNSETS):
        for i in range(train):
            name = f"{synset}_{7 * i + label}.JPEG"
            jpeg(raw / "ILSVRC2012" / "train" / synset / name, i)
        split += [f"{synset}{i:08d}.jpg {label}" for i in range(1, 4)]
        for i in range(web):
            name = web_name(label, i)
            split.append(f"{name} {label}")
            jpeg(raw / "noisy_images" / name, i, (30, 24))
        for i in range(test):
            name = f"ILSVRC2012_val_{100 * i + label:08d}"
            validation.append(f"{name}.jpg {label}")
            jpeg(raw / "ILSVRC2012" / "val" / f"{name}.JPEG", i)
    # The files of the release are not sorted.
    text(base / "split" / "red_noise_nl_0.8", split[::-1])
    text(base / "split" / "clean_validation", validation[::-1])
    return raw


def animal(raw: pathlib.Path, train=20, test=2, size=(20, 16)) -> pathlib.Path:
    """ANIMAL-10N as its raw-image archive unpacks."""
    for label in range(10):
        for i in range(train):
            name = f"{label}_img_{1553496000000 + 17 * i}.jpg"
            jpeg(raw / "training" / name, i, size)
        for i in range(test):
            name = f"{label}_img_{1553497000000 + 13 * i}.jpg"
            jpeg(raw / "testing" / name, i, size)
    return raw


def food(raw: pathlib.Path, train=20, test=2) -> pathlib.Path:
    """Of a class the first image is verified as right, the second as wrong."""
    base = raw / "Food-101N_release"
    keys, tests = [], []
    for label, name in enumerate(FOODS):
        for i in range(train):
            keys.append(f"{name}/{0x123457 * (100 * label + i + 1):032x}.jpg")
            jpeg(base / "images" / keys[-1], i)
        for i in range(test):
            tests.append(f"{name}/{1000 + i}")
            jpeg(raw / "food-101" / "images" / f"{tests[-1]}.jpg", i)
    meta = base / "meta"
    text(meta / "classes.txt", ["class_name", *FOODS[::-1]])
    text(meta / "imagelist.tsv", ["class_name/key", *keys])
    head = "class_name/key\tverification_label"
    right = [f"{key}\t1" for key in keys[::train]]
    wrong = [f"{key}\t0" for key in keys[1::train]]
    text(meta / "verified_train.tsv", [head, *right])
    text(meta / "verified_val.tsv", [head, *wrong])
    text(raw / "food-101" / "meta" / "test.txt", tests)
    return raw


def full_size(classes=100, clean=1300, web=480) -> RawSet:
    """As many names a class as ILSVRC-2012 and the web have, about."""
    names = tuple(f"class {label}" for label in range(classes))
    images, pools = [], []
    for k in range(classes):
        paths = [f"n{k:08d}_{i}.JPEG" for i in range(clean)]
        images.append([ListedImage(path, k, k, "imagenet") for path in paths])
        paths = [f"{k:06x}{i:06x}.jpg" for i in range(web)]
        pools.append([ListedImage(path, k, WRONG, "web") for path in paths])
    return RawSet(names, images, pools, [])


def options(colour, rate, seed=0, n_max=1000, imb=0.05) -> build.Options:
    return build.Options("imagenet_nlt", colour, rate, n_max, imb, seed)


def counts(classes, condition=lambda row: True, by="label") -> np.ndarray:
    """Images of a kind, by given or by true label, int64 [C]."""
    found = [
        getattr(row, by) for rows in classes for row in rows if condition(row)
    ]
    return np.bincount(np.array(found, int), minlength=len(classes))


def hypergeometric_scores(found, drawn, marked, size) -> np.ndarray:
    """Standardised counts of marked images among ``drawn`` of ``size``."""
    share = marked / size
    mean = drawn * share
    variance = drawn * share * (1 - share) * (size - drawn) / (size - 1)
    random = variance > 0
    np.testing.assert_array_equal((found - mean)[~random], 0)
    return ((found - mean)[random]) / np.sqrt(variance[random])


# The builder's command line --------------------------------------------------

LAYOUTS = {
    "imagenet_nlt": imagenet,
    "animal10_nlt": animal,
    "food101_nlt": food,
}
DRAWN = {
    "imagenet_nlt": "--colour=purple --rate=0.4 --n_max=20 --imb=0.3",
    "animal10_nlt": "--n_max=20 --imb=0.1",
    "food101_nlt": "--n_max=20 --imb=0.2",
}


def call(benchmark, raw, out, more=None) -> int:
    more = DRAWN[benchmark] if more is None else more
    flags = [f"--benchmark={benchmark}", f"--raw={raw}", f"--out={out}"]
    return build.main(["build_nlt", *flags, *more.split()])


def refused(benchmark, raw, folder, capsys, more=None) -> str:
    """The one line that names the mistake; nothing is left behind."""
    before = sorted(folder.iterdir())
    assert call(benchmark, raw, folder / "out", more) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert shown.err.startswith("jaxnlt: error: ")
    assert sorted(folder.iterdir()) == before
    return shown.err.removeprefix("jaxnlt: error: ")
