"""A file of decisions as labels_file: it corrects the labels of folders."""

import pytest

from jaxnlt.data import noise
from jaxnlt.runtime.errors import UserError
from tests.clean import fake_runs
from tests.data import fakes


@pytest.fixture
def folder(tmp_path):
    for name in ("cat", "dog", " odd"):
        for k in range(2):
            fake_runs.picture(tmp_path / "train" / name / f"{k}.png", k)
    return tmp_path


def read(folder, *rows):
    file = folder / "review.csv"
    file.write_text("\n".join(["path,label,action,given_label", *rows]))
    source = fakes.read("folder", folder, labels_file=file)
    names = [source.class_names[k] for k in source.train.labels]
    return dict(zip(source.train.ids.tolist(), names, strict=True))


def test_rows_correct_and_all_others_stay(folder):
    found = read(
        folder,
        "train/cat/0.png, dog ,relabel,cat",
        "train/cat/1.png,cat,keep,cat",
        "train/ odd/1.png,,drop,odd",
    )
    assert found == {
        "train/ odd/0.png": " odd",
        "train/cat/0.png": "dog",
        "train/cat/1.png": "cat",
        "train/dog/0.png": "dog",
        "train/dog/1.png": "dog",
    }


@pytest.mark.parametrize(
    "row, match",
    [
        ("train/cat/7.png,dog,relabel,cat", r"review.csv: row 2 .*none of"),
        ("train/cat/0.png,cow,relabel,cat", r"review.csv: row 2 .*'cow'"),
        ("train/cat/0.png,cat,relabel,dog", r"review.csv: row 2 .*'cat'"),
    ],
)
def test_what_does_not_fit_is_named(folder, row, match):
    with pytest.raises(UserError, match=match):
        read(folder, row)
    with pytest.raises(UserError, match="class cat would be left"):
        read(folder, *(f"train/cat/{k}.png,,drop,cat" for k in range(2)))


def test_a_column_called_action_alone_is_no_decision(folder):
    file = folder / "list.csv"
    file.write_text(
        "path,label,action\ntrain/cat/0.png,cat,jump\ntrain/dog/0.png,dog,run\n"
    )
    assert len(fakes.read("folder", folder, labels_file=file).train) == 2


def test_a_noise_file_is_a_whole_list(tmp_path):
    file = tmp_path / "review.csv"
    file.write_text("index,label,action,given_label\n0,1,relabel,0\n")
    source = fakes.read("digits")
    with pytest.raises(UserError, match=r"noise_file: .*jaxnlt\.clean"):
        noise.read_noise(file, source.train, source)
