"""Labels files of people: spellings, columns, leaks; the loop of an audit."""

import os
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data import load
from jaxnlt.data.records import UNKNOWN, WRONG, Split
from jaxnlt.methods import h2e
from jaxnlt.results import labels
from jaxnlt.runtime.errors import UserError
from tests.auditing import made
from tests.data import fakes

PATHS = [f"train/{name}/{i}.png" for name in ("cat", "dog") for i in range(3)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    for k, path in enumerate([*PATHS, "test/cat/0.png"]):
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), k).save(place)
    os.symlink("cat", root / "train" / "link")
    os.symlink("../../test/cat/0.png", root / "train" / "dog" / "leak.png")
    return root


def read(root, tmp_path, lines, header="path,label"):
    file = tmp_path / "labels.csv"
    file.write_text("\n".join([header, *lines]).replace("ROOT", str(root)))
    return fakes.read("images", root, labels_file=file)


ROWS = [f"{path},{path.split('/')[1]}" for path in PATHS]


@pytest.mark.parametrize(
    "rows, header",
    [
        ([f" {row} " for row in ROWS], " path , label"),
        ([f"./{row}" for row in ROWS], "filename,given_label"),
        ([f"ROOT/{row}" for row in ROWS], "image,suggested_label"),
        ([f"{row},x,0.5" for row in ROWS], "path,label,given_label,any"),
        ([f"{row},x" for row in ROWS], "path,given_label,suggested_label"),
        ([f"{row},," for row in ROWS], "path,label"),
        ([row.replace(",", ";") for row in ROWS], "path;label"),
        ([row.replace(",", "\t") for row in ROWS], "Path\tLabel"),
        ([row.replace("/", "\\") for row in ROWS], "path,label"),
        (ROWS[1:], ROWS[0]),  # the first line is an image
    ],
)
def test_what_people_write(root, tmp_path, rows, header):
    source = read(root, tmp_path, rows, header)
    assert source.train.ids.tolist() == PATHS
    assert source.class_names == ("cat", "dog")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert source.held_out is None


@pytest.mark.parametrize(
    "more, words",
    [
        ("./train/cat/0.png,cat", "row 8 repeats train/cat/0.png"),
        ("train//cat/../cat/0.png,cat", "row 8 repeats train/cat/0.png"),
        ("ROOT/train/cat/0.png,cat", "row 8 repeats train/cat/0.png"),
        ("train/link/0.png,cat", "row 8 repeats train/cat/0.png"),
        ("test/cat/0.png,cat", "row 8: test/cat/0.png is the test image"),
        ("train/dog/leak.png,cat", "row 8: .*leak.png is the test image test"),
        ("train/dog/leak.png,c at", "classes 'c at' and 'cat' differ only"),
        ("train/dog/leak.png,cat,dog", "row 8 has more values than columns"),
        ('train/dog/leak.png,"c\nt"', "class 'c.{2}t': the name holds"),
    ],
)
def test_refused_with_its_row(root, tmp_path, more, words):
    file = tmp_path / "labels.csv"
    with pytest.raises(UserError, match=f"^{file}: {words}") as error:
        read(root, tmp_path, [*ROWS, more])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "path", ["train/dog/none.png", "train/dog", "train/cat/0.png/x", "/0.png"]
)
def test_no_such_file(root, tmp_path, path):
    with pytest.raises(UserError, match=f"{path}: no such file, .* row 8 of"):
        read(root, tmp_path, [*ROWS, f"{path},cat"])


