"""Unreadable images: found before training, refused or left out."""

import csv
import logging

import numpy as np
import pytest

from jaxnlt import train
from jaxnlt.data import check, load, readable, streaming
from jaxnlt.data.decode import BadImage
from jaxnlt.methods import h2e
from jaxnlt.predict import main, read_run
from jaxnlt.runtime.errors import UserError
from tests import runs
from tests.data.streamed import CLASSES, PER_CLASS, configuration, write_folder

BAD = ("train/class0/03.png", "train/class1/02.png", "test/class2/01.png")
LEFT = CLASSES * PER_CLASS - 2


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("bad"), bad=BAD)


def configured(root, benchmark="images", on_bad_image="skip", **fields):
    fields["data.on_bad_image"] = on_bad_image
    if benchmark == "images":
        return configuration("erm", root, **fields)
    return runs.tiny("erm", "folder", **{"data.path": str(root)} | fields)


@pytest.mark.parametrize("benchmark", ["images", "folder"])
def test_all_unreadable_images_are_named(benchmark, damaged):
    config = configured(damaged, benchmark, "stop")
    with pytest.raises(BadImage) as error:
        load.dataset(config)
    first, *others = (f"{damaged}/{name}" for name in BAD)
    text = str(error.value)
    assert text.startswith(f"{first}: unreadable image")
    assert all(name in text for name in others) and "\n" not in text
    assert "on_bad_image=skip" in text and "jaxnlt.data.check" in text


@pytest.mark.parametrize("benchmark", ["images", "folder"])
def test_skipped_images_are_as_if_they_were_not_there(
    benchmark, damaged, tmp_path, caplog
):
    caplog.set_level(logging.WARNING, "jaxnlt")
    fields = {"data.imb": 0.5, "data.noise": "sym_count", "data.rate": 0.3}
    found = load.dataset(configured(damaged, benchmark, **fields))
    said = [r.getMessage() for r in caplog.records if r.name == "jaxnlt"]
    assert [text.split(": ")[0] for text in said if "; skipped" in text] == [
        f"{damaged}/{name}" for name in BAD
    ]
    whole = write_folder(tmp_path)
    for name in BAD:
        (whole / name).unlink()
    other = load.dataset(configured(whole, benchmark, **fields))
    for one, two in ((found.train, other.train), (found.test, other.test)):
        assert one.ids.tolist() == two.ids.tolist()
        np.testing.assert_array_equal(one.labels, two.labels)
    assert found.unreadable.ids.tolist() == list(BAD[:2])
    assert found.unreadable.labels.tolist() == [0, 1]
    assert found.description.as_json()["n_unreadable"] == 3
    assert other.unreadable is None
    assert "n_unreadable" not in other.description.as_json()


def test_a_class_needs_an_image_that_can_be_read(tmp_path):
    names = [f"train/class1/{i:02}.png" for i in range(PER_CLASS)]
    root = write_folder(tmp_path, bad=names)
    with pytest.raises(UserError, match="unreadable images: class class1 has"):
        load.dataset(configured(root))


def test_large_sets_are_read_through_only_to_skip(damaged, monkeypatch):
    monkeypatch.setattr(readable, "CHECKED", 41)
    found = load.dataset(configured(damaged, on_bad_image="stop"))
    assert len(found.train) == LEFT + 2
    assert len(load.dataset(configured(damaged)).train) == LEFT


# A run -----------------------------------------------------------------------


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(damaged, tmp_path_factory):
    """A run that skips, in which further files are lost."""
    lost = {"train/class2/05.png": b"", "test/class0/00.png": b""}
    config = configured(damaged, epochs=2, max_steps=2)
    hold, kept = streaming.hold, {}

    def lose(*args):
        for name, content in lost.items():
            kept.setdefault(name, (damaged / name).read_bytes())
            (damaged / name).write_bytes(content)
        return hold(*args)

    workdir = tmp_path_factory.mktemp("runs") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(streaming, "hold", lose)
        summary = train.run(config, workdir)
    for name, content in kept.items():
        (damaged / name).write_bytes(content)
    return config, workdir, summary


