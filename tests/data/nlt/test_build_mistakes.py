"""What the builder refuses: a line each, and nothing is left behind."""

import shutil

import pytest

from jaxnlt.data.nlt import build, manifest
from tests.data import fake_nlt
from tests.data.nlt_builds import LAYOUTS, call, refused

CNWL = "dataset_no_images/mini-imagenet"
MISSING = [
    ("imagenet_nlt", f"{CNWL}/class_name.txt"),
    ("imagenet_nlt", f"{CNWL}/split/red_noise_nl_0.8"),
    ("imagenet_nlt", f"{CNWL}/split/clean_validation"),
    ("imagenet_nlt", "noisy_images"),
    ("imagenet_nlt", "ILSVRC2012/train"),
    ("imagenet_nlt", "ILSVRC2012/train/n02101006"),
    ("imagenet_nlt", "ILSVRC2012/val"),
    ("imagenet_nlt", "ILSVRC2012/val/ILSVRC2012_val_00000002.JPEG"),
    ("animal10_nlt", "training"),
    ("animal10_nlt", "testing"),
    ("food101_nlt", "Food-101N_release/meta/classes.txt"),
    ("food101_nlt", "Food-101N_release/meta/imagelist.tsv"),
    ("food101_nlt", "Food-101N_release/meta/verified_train.tsv"),
    ("food101_nlt", "Food-101N_release/meta/verified_val.tsv"),
    ("food101_nlt", "Food-101N_release/images"),
    ("food101_nlt", "food-101/meta/test.txt"),
    ("food101_nlt", "food-101/images/baklava/1001.jpg"),
]


@pytest.mark.parametrize("benchmark, path", MISSING)
def test_missing_files_are_named(benchmark, path, raws, tmp_path, capsys):
    raw = raws[benchmark]
    if (raw / path).is_dir():
        shutil.rmtree(raw / path)
    else:
        (raw / path).unlink()
    line = refused(benchmark, raw, tmp_path, capsys)
    assert line.startswith(str((raw / path).with_suffix("")))
    assert "no such" in line.lower()


@pytest.mark.parametrize(
    "benchmark, path, content, words",
    [
        ("imagenet_nlt", f"{CNWL}/split/clean_validation", "a.jpg", "line 1"),
        ("imagenet_nlt", f"{CNWL}/split/clean_validation", "a.jpg 4", "4 has"),
        ("imagenet_nlt", f"{CNWL}/split/red_noise_nl_0.8", "", "nothing"),
        (
            "imagenet_nlt",
            f"{CNWL}/split/red_noise_nl_0.8",
            "n0170432300000001.jpg 0",
            "class upright piano must have clean images of one synset, has no",
        ),
        ("food101_nlt", "food-101/meta/test.txt", "pizza/1", "line 1"),
        (
            "food101_nlt",
            "Food-101N_release/meta/imagelist.tsv",
            "head\napple_pie",
            "line 2",
        ),
        (
            "food101_nlt",
            "Food-101N_release/meta/verified_val.tsv",
            "head\napple_pie/1.jpg\t2",
            "line 2",
        ),
        ("food101_nlt", "Food-101N_release/meta/classes.txt", "\xff", "UTF-8"),
    ],
)
def test_damaged_lists_are_named(
    benchmark, path, content, words, raws, tmp_path, capsys
):
    (raws[benchmark] / path).write_bytes(content.encode("latin1"))
    line = refused(benchmark, raws[benchmark], tmp_path, capsys)
    assert line.startswith(f"{raws[benchmark] / path}: ") and words in line


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
@pytest.mark.parametrize("benchmark", LAYOUTS)
@pytest.mark.parametrize("part", ["manifest.csv", "test.csv"])
def test_damaged_images_are_named(
    benchmark, part, damage, raws, tmp_path, capsys
):
    raw, out = raws[benchmark], tmp_path / "first"
    assert call(benchmark, raw, out) == 0
    capsys.readouterr()
    file = raw / manifest.read_manifest(out / part).paths[-1]
    whole = file.read_bytes()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"x" * 99}
    file.write_bytes(content[damage])
    line = refused(benchmark, raw, tmp_path, capsys)
    assert line.startswith(f"{file}: unreadable image")


def test_an_animal_without_label_is_named(raws, tmp_path, capsys):
    file = raws["animal10_nlt"] / "training" / "cat.jpg"
    fake_nlt.jpeg(file, 0)
    line = refused("animal10_nlt", raws["animal10_nlt"], tmp_path, capsys)
    assert line.startswith(f"{file}: its name does not start with a label")


@pytest.mark.parametrize(
    "benchmark, more, words",
    [
        ("imagenet_nlt", "--rate=0.1", "--colour: is missing"),
        ("imagenet_nlt", "--colour=red", "--rate: is missing"),
        ("imagenet_nlt", "--colour=green --rate=0.1", "--colour: 'green' is"),
        ("imagenet_nlt", "--colour=red --rate=1", "--rate: must lie in [0, 1)"),
        ("imagenet_nlt", "--colour=red --rate=nan", "--rate: must lie in"),
        ("imagenet_nlt", "--colour=red --rate=x", "--rate: expects"),
        ("animal10_nlt", "--rate=0.1", "--rate: animal10_nlt has the noise"),
        ("animal10_nlt", "--imb=0", "--imb: must lie in (0, 1]"),
        ("animal10_nlt", "--n_max=0", "--n_max: must be positive"),
        ("animal10_nlt", "--seed=-1", "--seed: must be >= 0"),
        ("animal10_nlt", "--size=3", "--size: unknown flag"),
        ("animal10_nlt", "", "class cat: has 20 raw images, 5000 are needed"),
        ("food101_nlt", "", "--n_max: is missing; H2E does not say"),
        ("food101_nlt", "--manifest=x --seed=1", "--seed: has no place"),
        ("imagenet", "", "--benchmark: 'imagenet' is not one of imagenet_nlt"),
        ("animal10_nlt", "--raw=/nowhere", "--raw: /nowhere: no such folder"),
        ("animal10_nlt", "--raw=", "--raw: is missing"),
        ("animal10_nlt", "--out=/nowhere/a", "--out: /nowhere: no such folder"),
    ],
)
def test_mistaken_flags(benchmark, more, words, kept, tmp_path, capsys):
    raw = kept.get(benchmark, tmp_path)
    assert refused(benchmark, raw, tmp_path, capsys, more).startswith(words)


def test_a_folder_in_use_stays(kept, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("x")
    line = refused("animal10_nlt", kept["animal10_nlt"], tmp_path, capsys)
    assert "out: exists already" in line
    (tmp_path / "out" / "mine").unlink()
    assert call("animal10_nlt", kept["animal10_nlt"], tmp_path / "out") == 0


def test_writing_that_fails_leaves_nothing(kept, tmp_path, capsys, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(manifest.os, "replace", full)
    line = refused("animal10_nlt", kept["animal10_nlt"], tmp_path, capsys)
    assert line.startswith("--out: ") and "No space left" in line


def test_help(capsys):
    assert build.main(["build_nlt", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("benchmark", "raw", "out", "manifest", *build._DRAWN_BY):
        assert f"--{name} " in text
    assert max(map(len, text.split("\n"))) <= 80
