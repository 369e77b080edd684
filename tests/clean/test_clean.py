"""Cleaned copies: what they hold, what is refused, and the way back."""

import csv
import os
import re

import numpy as np
import pytest

from jaxnlt import clean
from jaxnlt.clean import copies
from jaxnlt.data import load
from tests.clean import fake_runs
from tests.data import fakes

# One name that a spreadsheet would run, and one that no folder can have.
ODD = "=odd <b>"
NAMES = ("cat", "dog", ODD)
NEXT = dict(zip(NAMES, [*NAMES[1:], NAMES[0]], strict=True))


def rows_of(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def at(tmp_path, monkeypatch):
    """The current folder, with a run on a folder of 3 x 6 images."""
    monkeypatch.chdir(tmp_path)
    rows = []
    for c in NAMES:
        for k in range(6):
            path = f"train/{c}/{k}.png"
            fake_runs.picture(tmp_path / "photos" / path, k)
            kind = {0: "mislabelled", 1: "mislabelled", 2: "ambiguous"}
            rows.append((path, c, NEXT[c], kind.get(k, "")))
        fake_runs.picture(tmp_path / "photos" / "test" / c / "0.png", 77)
    rows.sort(key=lambda row: row[3] == "")
    # Files of an unusual name are written, and broken ones are not copied.
    fake_runs.picture(tmp_path / "photos" / "train" / "cat" / 'a "b", ü.png', 9)
    rows.append(('train/cat/a "b", ü.png', "cat", "cat", ""))
    (tmp_path / "photos" / "train" / "dog" / "bad.png").write_bytes(b"no")
    rows.append(("train/dog/bad.png", "dog", "", "unreadable"))
    fake_runs.write(tmp_path / "run", "folder", "photos", NAMES, rows)
    return tmp_path


def cleaned(*flags):
    return clean.main(["clean", "--workdir=run", *flags])


def listed(folder, part="train"):
    """Pixel values (class, shade) that the reader sees in a copy."""
    source = fakes.read("folder", folder)
    split = source.splits[part]
    names = [source.class_names[k] for k in split.labels]
    return sorted(zip(names, split.images[:, 0, 0, 0].tolist(), strict=True))


def before():
    return sorted(
        [(c, k) for c in NAMES for k in range(6)] + [("cat", 9)],
    )


@pytest.mark.parametrize("action", ["drop", "relabel"])
def test_a_folder_is_cleaned_and_trains(at, action, capsys):
    inode = os.stat(at / "photos/train/cat/3.png").st_ino
    assert cleaned("--out=out", f"--action={action}") == 0
    out, err = capsys.readouterr()
    if action == "drop":
        want = [pair for pair in before() if pair[1] > 2]
        assert err == "" and "10 dropped, 0 changed" in out
    else:
        want = sorted((NEXT[c] if k < 2 else c, k) for c, k in before())
        assert "3 flagged labels keep their class" in err
        assert "1 dropped, 6 changed" in out
    assert "--config=erm:folder --config.data.path=out" in out
    assert listed("out") == want
    assert listed("out", "test") == sorted((c, 77) for c in NAMES)
    assert os.stat(at / "out/train/cat/3.png").st_ino == inode
    # The list says the same as the folders.
    by_list = fakes.read("folder", "out", labels_file="out/labels.csv")
    assert len(by_list.train) == len(want)
    for row in rows_of(at / "out/labels.csv"):
        assert (at / "photos" / row["original_path"]).read_bytes() == (
            at / "out" / row["path"]
        ).read_bytes()
    assert {row["action"] for row in rows_of(at / "out/changes.csv")} >= {
        action
    }
    assert not list(at.glob("*.tmp"))


@pytest.mark.parametrize("way", ["copy", "symlink", "fallback"])
def test_files_are_placed_in_another_way(at, way, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(18, "Invalid cross-device link")

    if way != "copy":
        monkeypatch.setattr(os, "link", refuse)
    if way == "fallback":
        monkeypatch.setattr(os, "symlink", refuse)
    assert cleaned("--out=out", *["--copy"] * (way == "copy")) == 0
    file = at / "out/train/cat/3.png"
    assert file.is_symlink() == (way == "symlink")
    assert os.stat(file).st_nlink == 1
    words = "links" if way == "symlink" else "copies"
    assert f"out holds {words};" in capsys.readouterr().out
    assert len(listed("out")) == 10


def test_classes_that_no_folder_can_be_called_by():
    names = ("a/b", ".hidden", "n" * 300)
    folders = copies._Names([*names, "class 1"])
    used = [folders.of("train", n, f"train/x/{n[:5]}.png") for n in names]
    assert used[:2] == ["train/class_ 0/a/b.png", "train/class_ 1/_.hidd.png"]
    # Upper and lower case are one name for some file systems.
    of = [folders.of("test", "class 1", p) for p in ("../A.png", "/a.png")]
    assert of == ["test/class 1/A.png", "test/class 1/a (2).png"]


def test_at_most_a_share_of_a_class_changes(at, capsys):
    assert cleaned("--out=out", "--max_share_per_class=0.3") == 0
    err = capsys.readouterr().err
    # Of 7 images each of cat and dog 2, of 6 one, the worst first.
    assert err.startswith("jaxnlt: warning: run/labels.csv: 4 flagged labels")
    assert err.count("\n") == 1 and "--max_share_per_class" in err
    gone = {(c, k) for c, k in before()} - set(listed("out"))
    assert gone == {("cat", 0), ("cat", 1), ("dog", 0), ("dog", 1)} | {
        (NAMES[2], 0)
    }


def test_changes_are_undone(at):
    """A row that is deleted from changes.csv is a change that is not made."""
    assert cleaned("--out=out", "--action=relabel") == 0
    lines = (at / "out/changes.csv").read_text().splitlines()
    assert len(lines) == 8
    left = [line for line in lines if "train/cat/" not in line]
    # As spreadsheets on Windows write it.
    text = "\ufeff" + "\r\n".join(left)
    (at / "edited.csv").write_text(text, newline="")
    assert cleaned("--out=again", "--review=edited.csv") == 0
    assert listed("again") == sorted(
        (NEXT[c] if k < 2 and c != "cat" else c, k) for c, k in before()
    )


ALL = "--max_share_per_class=1"
REVIEW = "path,given_label,label,action\n"


@pytest.mark.parametrize(
    "text, match",
    [
        ("path,label\na,b\n", "holds no decisions"),
        (REVIEW + "train/cat/0.png,cat,dog,move\n", "row 2 .*'move'"),
        (REVIEW + "train/cat/0.png,cat,cow,relabel\n", "row 2 .*'cow' is no"),
        (REVIEW + "train/cat/0.png,cat,dog,keep\n", "row 2 .*keeps 'cat'"),
        (REVIEW + "train/cat/0.png,cat,,relabel\n", "row 2 .*has no label"),
        (REVIEW + "train/cat/0.png,,,drop\n", "row 2 .*no given_label"),
        (REVIEW + ",cat,,drop\n", "row 2 has no path"),
        (REVIEW + "train/cat/0.png,dog,,drop\n", "row 2 .*image's is 'cat'"),
        (REVIEW + "train/cat/99.png,cat,,drop\n", "row 2 .*none of the 20"),
        (REVIEW + "train/cat/0.png,cat,,drop\n" * 2, "row 3 repeats .* row 2"),
        (
            REVIEW
            + "".join(f"train/{ODD}/{k}.png,'{ODD},,drop\n" for k in range(6)),
            "class =odd <b> would be left without .*keep one",
        ),
    ],
)
def test_wrong_decisions_are_one_line(at, text, match, capsys):
    (at / "r.csv").write_text(text)
    fault(match, capsys, "--out=out", "--review=r.csv")


def fault(match, capsys, *flags):
    there = set(os.listdir())
    assert cleaned(*flags) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert re.match(f"jaxnlt: error: .*{match}", err), err
    assert set(os.listdir()) == there


@pytest.mark.parametrize(
    "flags, match",
    [
        ([], "--out: is missing"),
        (["--out=photos/out"], "--out: .*lies in the data"),
        (["--out=run"], "--out: run: is not empty"),
        (["--out=run/config.json"], "--out: .*no folder"),
        (["--out=no/out"], "--out: no.*: no such folder"),
        (["--out=o", "--action=burn"], "--action: 'burn'"),
        (["--out=o", "--max_share_per_class=1.5"], "--max_share_per_class"),
        (["--out=o", "--max_share_per_class=nan"], "--max_share_per_class"),
        (["--out=o", "--action=review", "--most=0"], "--most"),
        (["--out=o", "--most=3"], "--most: is not used"),
        (["--out=o", "--review=r", "--action=drop"], "--action: is not used"),
        (["--out=o", "--review=r.csv"], "--review: r.csv: no such file"),
        (["--out=o", "--data=gone"], "--data: gone: is not there"),
        (["--out=o", "--workdir=photos"], "photos: holds no run"),
    ],
)
def test_wrong_flags_are_one_line(at, flags, match, capsys):
    fault(match, capsys, *flags)


def test_what_lies_in_the_way_is_named(at, capsys):
    (at / "out.tmp").mkdir()
    fault("--out: .*out.tmp: is there", capsys, "--out=out")
    (at / "out.tmp").rmdir()
    text = (at / "run/labels.csv").read_text()
    (at / "run/labels.csv").write_text(text.replace("train/cat/5", "train/x"))
    fault("labels.csv: train/x.png: is no training", capsys, "--out=out")
    (at / "run/labels.csv").unlink()
    fault("labels.csv: no such file", capsys, "--out=out")


def test_moved_data_are_named(at):
    os.rename("photos", "moved")
    assert cleaned("--out=out", "--data=moved") == 0
    assert len(listed("out")) == 10


def npz_run(at, **arrays):
    """A run on 12 rows in an npz file, two of each class flagged."""
    labels = np.arange(12) % 3
    images = np.arange(12, dtype=np.uint8)[:, None, None, None]
    images = np.broadcast_to(images, (12, 8, 8, 1))
    data = {"train_images": images, "train_labels": labels} | arrays
    np.savez(at / "data.npz", **data)
    rows = [
        (k, str(k % 3), str((k + 1) % 3), "mislabelled" if k < 6 else "")
        for k in range(12)
    ]
    return fake_runs.write(
        at / "run", "npz", "data.npz", "012", rows, key="index"
    )


@pytest.mark.parametrize("action", ["drop", "relabel"])
def test_an_npz_is_cleaned(tmp_path, action, monkeypatch):
    monkeypatch.chdir(tmp_path)
    test = {"test_images": np.ones((3, 8, 8, 1), np.uint8)}
    test["test_labels"] = np.arange(3)
    test["train_true_labels"] = (np.arange(12) + (np.arange(12) < 6)) % 3
    test["train_scores"] = np.arange(24.0).reshape(12, 2)
    npz_run(tmp_path, **test)
    assert cleaned("--out=out", f"--action={action}") == 0
    found = np.load(tmp_path / "out/data.npz")
    rows = np.arange(6, 12) if action == "drop" else np.arange(12)
    want = test["train_true_labels"][rows]
    assert found["train_labels"].tolist() == want.tolist()
    assert found["train_true_labels"].tolist() == want.tolist()
    assert found["train_images"][:, 0, 0, 0].tolist() == rows.tolist()
    assert found["train_scores"][:, 0].tolist() == (2 * rows).tolist()
    assert found["test_labels"].tolist() == [0, 1, 2]
    listed = rows_of(tmp_path / "out/labels.csv")
    assert [int(row["index"]) for row in listed] == rows.tolist()
    assert len(fakes.read("npz", tmp_path / "out/data.npz").train) == len(rows)


def test_labels_that_are_more_likely_right_stay(tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    npz_run(tmp_path)
    file = tmp_path / "run/labels.csv"
    rows = list(csv.reader(file.open(newline="")))
    at = rows[0].index("clean_probability")
    flagged = [row for row in rows if row[2] == "True"]
    flagged[0][at] = "0.6"
    with file.open("w", newline="") as out:
        csv.writer(out).writerows(rows)
    assert cleaned("--out=out", ALL) == 0
    gone = len(rows_of(tmp_path / "out/changes.csv"))
    assert gone == len(flagged) - 1
    assert "1 flagged labels stay" in caplog.text


def test_a_class_is_not_emptied(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    npz_run(tmp_path)
    text = (tmp_path / "run/labels.csv").read_text()
    (tmp_path / "run/labels.csv").write_text(text.replace("False", "True"))
    fault(
        "class 0 .* of 4; lower", capsys, "--out=o", "--max_share_per_class=1"
    )


def test_digits_become_an_npz_or_a_list(tmp_path, monkeypatch, capsys):
    """Data sets without files of their own are written as they were trained."""
    monkeypatch.chdir(tmp_path)
    keys = "digits,imb=0.2,seed=3"
    dataset = load.dataset(fakes.config("digits", imb=0.2, seed=3))
    names, train = dataset.class_names, dataset.train
    rows = [
        (int(k), names[y], names[t], "mislabelled" if y != t else "")
        for k, y, t in zip(
            train.ids, train.labels, train.true_labels, strict=True
        )
    ]
    fake_runs.write(tmp_path / "run", keys, "", names, rows, key="index")
    assert cleaned("--out=out", "--action=relabel", ALL) == 0
    assert "--config.data.noise_file=out/labels.csv" in capsys.readouterr().out
    source = fakes.read("npz", tmp_path / "out/data.npz")
    assert source.class_names == names and len(source.test) == 400
    assert (source.train.labels == source.train.true_labels).all()
    again = fakes.config(
        "digits", imb=0.2, seed=3, noise_file=tmp_path / "out/labels.csv"
    )
    assert (load.dataset(again).train.labels == train.true_labels).all()
