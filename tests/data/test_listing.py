"""Which files of a folder are images."""

import os
import pathlib

import pytest

from jaxnlt.data import listing
from jaxnlt.data.readers import lists
from jaxnlt.predict import find_images
from jaxnlt.runtime.errors import UserError
from tests.data import fakes
from tests.data.readers.test_folder import picture


@pytest.fixture
def root(tmp_path):
    for name in "ab":
        for i in range(2):
            picture(tmp_path / "train" / name / f"{i}.png")
    return tmp_path


def test_hidden_files_and_those_of_systems_are_passed_over(root, caplog):
    place = root / "train" / "a"
    for name in (".ipynb_checkpoints", "x/.git/y", "x/__MACOSX", "@eaDir"):
        picture(place / name / "c.png")
    for name in (".0.png", "Thumbs.db", "x/desktop.ini", "x/.DS_Store"):
        (place / name).write_text("x")
    picture(place / "x" / "3.PNG")
    for benchmark in ("folder", "images"):
        train = fakes.read(benchmark, root).train
        assert train.ids.tolist() == [
            f"train/{name}"
            for name in ("a/0.png", "a/1.png", "a/x/3.PNG", "b/0.png")
        ] + ["train/b/1.png"]
    assert find_images(place, (4, 5, 3)).ids == [
        "0.png",
        "1.png",
        "x/3.PNG",
    ]
    assert not caplog.records


def test_links_are_followed_once(root):
    place, more = root / "train" / "a", root / "more"
    for name in ("m.png", "n.jpg", "deep/o.png"):
        picture(more / name)
    picture(root / "alone.png")
    for name, target in {
        "more": more,
        "again": more / "deep",
        "loop": ".",
        "up": "..",
        "self": "self",
        "alone.png": root / "alone.png",
        "0-again.png": "0.png",
        "dead.png": "nowhere",
    }.items():
        (place / name).symlink_to(target)
    (more / "back").symlink_to(place)
    found = listing.find(place)
    # Of two links to one place the first by name stays.
    assert found.images == [
        "0.png",
        "1.png",
        "again/o.png",
        "alone.png",
        "dead.png",
        "more/m.png",
        "more/n.jpg",
    ]
    assert (found.others, found.dead) == ([], ["self"])
    assert lists.jpegs(place) == [place / "more" / "n.jpg"]


def test_what_is_left_out_is_said(root, caplog):
    picture(root / "train" / "loose.png")
    (root / "train" / "a" / "gone").symlink_to("nowhere")
    (root / "train" / "b" / "notes.txt").touch()
    fakes.read("folder", root)
    assert [r.getMessage().split("train: ", 1)[1] for r in caplog.records] == [
        "1 files lie in no class folder and are left out, the first is "
        f"{root}/train/loose.png",
        "1 files are no images by their names and are left out, the first is "
        f"{root}/train/b/notes.txt",
        "1 files are links that lead nowhere and are left out, the first is "
        f"{root}/train/a/gone",
    ]
    (root / "train" / "c").symlink_to("nowhere")
    with pytest.raises(UserError, match="train/c: link that leads nowhere"):
        fakes.read("folder", root)


@pytest.mark.parametrize("place", ["train/a/{}.png", "train/a/{}", "train/{}"])
def test_names_that_are_not_utf8_are_refused_when_listed(root, place):
    path = root / place.format(os.fsdecode(b"caf\xe9"))
    picture(path if path.suffix else path / "0.png")
    for read in (
        lambda: fakes.read("folder", root),
        lambda: fakes.read("images", root),
        lambda: find_images(root, (4, 5, 3)),
    ):
        with pytest.raises(UserError, match=r"caf\\xe9.*: the name is not UTF"):
            read()


def test_a_folder_that_cannot_be_listed_is_named(root, monkeypatch):
    def refuse(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=f"^{root}: Permission denied"):
        listing.find(pathlib.Path(root))
