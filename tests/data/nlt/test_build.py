"""The builder's command line on miniatures of every raw layout."""

import collections
import csv
import json

import numpy as np
import pytest
from PIL import Image

from jaxnlt import train
from jaxnlt.data.nlt import manifest as manifests
from jaxnlt.data.nlt import protocol
from jaxnlt.data.nlt import raw as nlt_raw
from jaxnlt.data.readers import user
from jaxnlt.runtime.errors import UserError
from tests import runs
from tests.data import fake_nlt
from tests.data.nlt_builds import DRAWN, LAYOUTS, call, refused

COUNTS = {
    "imagenet_nlt": [20, 13, 8, 6],
    "animal10_nlt": [20, 15, 11, 9, 7, 5, 4, 3, 2, 2],
    "food101_nlt": [20, 8, 4],
}


def files(out):
    return {p.name: p.read_bytes() for p in out.iterdir()}


@pytest.mark.parametrize("benchmark", LAYOUTS)
def test_build(benchmark, kept, tmp_path, capsys):
    raw, out = kept[benchmark], tmp_path / "out"
    assert call(benchmark, raw, out) == 0
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    names = ["classes.txt", "labels.csv", "manifest.csv", "test.csv"]
    assert sorted(files(out)) == names
    manifest = manifests.read_manifest(out / "manifest.csv")
    classes = len(manifest.class_names)
    given = np.bincount(manifest.labels, minlength=classes)
    assert given.tolist() == COUNTS[benchmark]
    assert len(set(manifest.paths)) == len(manifest.paths)
    # Noise is not given away by its place in the file.
    rows = list(zip(manifest.labels.tolist(), manifest.paths, strict=True))
    assert rows == sorted(rows)
    assert all((raw / path).is_file() for path in manifest.paths)
    test = manifests.read_manifest(out / "test.csv")
    assert np.bincount(test.labels).tolist() == [2] * classes
    assert test.true_labels is not None
    np.testing.assert_array_equal(test.true_labels, test.labels)
    assert all((raw / path).is_file() for path in test.paths)
    assert not set(test.paths) & set(manifest.paths)
    shown = capsys.readouterr()
    lines = shown.out.split("\n")
    assert [int(line.split()[1]) for line in lines[1 : classes + 1]] == [*given]
    assert lines[classes + 1].split()[:2] == ["all", str(given.sum())]
    assert shown.err == ""


def test_imagenet_manifest(kept, tmp_path):
    raw, out = kept["imagenet_nlt"], tmp_path / "out"
    assert call("imagenet_nlt", raw, out) == 0
    manifest = manifests.read_manifest(out / "manifest.csv")
    assert manifest.class_names == fake_nlt.NAMES
    assert set(manifest.sources) == {"imagenet", "web", "swap"}
    for path, label, true, source in zip(
        manifest.paths,
        manifest.labels,
        manifest.true_labels,
        manifest.sources,
        strict=True,
    ):
        synset = path.split("/")[2] if source != "web" else None
        if source == "web":
            assert path.startswith("noisy_images/") and true == protocol.WRONG
        else:
            assert fake_nlt.SYNSETS[true] == synset
            assert (true != label) == (source == "swap")
    split = raw / "dataset_no_images/mini-imagenet/split/red_noise_nl_0.8"
    web = dict(line.split() for line in split.read_text().splitlines())
    for path, label in zip(manifest.paths, manifest.labels, strict=True):
        if path.startswith("noisy_images/"):
            assert web[path.removeprefix("noisy_images/")] == str(label)
    # The full pool of 30 is drawn from, not its first 20.
    folder = raw / "ILSVRC2012" / "train" / fake_nlt.SYNSETS[0]
    last = sorted(p.name for p in folder.iterdir())[20:]
    used = {path.rpartition("/")[2] for path in manifest.paths}
    assert used & set(last)


def test_food_knows_what_is_verified(kept, tmp_path, capsys):
    raw, out = kept["food101_nlt"], tmp_path / "out"
    assert call("food101_nlt", raw, out) == 0
    manifest = manifests.read_manifest(out / "manifest.csv")
    assert manifest.class_names == fake_nlt.FOODS
    assert manifest.true_labels is None
    for path, label in zip(manifest.paths, manifest.labels, strict=True):
        assert path.split("/")[2] == fake_nlt.FOODS[label]
    with open(out / "manifest.csv", newline="") as file:
        head = [r for r in csv.DictReader(file) if r["label"] == "0"]
    # All 20 of the head: one right, one wrong, of 18 nothing is known.
    found = collections.Counter(row["true_label"] for row in head)
    assert found == {"0": 1, "-1": 1, "": 18}
    assert "noise of the " in capsys.readouterr().out


def test_animals_bear_their_label(kept, tmp_path, capsys):
    raw, out = kept["animal10_nlt"], tmp_path / "out"
    assert call("animal10_nlt", raw, out) == 0
    manifest = manifests.read_manifest(out / "manifest.csv")
    assert manifest.true_labels is None
    assert manifest.class_names[9] == "guinea pig"
    for path, label in zip(manifest.paths, manifest.labels, strict=True):
        assert path.startswith(f"training/{label}_img_")
    assert "realised noise: not known" in capsys.readouterr().out


