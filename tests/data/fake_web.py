"""Miniatures of the data sets with web noise as they are on disk."""

import pathlib

import numpy as np
from PIL import Image

from jaxnlt.data.readers import clothing1m
from tests.data import fake_nlt
from tests.data.fake_nlt import jpeg, text

FOODS = fake_nlt.FOODS
SYNSETS = tuple(f"n{1440000 + 7 * k:08d}" for k in range(53))


def webvision(root: pathlib.Path, train=2, imagenet="") -> pathlib.Path:
    """53 classes; ImageNet's validation images by 'synset' or 'number'."""
    lines, tests = [], []
    for label, synset in enumerate(SYNSETS):
        for i in range(train):
            lines.append(f"google/q{label:04d}/img {i}_{label}.jpg {label}")
            name = lines[-1].rpartition(" ")[0]
            jpeg(root / name, label + i, (18 + i, 14))
        tests.append(f"val{52 - label:06d}.jpg {label}")
        jpeg(root / "val_images_256" / f"val{52 - label:06d}.jpg", label)
        if imagenet:
            folder = {"synset": synset, "number": str(label)}[imagenet]
            name = f"ILSVRC2012_val_{label:08d}.JPEG"
            jpeg(root / "imagenet" / "val" / folder / name, label)
    text(root / "info" / "train_filelist_google.txt", lines[::-1])
    text(root / "info" / "val_filelist.txt", tests)
    words = [f"{s} thing {k // 2}, other {k}" for k, s in enumerate(SYNSETS)]
    text(root / "info" / "synsets.txt", words)
    return root


def animal_raw(root: pathlib.Path, train=3, test=2) -> pathlib.Path:
    """ANIMAL-10N's raw images, 64x64."""
    return fake_nlt.animal(root, train, test, size=(64, 64))


def animal_binary(root: pathlib.Path, raw: pathlib.Path) -> pathlib.Path:
    """The same images as in ``raw``, as the official binary holds them."""
    root.mkdir(parents=True)

    train, test = (sorted((raw / n).iterdir()) for n in ("training", "testing"))
    for name, files in (
        ("data_batch_1", train[:20]),
        ("data_batch_2", train[20:]),
        ("test_batch", test),
    ):
        with open(root / f"{name}.bin", "wb") as stream:
            for number, file in enumerate(files, 1000):
                np.array([number, file.name[0]], ">u4").tofile(stream)
                planes = np.asarray(Image.open(file)).transpose(2, 0, 1)
                stream.write(planes.tobytes())
    return root


def food(root: pathlib.Path) -> pathlib.Path:
    """Food-101N and Food-101; see there who was verified."""
    return fake_nlt.food(root, train=4, test=2)


def clothing(root: pathlib.Path, train=3, images="images/") -> pathlib.Path:
    """Clothing1M; ``images`` '' leaves the folder of the keys out."""
    noisy, clean = [], []
    keys: dict[str, list[str]] = {}
    parts = ("noisy_train", train), ("clean_val", 1), ("clean_test", 2)
    for label in range(len(clothing1m.NAMES)):
        for part, count in parts:
            for i in range(count):
                key = f"{label % 2}/{label:02d}/{i},{len(part)}{part[-1]}.jpg"
                keys.setdefault(part, []).append(f"images/{key}")
                kind = noisy if part == "noisy_train" else clean
                kind.append(f"images/{key} {label}")
                jpeg(root / f"{images}{key}", label + i)
    for part, listed in keys.items():
        text(root / f"{part}_key_list.txt", listed[::-1])
    # The files of labels hold images that no list names.
    text(root / "noisy_label_kv.txt", [*noisy, "images/9/99/0.jpg 13"])
    text(root / "clean_label_kv.txt", clean)
    return root


def red(root: pathlib.Path, layout="all_images") -> pathlib.Path:
    """CNWL's mini-ImageNet: of 4 classes 5 clean images each, 3 of the web."""
    base = root / "mini-imagenet"
    text(base / "class_name.txt", fake_nlt.NAMES)
    clean, web, tests = [], [], []
    for label, synset in enumerate(fake_nlt.SYNSETS):
        clean += [(f"{synset}{i:08d}.jpg", label) for i in range(5)]
        web += [(fake_nlt.web_name(label, i), label) for i in range(3)]
        tests.append((f"ILSVRC2012_val_{label:08d}.jpg", label))
    lists = {
        "blue_noise_nl_0.0": clean,
        "red_noise_nl_0.8": [r for r in clean if r[0][-5] in "01"] + web,
        "red_noise_nl_0.4": [r for r in clean if r[0][-5] in "012"] + web[::2],
        # Two classes exchanged an image.
        "blue_noise_nl_0.2": clean[1:5]
        + clean[6:]
        + [(clean[0][0], 1), (clean[5][0], 0)],
        "clean_validation": tests,
    }
    for name, rows in lists.items():
        lines = [f"{file} {label}" for file, label in rows[::-1]]
        text(base / "split" / name, lines)
    for name, label in tests:
        jpeg(base / "validation" / str(label) / name, label, (84, 84))
    # In one folder, with those of the web apart, or by split and class.
    if layout == "training":
        for split, rows in lists.items():
            for k, (name, label) in enumerate(rows):
                place = base / "training" / split / f"{label:02d}"
                jpeg(place / name, k, (84, 84))
        return root
    together = base / "all_images"
    apart = root / "noisy_images" if layout == "release" else together
    for place, rows in ((together, clean), (apart, web)):
        for k, (name, _) in enumerate(rows):
            jpeg(place / name, k, (84, 84))
    return root


def nlt(benchmark: str, raw: pathlib.Path, out: pathlib.Path) -> pathlib.Path:
    """An NLT set as the builder leaves it; ImageNet's purple noise of 0.4."""
    sizes, drawn = {
        "imagenet_nlt": (
            {"train": 12, "web": 4},
            "--colour=purple --rate=0.4 --n_max=10 --imb=0.5",
        ),
        "animal10_nlt": ({"train": 4}, "--n_max=4 --imb=0.5"),
        "food101_nlt": ({"train": 6}, "--n_max=6 --imb=0.5"),
    }[benchmark]
    fake_nlt.LAYOUTS[benchmark](raw, **sizes)
    assert fake_nlt.call(benchmark, raw, out, drawn) == 0
    return out


def images(root: pathlib.Path) -> pathlib.Path:
    """A folder of images of many sizes."""
    for part, count in (("train", 4), ("test", 2)):
        for label, name in enumerate(("cat", "dog")):
            for i in range(count):
                size = (30 + 9 * i, 50 - 3 * label)
                jpeg(root / part / name / f"{i}.jpg", label + i, size)
    return root
