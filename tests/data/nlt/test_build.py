"""The builder's command line on miniatures of every raw layout."""

import collections
import json
import os
import pathlib

import numpy as np
import pytest

from jaxnlt.data.readers import nlt
from jaxnlt.data.records import WRONG
from tests.data import fake_nlt, fakes
from tests.data.fake_nlt import DRAWN, LAYOUTS, call, refused

COUNTS = {
    "imagenet_nlt": [20, 13, 8, 6],
    "animal10_nlt": [20, 15, 11, 9, 7, 5, 4, 3, 2, 2],
    "food101_nlt": [20, 8, 4],
}


def files(out):
    return {p.name: p.read_bytes() for p in out.iterdir()}


def listed(out, name="manifest.csv"):
    """The images of a list that the builder wrote."""
    names = nlt.class_names(out / name)
    return nlt.read_manifest(out / name, len(names))


def counts(images):
    return np.bincount([image.label for image in images]).tolist()


@pytest.mark.parametrize("benchmark", LAYOUTS)
def test_build(benchmark, kept, tmp_path, capsys):
    raw, out = kept[benchmark], tmp_path / "out"
    assert call(benchmark, raw, out) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    names = {"classes.txt", "labels.csv", "manifest.csv", "test.csv"}
    assert set(files(out)) == names
    train, test = listed(out), listed(out, "test.csv")
    given = counts(train)
    assert given == COUNTS[benchmark]
    paths = [image.path for image in train]
    assert len(set(paths)) == len(paths)
    # The order does not separate noise from clean images.
    rows = [(image.label, image.path) for image in train]
    assert rows == sorted(rows)
    assert counts(test) == [2] * len(given)
    assert not any(image.wrong for image in test)
    assert all((raw / image.path).is_file() for image in (*train, *test))
    assert not {image.path for image in test} & set(paths)
    shown = capsys.readouterr()
    assert f"all {sum(given)} " in " ".join(shown.out.split())
    assert shown.err == ""


def test_imagenet_manifest(kept, tmp_path):
    raw, out = kept["imagenet_nlt"], tmp_path / "out"
    assert call("imagenet_nlt", raw, out) == 0
    train = listed(out)
    assert nlt.class_names(out / "manifest.csv") == fake_nlt.NAMES
    assert {image.source for image in train} == {"imagenet", "web", "swap"}
    split = raw / "dataset_no_images/mini-imagenet/split/red_noise_nl_0.8"
    web = dict(line.split() for line in split.read_text().splitlines())
    for path, label, true, source in train:
        if source == "web":
            assert true == WRONG
            assert web[path.removeprefix("noisy_images/")] == str(label)
        else:
            assert fake_nlt.SYNSETS[true] == path.split("/")[2]
            assert (true != label) == (source == "swap")
    # The full pool of 30 is drawn from, not its first 20.
    folder = raw / "ILSVRC2012" / "train" / fake_nlt.SYNSETS[0]
    last = sorted(p.name for p in folder.iterdir())[20:]
    assert {image.path.rpartition("/")[2] for image in train} & set(last)