@pytest.mark.parametrize("benchmark", LAYOUTS)
def test_equal_seeds_give_equal_files(benchmark, kept, tmp_path):
    raw = kept[benchmark]
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        more = f"{DRAWN[benchmark]} --seed={seed}"
        assert call(benchmark, raw, tmp_path / name, more) == 0
    one, same, other = (files(tmp_path / name) for name in "abc")
    assert one == same
    assert one["manifest.csv"] != other["manifest.csv"]
    assert one["test.csv"] == other["test.csv"]


@pytest.mark.parametrize("benchmark", ["imagenet_nlt", "animal10_nlt"])
def test_order_of_the_folders_does_not_matter(
    benchmark, kept, tmp_path, monkeypatch
):
    def backwards(*args, **keywords):
        for place, folders, names in walk(*args, **keywords):
            yield place, folders, sorted(names, reverse=True)

    assert call(benchmark, kept[benchmark], tmp_path / "a") == 0
    walk = nlt_raw.os.walk
    monkeypatch.setattr(nlt_raw.os, "walk", backwards)
    assert call(benchmark, kept[benchmark], tmp_path / "b") == 0
    assert files(tmp_path / "a") == files(tmp_path / "b")


def test_other_places_of_the_raw_files(raws, tmp_path):
    """The layout of H2E and of Kaggle gives the same set."""
    raw = raws["imagenet_nlt"]
    assert call("imagenet_nlt", raw, tmp_path / "a") == 0
    moves = {
        "ILSVRC2012": "ILSVRC/Data/CLS-LOC",
        "dataset_no_images/mini-imagenet": "mini-imagenet",
        "noisy_images": "mini-imagenet/all_images",
    }
    for old, new in moves.items():
        (raw / new).parent.mkdir(parents=True, exist_ok=True)
        (raw / old).rename(raw / new)
    split = raw / "mini-imagenet/split/red_noise_nl_0.8"
    split.rename(split.with_name("red_noise_nl_0.8.txt"))
    val = raw / "ILSVRC/Data/CLS-LOC/val"
    for file in list(val.iterdir()):  # as the usual script sorts it
        label = int(file.stem[-2:])
        (val / fake_nlt.SYNSETS[label]).mkdir(exist_ok=True)
        file.rename(val / fake_nlt.SYNSETS[label] / file.name)
    assert call("imagenet_nlt", raw, tmp_path / "b") == 0
    a, b = (
        manifests.read_manifest(tmp_path / name / "manifest.csv")
        for name in "ab"
    )
    last = [p.rpartition("/")[2] for p in a.paths]
    assert sorted(last) == sorted(p.rpartition("/")[2] for p in b.paths)
    np.testing.assert_array_equal(a.labels, b.labels)
    assert len(files(tmp_path / "b")["test.csv"].splitlines()) == 9


def test_animal_archive_inside_its_folder(raws, tmp_path):
    raw = raws["animal10_nlt"]
    inner = raw / "raw_image_ver" / "raw_image"
    inner.mkdir(parents=True)
    for name in ("training", "testing"):
        (raw / name).rename(inner / name)
    assert call("animal10_nlt", raw, tmp_path / "out") == 0


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
    manifest = manifests.read_manifest(out / "manifest.csv")
    assert np.bincount(manifest.labels).tolist() == [6, 6, 4, 3]
    found = {
        (f"{label:02d}", path.rpartition("/")[2].split(".")[0])
        for path, label in zip(manifest.paths, manifest.labels, strict=True)
    }
    wanted = {tuple(key.split(".")[0].split("/")[-2:]) for key in keys}
    assert found == wanted
    swaps = [s == "swap" for s in manifest.sources]
    assert sum(swaps) == 4 and manifest.sources.count("web") == 1
    labels, true = manifest.labels[swaps], manifest.true_labels[swaps]
    assert ((labels - true) % 4 == 1).all()
    assert "realised noise: 0.2632" in capsys.readouterr().out


def test_released_animal_file(kept, tmp_path):
    raw = kept["animal10_nlt"]
    names = sorted(p.name for p in (raw / "training").iterdir())[::3]
    flag = weights(
        tmp_path / "final_dict.json", [f"/d/LT/{n[0]}/{n}" for n in names]
    )
    assert call("animal10_nlt", raw, tmp_path / "out", flag) == 0
    manifest = manifests.read_manifest(tmp_path / "out" / "manifest.csv")
    assert sorted(p.split("/")[1] for p in manifest.paths) == names


ALL_ANIMALS = [f"/d/{k}/{k}_img_1553496000000.jpg" for k in range(10)]


