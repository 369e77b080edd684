"""What the builder refuses: a line each, and nothing is left behind."""

import os
import shutil
from unittest import mock

import pytest

from jaxnlt.data.nlt import build
from tests.data.fake_nlt import call, refused

CNWL = "dataset_no_images/mini-imagenet"
RED = f"{CNWL}/split/red_noise_nl_0.8"
VALIDATION = f"{CNWL}/split/clean_validation"


@pytest.mark.parametrize(
    "benchmark, path",
    [
        ("imagenet_nlt", f"{CNWL}/class_name.txt"),
        ("imagenet_nlt", RED),
        ("imagenet_nlt", VALIDATION),
        ("imagenet_nlt", "noisy_images"),
        ("imagenet_nlt", "ILSVRC2012/train"),
        ("imagenet_nlt", "ILSVRC2012/train/n02101006"),
        ("imagenet_nlt", "ILSVRC2012/val"),
        ("imagenet_nlt", "ILSVRC2012/val/ILSVRC2012_val_00000002.JPEG"),
        ("animal10_nlt", "training"),
        ("food101_nlt", "Food-101N_release/images"),
        ("food101_nlt", "food-101/images/baklava/1001.jpg"),
    ],
)
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
        ("imagenet_nlt", VALIDATION, "a.jpg", "line 1"),
        ("imagenet_nlt", VALIDATION, "a.jpg 4", "label"),
        ("imagenet_nlt", RED, "", "nothing"),
        ("imagenet_nlt", RED, "n0170432300000001.jpg 0", "class upright piano"),
        ("food101_nlt", "food-101/meta/test.txt", "pizza/1", "line 1"),
        ("food101_nlt", "Food-101N_release/meta/classes.txt", "\xff", "UTF-8"),
    ],
)
def test_damaged_lists_are_named(
    benchmark, path, content, words, raws, tmp_path, capsys
):
    (raws[benchmark] / path).write_bytes(content.encode("latin1"))
    line = refused(benchmark, raws[benchmark], tmp_path, capsys)
    assert line.startswith(f"{raws[benchmark] / path}: ") and words in line


@pytest.mark.parametrize(
    "benchmark, path, damage",
    [
        ("imagenet_nlt", "ILSVRC2012/val/ILSVRC2012_val_00000000.JPEG", "cut"),
        ("animal10_nlt", "testing/0_img_1553497000000.jpg", "empty"),
        ("animal10_nlt", "training/0_img_1553496000000.jpg", "empty"),
        ("food101_nlt", "food-101/images/baklava/1001.jpg", "text"),
    ],
)
def test_damaged_images_are_named(
    benchmark, path, damage, raws, tmp_path, capsys
):
    file = raws[benchmark] / path
    whole = file.read_bytes()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"x" * 99}
    file.write_bytes(content[damage])
    # All 20 of the head are drawn.
    line = refused(benchmark, raws[benchmark], tmp_path, capsys)
    reason = "empty file" if damage == "empty" else "unreadable image"
    assert line.startswith(f"{file}: {reason}")


@pytest.mark.parametrize(
    "benchmark, more, words",
    [
        ("imagenet_nlt", "--rate=0.1", "--colour: "),
        ("imagenet_nlt", "--colour=red", "--rate: "),
        ("imagenet_nlt", "--colour=green --rate=0.1", "--colour: 'green'"),
        ("imagenet_nlt", "--colour=red --rate=1", "--rate: must be in [0, 1)"),
        ("imagenet_nlt", "--colour=red --rate=nan", "--rate: "),
        ("animal10_nlt", "--rate=0.1", "--rate: "),
        ("animal10_nlt", "--imb=0", "--imb: must be in (0, 1]"),
        ("animal10_nlt", "--n_max=0", "--n_max: "),
        ("animal10_nlt", "--seed=-1", "--seed: "),
        ("animal10_nlt", "", "class cat: has 20 raw images"),
        ("food101_nlt", "", "--n_max: "),
        ("food101_nlt", "--manifest=x --seed=1", "--seed: "),
        ("imagenet", "", "--benchmark: 'imagenet'"),
        ("animal10_nlt", "--raw=/nowhere", "--raw: /nowhere: "),
        ("animal10_nlt", "--raw=", "--raw: "),
        ("animal10_nlt", "--out=/nowhere/a", "--out: /nowhere: "),
    ],
)
def test_mistaken_flags(benchmark, more, words, kept, tmp_path, capsys):
    raw = kept.get(benchmark, tmp_path)
    assert refused(benchmark, raw, tmp_path, capsys, more).startswith(words)


def test_a_folder_in_use_stays(kept, tmp_path, capsys):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine").write_text("x")
    line = refused("animal10_nlt", kept["animal10_nlt"], tmp_path, capsys)
    assert line.startswith(f"--out: {out}: ")
    (out / "mine").unlink()
    assert call("animal10_nlt", kept["animal10_nlt"], out) == 0


def test_writing_that_fails_leaves_nothing(kept, tmp_path, capsys, monkeypatch):
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(os, "replace", full)
    line = refused("animal10_nlt", kept["animal10_nlt"], tmp_path, capsys)
    assert line.startswith("--out: ") and "No space left" in line


def test_help(capsys):
    assert build.main(["build_nlt", "--help"]) == 0
    text = capsys.readouterr().out
    for name in ("benchmark", "raw", "out", "manifest", *build._DRAWN_BY):
        assert f"--{name} " in text
    assert max(map(len, text.split("\n"))) <= 80