def test_a_folder_behind_a_link_is_the_same(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    rows = [f"{root}/{row}" for row in ROWS]
    found = read(tmp_path / "link", tmp_path, rows)
    assert found.train.ids.tolist() == PATHS


def test_a_class_that_is_held_out_whole(root, tmp_path):
    (tmp_path / "train").symlink_to(root / "train")
    parts = ["train"] * 3 + ["held_out"] * 3
    rows = [f"{row},{part}" for row, part in zip(ROWS, parts, strict=True)]
    with pytest.raises(UserError, match="held_out: class dog has no image"):
        read(tmp_path, tmp_path, rows, "path,label,split")


def test_class_names_in_two_encodings(root, tmp_path):
    rows = [f"{PATHS[0]},\xe9", f"{PATHS[1]},e\u0301"]
    with pytest.raises(UserError, match="classes .* differ only by spaces or"):
        read(root, tmp_path, rows)


def test_names_that_differ_by_case_alone(root, tmp_path):
    """One image where the file system takes them for one, else two."""
    shutil.copytree(root / "train", tmp_path / "train", symlinks=True)
    os.link(tmp_path / "train/cat/0.png", tmp_path / "train/cat/0.PNG")
    shutil.copy(tmp_path / "train/cat/1.png", tmp_path / "train/cat/1.PNG")
    two = [*ROWS, "train/cat/1.PNG,cat"]
    assert len(read(tmp_path, tmp_path, two).train) == 7
    with pytest.raises(UserError, match="row 9 repeats train/cat/0.png"):
        read(tmp_path, tmp_path, [*two, "train/cat/0.PNG,cat"])


def test_a_list_of_many_images_asks_for_few(root, tmp_path, monkeypatch):
    """One look at each folder, none at each file: 100,000 take a second."""
    asked = []
    for name in ("stat", "lstat"):
        whole = getattr(os, name)

        def counted(path, *args, _whole=whole, **more):
            asked.append(str(path))
            return _whole(path, *args, **more)

        monkeypatch.setattr(os, name, counted)
    read(root, tmp_path, [*ROWS[:2], *ROWS[3:]])
    assert asked and not [
        path for path in asked if "/train/" in path and path.endswith(".png")
    ]


@pytest.mark.parametrize(
    "header, words",
    [
        ("path,label,label", "two columns are called label"),
        ("path,label,split", "row 2: split is 'val', neither train nor"),
    ],
)
def test_refused_columns(root, tmp_path, header, words):
    with pytest.raises(UserError, match=f"labels.csv: {words}"):
        read(root, tmp_path, [f"{row},val" for row in ROWS], header)


def test_a_link_to_a_test_image_leaks_without_a_file_too(root):
    with pytest.raises(UserError, match="train/dog/leak.png is the test image"):
        fakes.read("images", root)


def test_true_labels_that_are_not_known(root, tmp_path):
    """A class whose given labels are all wrong is one of the data."""
    truth = ["owl", "", "wrong", "dog", "dog", "dog"]
    rows = [f"{row},{true}" for row, true in zip(ROWS, truth, strict=True)]
    source = read(root, tmp_path, rows, "path,label,true_label")
    assert source.class_names == ("cat", "dog", "owl")
    assert source.train.true_labels.tolist() == [2, UNKNOWN, WRONG, 1, 1, 1]


# A run's own labels.csv ------------------------------------------------------


def listed(file, train, names, held_out):
    """Writes labels.csv as a run does."""
    own = made.audit(train.labels, len(names))
    other = made.audit(held_out.labels, len(names))
    labels.write(file, labels.columns(train, names, own, (held_out, other)))


def test_the_loop_keeps_held_out_images_apart(tmp_path):
    """Run, mend a label, run again on labels.csv: the same hold-out."""
    for name, count in (("cat", 30), ("dog", 40)):
        for i in range(count):
            place = tmp_path / "data" / "train" / name / f"{i:02}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (2, 2), i).save(place)
    one = load.dataset(fakes.config("folder", path=tmp_path / "data"))
    assert np.bincount(one.test.labels).tolist() == [10, 10]
    file = tmp_path / "labels.csv"
    listed(file, one.train, one.class_names, one.test)
    assert file.read_text().count(",held_out,") == 20
    mended = str(one.train.ids[0])
    file.write_text(file.read_text().replace(f"{mended},cat", f"{mended},dog"))
    config = fakes.config("folder", path=tmp_path / "data", labels_file=file)
    again = load.dataset(config)
    assert again.test_kind == "held_out"
    assert sorted(again.test.ids) == sorted(one.test.ids)
    assert sorted(again.train.ids) == sorted(one.train.ids)
    given = dict(zip(again.train.ids, again.train.labels, strict=True))
    assert given[mended] == 1 and sum(given.values()) == 31
    # A test set that is added later frees them for training.
    place = tmp_path / "data" / "test" / "cat" / "new.png"
    place.parent.mkdir(parents=True)
    Image.new("L", (2, 2)).save(place)
    later = load.dataset(config)
    assert later.test_kind == "test" and len(later.train) == 70


def test_true_labels_of_both_parts_are_written(tmp_path):
    def part(ids):
        ids = np.array(ids)
        return Split(None, ids % 2, ids % 2, ids)

    train = part([0, 1])
    listed(tmp_path / "labels.csv", train, ["a", "b"], part([2, 3, 4]))
    rows = labels.read(tmp_path / "labels.csv")
    assert (rows["true_index"] == rows["index"] % 2).all()
    assert ((rows["split"] == "held_out") == (rows["index"] > 1)).all()
    scores = h2e.read_scores(
        str(tmp_path / "labels.csv"), train.ids, train.labels
    )
    assert len(scores) == 2 and (scores >= 0).all() and (scores <= 1).all()


@pytest.mark.parametrize(
    "counts, sizes",
    [
        ([100] * 10, [10] * 10),
        ([500] * 3, [50] * 3),
        ([30, 30, 30], [10] * 3),
        ([60, 30, 7], [10, 10, 0]),
        ([1000, 100, 30], [24, 24, 10]),
        ([29, 29], [3, 3]),
        ([12, 12, 12], [2, 2, 2]),
        ([2, 2, 1], [1, 1, 0]),
        ([1, 1], [0, 0]),
        ([30, *[10] * 100], [10, *[2] * 100]),
        ([40, 0, 40], [10, 0, 10]),
    ],
)
def test_a_hold_out_can_say_something(counts, sizes):
    counts = np.array(counts)
    found = load.held_out_sizes(counts)
    assert found.tolist() == sizes
    if found.any():
        assert found.sum() >= 0.05 * counts.sum()