def test_food_knows_what_is_verified(kept, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("food101_nlt", kept["food101_nlt"], out) == 0
    train = listed(out)
    assert nlt.class_names(out / "manifest.csv") == fake_nlt.FOODS
    for image in train:
        assert image.path.split("/")[2] == fake_nlt.FOODS[image.label]
    # All 20 of the head: one right, one wrong, of 18 nothing is known.
    found = collections.Counter(i.true_label for i in train if i.label == 0)
    assert found == {0: 1, WRONG: 1, None: 18}
    assert "noise of the " in capsys.readouterr().out


def test_animals_have_their_label_in_their_name(kept, tmp_path, capsys):
    out = tmp_path / "out"
    assert call("animal10_nlt", kept["animal10_nlt"], out) == 0
    assert nlt.class_names(out / "manifest.csv")[9] == "guinea pig"
    for image in listed(out):
        assert image.path.startswith(f"training/{image.label}_img_")
        assert image.true_label is None
    assert "realised noise: not known" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", LAYOUTS)
def test_seeds_alone_decide(benchmark, kept, tmp_path, monkeypatch):
    """The order in which folders list their files does not."""

    def backwards(*args, **keywords):
        for place, folders, names in walk(*args, **keywords):
            yield place, folders, sorted(names, reverse=True)

    walk = os.walk
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        more = f"{DRAWN[benchmark]} --seed={seed}"
        assert call(benchmark, kept[benchmark], tmp_path / name, more) == 0
        monkeypatch.setattr(os, "walk", backwards)
    one, same, other = (files(tmp_path / name) for name in "abc")
    assert one == same
    assert one["manifest.csv"] != other["manifest.csv"]
    assert one["test.csv"] == other["test.csv"]


def test_other_places_of_the_raw_files(raws, tmp_path):
    """The layout of H2E and of Kaggle gives the same set."""
    raw = raws["imagenet_nlt"]
    assert call("imagenet_nlt", raw, tmp_path / "a") == 0
    split = "mini-imagenet/split/red_noise_nl_0.8"
    for old, new in (
        ("ILSVRC2012", "ILSVRC/Data/CLS-LOC"),
        ("dataset_no_images/mini-imagenet", "mini-imagenet"),
        ("noisy_images", "mini-imagenet/all_images"),
        (split, f"{split}.txt"),
    ):
        (raw / new).parent.mkdir(parents=True, exist_ok=True)
        (raw / old).rename(raw / new)
    val = raw / "ILSVRC/Data/CLS-LOC/val"
    for file in list(val.iterdir()):  # as the usual script sorts it
        label = int(file.stem[-2:])
        (val / fake_nlt.SYNSETS[label]).mkdir(exist_ok=True)
        file.rename(val / fake_nlt.SYNSETS[label] / file.name)
    assert call("imagenet_nlt", raw, tmp_path / "b") == 0
    a, b = (listed(tmp_path / name) for name in "ab")
    names = [sorted(i.path.rpartition("/")[2] for i in x) for x in (a, b)]
    assert names[0] == names[1] and counts(a) == counts(b)
    assert len(listed(tmp_path / "b", "test.csv")) == 8


def test_animal_archive_inside_its_folder(kept, tmp_path):
    inner = tmp_path / "raw" / "raw_image_ver" / "raw_image"
    inner.parent.mkdir(parents=True)
    inner.symlink_to(kept["animal10_nlt"])
    assert call("animal10_nlt", tmp_path / "raw", tmp_path / "out") == 0


@pytest.mark.parametrize(
    "benchmark, more, noise",
    [
        ("imagenet_nlt", "--colour=blue --rate=0.2", True),
        ("imagenet_nlt", "--colour=red --rate=0.2", False),
        ("food101_nlt", "", False),
    ],
)
def test_labels_csv_is_read_as_folder(benchmark, more, noise, kept, tmp_path):
    """True labels are handed on where that benchmark can take them."""
    raw, out = kept[benchmark], tmp_path / "out"
    assert call(benchmark, raw, out, f"{more} --n_max=20 --imb=0.3") == 0
    file = out / "labels.csv"
    source = fakes.read("folder", raw, labels_file=file, image_size=8)
    paths, labels, true, _ = zip(*listed(out), strict=True)
    assert source.train.ids.tolist() == [*paths]
    assert source.train.labels.tolist() == [*labels]
    assert source.class_names == tuple(str(k) for k in range(max(labels) + 1))
    if noise:
        assert source.train.true_labels.tolist() == [*true]
    else:
        assert source.train.true_labels is None


# The authors' files ----------------------------------------------------------


def weights(path, keys):
    path.write_text(json.dumps(dict.fromkeys(keys, 0.01)))
    return f"--manifest={path}"


def test_released_imagenet_file(kept, tmp_path, capsys):
    """Given label: folder.  True label: synset.  The file is the set."""
    keys = []
    for label, synset in enumerate(fake_nlt.SYNSETS):
        wrong = fake_nlt.SYNSETS[label - 1]
        keys += [
            f"/data/x/train/{label:02d}/{synset}_{7 * i + label}.jpg"
            for i in range(5 - label)
        ]
        number = 7 * 20 + (label - 1) % 4
        keys.append(f"/data/x/train/{label:02d}/{wrong}_{number}.jpg")
    web = f"{0xABCDEF * 101:016x}.jpg"  # a web image of class 1
    keys.append(f"/data/x/train/01/{web}")
    flag = weights(tmp_path / "final_dict.json", keys)
    out = tmp_path / "out"
    assert call("imagenet_nlt", kept["imagenet_nlt"], out, flag) == 0
    images = listed(out)
    assert counts(images) == [6, 6, 4, 3]
    found = {f"{i.label:02d}/{pathlib.Path(i.path).stem}" for i in images}
    prefix, suffix = "/data/x/train/", ".jpg"
    wanted = {k.removeprefix(prefix).removesuffix(suffix) for k in keys}
    assert found == wanted
    swaps = [image for image in images if image.source == "swap"]
    assert len(swaps) == 4
    assert all((i.label - i.true_label) % 4 == 1 for i in swaps)
    assert [i.source for i in images].count("web") == 1
    assert "realised noise: 0.2632" in capsys.readouterr().out


def test_released_animal_file(kept, tmp_path):
    raw, out = kept["animal10_nlt"], tmp_path / "out"
    names = sorted(p.name for p in (raw / "training").iterdir())[::3]
    keys = [f"/d/LT/{n[0]}/{n}" for n in names]
    flag = weights(tmp_path / "final_dict.json", keys)
    assert call("animal10_nlt", raw, out, flag) == 0
    assert sorted(i.path.split("/")[1] for i in listed(out)) == names


ALL_ANIMALS = [f"/d/{k}/{k}_img_1553496000000.jpg" for k in range(10)]


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "not JSON"),
        ('{"0": {"a": 1}}', "must hold {path: weight}"),
        (["/d/0/0_img_1.jpg"], "/d/0/0_img_1.jpg: the raw folder holds no"),
        (["/d/1/0_img_1553496000000.jpg"], "/d/1/0_img_1553496000000.jpg: "),
        (["/d/x/0_img_1553496000000.jpg"], "/d/x/0_img_1553496000000.jpg: "),
        (["0_img_1553496000000.jpg"], "0_img_1553496000000.jpg: its folder"),
        (ALL_ANIMALS[:9], "class guinea pig has no image"),
        ([*ALL_ANIMALS, f"/e{ALL_ANIMALS[0]}"], f"/e{ALL_ANIMALS[0]}: "),
    ],
)
def test_damaged_released_files(content, words, kept, tmp_path, capsys):
    file = tmp_path / "final_dict.json"
    flag = weights(file, content if isinstance(content, list) else [])
    if isinstance(content, str):
        file.write_text(content)
    raw = kept["animal10_nlt"]
    line = refused("animal10_nlt", raw, tmp_path, capsys, flag)
    assert line.startswith(f"{file}: {words}")


def test_folders_in_another_order_are_noticed(kept, tmp_path, capsys):
    keys = [
        f"/d/{(label + 1) % 4}/{synset}_{label}.jpg"
        for label, synset in enumerate(fake_nlt.SYNSETS)
    ]
    flag = weights(tmp_path / "final_dict.json", keys)
    raw = kept["imagenet_nlt"]
    line = refused("imagenet_nlt", raw, tmp_path, capsys, flag)
    assert "no image of class triceratops is of this class" in line
