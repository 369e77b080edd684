"""Missing folders and files, wrong lines: every reader names them."""

import shutil

import pytest

from jaxnlt.data import registry
from jaxnlt.runtime.errors import Once, logger
from tests.data import fakes
from tests.data.readers.checks import append, refused

MINIATURES = {
    "webvision": "webvision",
    "animal10n": "animal_raw",
    "food101n": "food",
    "clothing1m": "clothing",
    "red_mini_imagenet": "red",
    "images": "images",
}
META = "Food-101N_release/meta"
SPLIT = "mini-imagenet/split"


GONE = {
    "webvision": """info/synsets.txt info/train_filelist_google.txt
        info/val_filelist.txt val_images_256 google/q0031""",
    "food101n": f"""{META}/classes.txt {META}/imagelist.tsv
        {META}/verified_train.tsv Food-101N_release/images/baklava
        food-101/meta/test.txt food-101/images/apple_pie""",
    "clothing1m": """noisy_train_key_list.txt clean_val_key_list.txt
        noisy_label_kv.txt images/1/05""",
    "animal10n": "testing",
    "red_mini_imagenet": f"""mini-imagenet/class_name.txt
        {SPLIT}/blue_noise_nl_0.0 {SPLIT}/red_noise_nl_0.8
        {SPLIT}/clean_validation mini-imagenet/validation""",
    "images": "train",
}


@pytest.mark.parametrize(
    "name, gone", [(name, p) for name in GONE for p in GONE[name].split()]
)
def test_missing(copy, name, gone):
    root = copy(MINIATURES[name])
    if (root / gone).is_dir():
        shutil.rmtree(root / gone)
    else:
        (root / gone).unlink()
    message = refused(name, root)
    assert gone.removeprefix("mini-imagenet/") in message
    assert "no such" in message.lower()


@pytest.mark.parametrize("name", MINIATURES)
def test_no_folder(name, tmp_path):
    assert refused(name, "").startswith("config.data.path: ")
    gone = tmp_path / "gone"
    assert refused(name, gone).startswith(f"config.data.path: {gone}: ")
    assert refused(name, tmp_path).startswith(str(tmp_path))


@pytest.mark.parametrize(
    "name, file, line",
    [
        ("webvision", "info/train_filelist_google.txt", "a.jpg 53"),
        ("webvision", "info/val_filelist.txt", "a.jpg"),
        ("webvision", "info/val_filelist.txt", "a.jpg -1"),
        ("clothing1m", "noisy_label_kv.txt", "images/a.jpg 14"),
        ("clothing1m", "clean_label_kv.txt", "images/a.jpg x"),
        ("food101n", f"{META}/imagelist.tsv", "soup/a.jpg"),
        ("food101n", f"{META}/verified_val.tsv", "baklava/a.jpg\t2"),
    ],
)
def test_wrong_line(copy, name, file, line):
    file = copy(MINIATURES[name]) / file
    number = append(file, line)
    root = next(p for p in file.parents if p.name == "copy")
    assert refused(name, root).startswith(f"{file}: line {number}: ")


def test_empty_list(copy):
    root = copy("clothing")
    file = root / "clean_test_key_list.txt"
    file.write_text("\n")
    assert refused("clothing1m", root).startswith(f"{file}: lists nothing")


def test_listed_twice(copy, caplog):
    """Two lists give two warnings in a run, though each is shown once."""
    root = copy("clothing")
    logger.addFilter(once := Once())
    try:
        for kind in ("noisy", "clean"):
            file = root / f"{kind}_label_kv.txt"
            other = file.read_text().replace(" 0\n", " 1\n")
            file.write_text(file.read_text() + other)
        source = fakes.read("clothing1m", root)
    finally:
        logger.removeFilter(once)
    assert caplog.text.count("more than once") == 2
    assert source.train.labels[0] == 0


def test_every_reader_of_files_has_a_homepage():
    streamed = [b for b in registry.BENCHMARKS.values() if b.transform]
    assert [b.name for b in streamed if not b.homepage] == ["images"]
