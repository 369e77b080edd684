import csv

import pytest

from jaxnlt.data.records import WRONG, verdicts
from jaxnlt.runtime.errors import UserError
from tests.data import fake_nlt, fake_web, fakes
from tests.data.readers.checks import check, refused


def test_manifest(tmp_path, capsys):
    raw, out = tmp_path / "raw", tmp_path / "out"
    fake_web.nlt("imagenet_nlt", raw, out)
    file = out / "manifest.csv"
    source = fakes.read("imagenet_nlt", raw, labels_file=file)
    with open(file, newline="") as stream:
        rows = list(csv.DictReader(stream))
    check(source, [len(rows), 8])
    assert source.class_names == fake_nlt.NAMES
    train = source.train
    assert train.ids.tolist() == [row["path"] for row in rows]
    assert train.labels.tolist() == [int(row["label"]) for row in rows]
    assert train.true_labels.tolist() == [int(r["true_label"]) for r in rows]
    known, wrong = verdicts(train)
    assert known.all() and (train.true_labels[wrong] == WRONG).any()
    # ImageNet's images as the authors keep them, those of the web unchanged.
    for row, fields in enumerate(rows):
        web = fields["source"] == "web"
        shape = (30, 24, 3) if web else (84, 84, 3)
        assert train.images.open(row).shape == shape, fields
    assert source.test.images.open(0).shape == (84, 84, 3)
    folder = fakes.read("imagenet_nlt", raw, labels_file=out)
    assert folder.train.ids.tolist() == train.ids.tolist()


HEAD = "path,label,true_label,source\n"


@pytest.fixture
def written(tmp_path):
    (tmp_path / "x").mkdir()
    (tmp_path / "classes.txt").write_text("a\nb\n")
    whole = f"{HEAD}x/1.jpg,0,0,imagenet\nx/2.jpg,1,-1,web\n"
    for name in ("manifest.csv", "test.csv"):
        (tmp_path / name).write_text(whole)
    return tmp_path


@pytest.mark.parametrize(
    "name", ["classes.txt", "manifest.csv", "test.csv", "x"]
)
def test_missing(written, name):
    place = written / name
    place.rmdir() if name == "x" else place.unlink()
    message = refused(
        "imagenet_nlt", written, labels_file=written / "manifest.csv"
    )
    assert message.startswith(f"{place}: ")


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "first line"),
        (HEAD, "lists no image"),
        (f"{HEAD}x/a.jpg,0,0", "line 2"),
        (f"{HEAD},0,0,web", "line 2"),
        (f"{HEAD}x/a.jpg,2,0,web", "line 2"),
        (f"{HEAD}x/a.jpg,0,-2,web", "line 2"),
        (f"{HEAD}x/a.jpg,0,0,web\nx/b.jpg,0,0,me", "line 3"),
        (f"{HEAD}x/a.jpg,0,0,web", "class b has no image"),
    ],
)
def test_damaged_manifest(written, content, words):
    file = written / "manifest.csv"
    file.write_text(content)
    with pytest.raises(UserError, match=f"^{file}: .*{words}"):
        fakes.read("imagenet_nlt", written, labels_file=written)


def test_no_labels_file(tmp_path):
    message = refused("imagenet_nlt", tmp_path)
    assert message.startswith("config.data.labels_file: ")