def test_an_unreadable_image_has_no_scores(finished, damaged):
    _, workdir, summary = finished
    rows = table(workdir / "labels.csv")
    assert len(rows) == LEFT + 2
    unread = [row for row in rows if row["predicted_label"] == "unreadable"]
    assert rows[-3:] == unread
    assert {row["path"] for row in unread} == {*BAD[:2], "train/class2/05.png"}
    for row in unread:
        assert row["clean_probability"] == ""
        assert row["suggested_label"] == row["given_label"]
    for row in rows[:-3]:
        assert 0 <= float(row["clean_probability"]) <= 1
    # Of 12 test images one was left out, one lost.
    right = summary["last_test_accuracy"] * 10
    assert right == pytest.approx(round(right))
    assert [r["bad_images"] >= 4 for r in runs.records(workdir)] == [True] * 2
    ids = np.array([row["path"] for row in rows[:-3]])
    given = np.array([int(row["given_index"]) for row in rows[:-3]])
    scores = h2e.read_scores(str(workdir / "labels.csv"), ids, given)
    assert np.isfinite(scores).all()
    with pytest.raises(UserError, match="lacks the training image train/cl"):
        h2e.read_scores(
            str(workdir / "labels.csv"), np.array(BAD[:1]), given[:1]
        )


def test_one_bad_file_does_not_end_a_prediction(
    finished, damaged, tmp_path, caplog
):
    _, workdir, _ = finished
    out, images = tmp_path / "out.csv", damaged / "test" / "class2"
    argv = f"predict --workdir={workdir} --images={images} --out={out}"
    assert main(argv.split()) == 0
    rows = table(out)
    assert [r["path"] for r in rows] == [f"{i:02}.png" for i in range(4)]
    assert (rows[1]["predicted_label"], rows[1]["confidence"]) == (
        "unreadable",
        "",
    )
    assert all(r["predicted_label"] in names_of(workdir) for r in rows[::2])
    (text,) = [r.getMessage() for r in caplog.records if r.levelno > 20]
    assert text.startswith(f"{images}/01.png: unreadable image")
    assert text.endswith("; of 4 images 1 cannot be read")


def names_of(workdir):
    return read_run(workdir)[1].class_names


# The command -----------------------------------------------------------------


def test_the_check_lists_what_a_run_would_meet(damaged, tmp_path, capsys):
    root = write_folder(tmp_path)
    text = "train/class0/00.png"
    (root / "train/class1/zero.png").write_bytes((root / text).read_bytes())
    (root / "test/class2/zero.png").write_bytes(
        (root / "train/class2/04.png").read_bytes()
    )
    for name in BAD[:2]:
        (root / name).write_bytes(b"")
    assert check.main(["check", f"--path={root}"]) == 2
    out, err = capsys.readouterr()
    assert err == (
        f"jaxnlt: error: {root}: unreadable images: 2; training images that "
        "are test images: 1; all are listed\n"
    )
    for line in (
        f"{root}: 31 train, 13 test images, 3 classes",
        "images that cannot be read: 2",
        *(f"  {root}/{name}: empty file, not an image" for name in BAD[:2]),
        "classes with fewer than 10 training images: 1",
        "  class0: 9",
        "sizes: 8x8 (42)",
        "modes: RGB (42)",
        "turned by EXIF: none",
        f"  {text} = train/class1/zero.png (labelled differently: class0, "
        "class1)",
        "training images that are test images: 1",
        "  train/class2/04.png = test test/class2/zero.png",
    ):
        assert line in out.splitlines(), line


@pytest.mark.parametrize(
    "arguments, status, words",
    [
        ("--config=erm:digits", 0, "sizes: 8x8 (1,797)"),
        ("--config=erm:folder --config.data.path={root}", 0, "30 train"),
        ("--path={root} --labels_file={root}/no.csv", 2, "no.csv: no such"),
        ("--path={root}/no", 2, "no such folder"),
        ("", 2, "--path: is missing"),
        ("--help", 0, "usage: "),
    ],
)
def test_the_check_takes_what_main_takes(
    arguments, status, words, tmp_path, capsys
):
    root = write_folder(tmp_path)
    argv = ["check", *arguments.format(root=root).split()]
    assert check.main(argv) == status
    out, err = capsys.readouterr()
    notes = [n for n in err.splitlines() if not n.startswith("jaxnlt: note")]
    assert words in out + err and len(notes) == (status == 2)
