"""Layouts of folders that newcomers have: right, or refused with a way out."""

import pytest

from jaxnlt.runtime.errors import UserError
from tests.data import fakes
from tests.data.readers.test_folder import picture


def write(root, *places):
    for place in places:
        for name in "ab":
            picture(root / place / name / "0.png")


@pytest.mark.parametrize("place", ["", "train"])
def test_class_folders_lie_in_the_folder_or_in_train(tmp_path, place):
    write(tmp_path, place)
    train = fakes.read("folder", tmp_path).train
    prefix = f"{place}/" if place else ""
    assert train.ids.tolist() == [f"{prefix}{name}/0.png" for name in "ab"]


@pytest.mark.parametrize(
    "places, words",
    [
        (["training", "validation"], "training: looks like .* name it train"),
        (["Train", "Test"], "Test: looks like .* name it test"),
        (["set/train"], ": holds one class, set, at least two .* train/CLASS"),
        (["test"], "train: no such folder; expected are train/CLASS"),
    ],
)
def test_a_folder_of_classes_is_no_class(tmp_path, places, words):
    write(tmp_path, *places)
    with pytest.raises(UserError, match=f"^{tmp_path}/?{words}"):
        fakes.read("folder", tmp_path)


def test_classes_may_be_called_like_parts(tmp_path):
    for name in ("valid", "training"):
        picture(tmp_path / name / "0.png")
    names = fakes.read("folder", tmp_path).class_names
    assert names == ("training", "valid")


def test_a_test_set_of_another_name_is_said_not_to_be_read(tmp_path, caplog):
    write(tmp_path, "train", "val")
    assert fakes.read("folder", tmp_path).test is None
    assert [r.getMessage() for r in caplog.records] == [
        f"{tmp_path}/val: is not read; to measure on it, name it test"
    ]


@pytest.mark.parametrize("name", ["a\nb", "a\r", "x\u2028y", "tab\t"])
def test_names_of_several_lines_are_refused(tmp_path, name):
    write(tmp_path, "")
    picture(tmp_path / "a" / f"{name}.png")
    with pytest.raises(UserError, match="line break .*; rename it") as error:
        fakes.read("folder", tmp_path)
    assert str(error.value).isprintable()


def test_narrow_spaces_of_screenshots_are_no_line_breaks(tmp_path):
    write(tmp_path, "")
    picture(tmp_path / "a" / "Screenshot 9.41\u202fAM.png")
    assert len(fakes.read("folder", tmp_path).train) == 3