@pytest.mark.parametrize(
    "content, words",
    [
        ("{", "not a JSON file"),
        ("[]", "must hold {path: weight}"),
        ('{"0": {"a": 1}}', "must hold {path: weight}"),
        ({"/d/0/0_img_1.jpg": 1}, "0_img_1.jpg: the raw folder holds no such"),
        ({"/d/1/0_img_1553496000000.jpg": 1}, "this image is 0, not 1"),
        ({"/d/x/0_img_1553496000000.jpg": 1}, "its folder names no class"),
        ({"/d/10/0_img_1553496000000.jpg": 1}, "its folder names no class"),
        ({"0_img_1553496000000.jpg": 1}, "its folder names no class"),
        (dict.fromkeys(ALL_ANIMALS[:9], 1), "class guinea pig has no image"),
        (
            dict.fromkeys([*ALL_ANIMALS, "/e" + ALL_ANIMALS[0]], 1),
            "is listed twice",
        ),
    ],
)
def test_damaged_released_files(content, words, kept, tmp_path, capsys):
    file = tmp_path / "final_dict.json"
    text = content if isinstance(content, str) else json.dumps(content)
    file.write_text(text)
    raw = kept["animal10_nlt"]
    line = refused("animal10_nlt", raw, tmp_path, capsys, f"--manifest={file}")
    assert line.startswith(f"{file}: ") and words in line


def test_folders_in_another_order_are_noticed(kept, tmp_path, capsys):
    keys = [
        f"/d/{(label + 1) % 4}/{synset}_{label}.jpg"
        for label, synset in enumerate(fake_nlt.SYNSETS)
    ]
    flag = weights(tmp_path / "final_dict.json", keys)
    raw = kept["imagenet_nlt"]
    line = refused("imagenet_nlt", raw, tmp_path, capsys, flag)
    assert "no image of class triceratops is of this class" in line


# Reading and training --------------------------------------------------------


@pytest.mark.parametrize(
    "line, words",
    [
        ("", "lists no image"),
        ("a.jpg,0,0", "line 2 is not"),
        (",0,0,web", "line 2 is not"),
        ("a.jpg,2,0,web", "line 2 is not a path, a label below 2"),
        ("a.jpg,0,-2,web", "line 2 is not"),
        ("a.jpg,0,0,me", "line 2 is not"),
    ],
)
def test_damaged_manifests_are_named(line, words, tmp_path):
    file = tmp_path / "manifest.csv"
    (tmp_path / "classes.txt").write_text("a\nb\n")
    file.write_text(f"path,label,true_label,source\n{line}\n" if line else "")
    if not line:
        with pytest.raises(UserError, match="first line must be path,label"):
            manifests.read_manifest(file)
        file.write_text("path,label,true_label,source\n")
    with pytest.raises(UserError, match=f"{file}: {words}"):
        manifests.read_manifest(file)
    (tmp_path / "classes.txt").unlink()
    with pytest.raises(UserError, match="classes.txt: No such file"):
        manifests.read_manifest(file)


def folder_config(raw, out):
    return runs.tiny(
        "erm",
        "folder",
        **{
            "data.path": str(raw),
            "data.labels_file": str(out / "labels.csv"),
            "data.image_size": 84,
            "epochs": 1,
            "max_steps": 1,
        },
    )


@pytest.mark.parametrize(
    "benchmark, more, noise",
    [
        ("imagenet_nlt", "--colour=blue --rate=0.2", True),
        ("imagenet_nlt", "--colour=red --rate=0.2", False),
        ("animal10_nlt", "", False),
        ("food101_nlt", "", False),
    ],
)
def test_labels_csv_is_read_as_folder(benchmark, more, noise, kept, tmp_path):
    """True labels are handed on where that benchmark can take them."""
    raw, out = kept[benchmark], tmp_path / "out"
    assert call(benchmark, raw, out, f"{more} --n_max=20 --imb=0.3") == 0
    source = user.folder(str(raw), str(out / "labels.csv"), 84)
    manifest = manifests.read_manifest(out / "manifest.csv")
    assert tuple(source.train.ids) == manifest.paths
    np.testing.assert_array_equal(source.train.labels, manifest.labels)
    classes = len(manifest.class_names)
    assert source.class_names == tuple(str(k) for k in range(classes))
    assert (source.train.true_labels is not None) == noise
    if noise:
        np.testing.assert_array_equal(
            source.train.true_labels, manifest.true_labels
        )


def test_labels_csv_trains(kept, tmp_path):
    raw, out = kept["imagenet_nlt"], tmp_path / "out"
    more = "--colour=blue --rate=0.2 --n_max=20 --imb=0.3"
    assert call("imagenet_nlt", raw, out, more) == 0
    train.run(folder_config(raw, out), str(tmp_path / "run"))
    found = json.loads((tmp_path / "run" / "dataset.json").read_text())
    manifest = manifests.read_manifest(out / "manifest.csv")
    assert found["image_shape"] == [84, 84, 3]
    # A tenth is held out, for the raw folder has no test/CLASS.
    held_out = np.bincount(manifest.labels) - found["given_counts"]
    assert (held_out >= 1).all() and (held_out <= 4).all()


def test_sizes_differ_in_the_miniature(kept):
    """Else image_size above would not be needed."""
    raw = kept["imagenet_nlt"]
    sizes = set()
    for file in (*raw.glob("noisy_images/*"), *raw.glob("ILSVRC2012/*/*.JPEG")):
        with Image.open(file) as image:
            sizes.add(image.size)
    assert len(sizes) == 2
