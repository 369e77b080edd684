import csv
import importlib
import shutil
from unittest import mock

import numpy as np
import pytest
from PIL import Image
from scipy.special import softmax

from jaxnlt import command_line, train
from jaxnlt.results import journal, metrics
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

# ``jaxnlt.predict`` is the function.
predict = importlib.import_module("jaxnlt.predict")
TEST = fakes.read("digits").test


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run; its folder, and the scores that it voted with last."""
    folder = tmp_path_factory.mktemp("predict")
    config = command_line.load_config("dasc", "digits,smoke,noise=none,imb=1")
    config.model.width, config.model.blocks = 4, (1,)
    config.epochs, config.dasc.warmup, config.max_steps = 2, 1, 40
    config.optimizer.learning_rate = 0.05
    config.dasc.contrast = config.dasc.midl = False
    votes = []

    def vote(*args):
        votes.append(original(*args))
        return votes[-1]

    original = train.vote
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "vote", vote)
        patch.setattr(metrics, "vote", vote)
        patch.setattr(journal.Journal, "finish", lambda *args: {})
        train.run(config, str(folder / "run"))
    np.savez(folder / "test.npz", test_images=TEST.images)
    # One vote an epoch on the test set, one at the end on the training set.
    return folder, [scores for scores, _ in votes[:-1]]


def call(command: str) -> int:
    return predict.main(["predict", *command.split()])


def table(path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_npz_gets_the_vote_of_the_last_evaluation(run, tmp_path, monkeypatch):
    folder, votes = run
    monkeypatch.setattr(predict, "_BATCHES", 1)  # two pieces
    out = tmp_path / "p.csv"
    arguments = f"--workdir={folder}/run --images={folder}/test.npz"
    assert call(f"{arguments} --out={out}") == 0
    rows = table(out)
    assert list(rows[0]) == ["index", "predicted_label", "confidence"]
    assert [row["index"] for row in rows] == [str(i) for i in range(400)]
    # Two networks, two heads.
    probs = softmax(votes[-1].astype(np.float64), -1)
    predicted = [row["predicted_label"] for row in rows]
    assert predicted == [str(c) for c in probs.argmax(-1)]
    assert len(set(predicted)) > 2
    confidence = [float(row["confidence"]) for row in rows]
    np.testing.assert_allclose(confidence, probs.max(-1), rtol=1e-5)
    assert [p.name for p in tmp_path.iterdir()] == ["p.csv"]


@pytest.mark.parametrize("epoch", [0, 1])
def test_epoch(epoch, run):
    folder, votes = run
    file = folder / "test.npz"
    _, probs, names = predict.predict(folder / "run", file, epoch)
    np.testing.assert_allclose(probs, softmax(votes[epoch], -1), rtol=1e-5)
    assert names == tuple("0123456789")
    assert not np.allclose(votes[epoch], votes[epoch - 1])


def test_folder(run, tmp_path, caplog):
    folder, votes = run
    (tmp_path / "images" / "b").mkdir(parents=True)
    # Names in another order than rows; one grey, one colour, one in a folder.
    files = {"z.png": (5, "L"), "a.PNG": (17, "RGB"), "b/c.png": (300, "L")}
    caplog.set_level("WARNING", "jaxnlt")
    for name, (row, mode) in files.items():
        image = Image.fromarray(TEST.images[row, ..., 0])
        image.convert(mode).save(tmp_path / "images" / name)
    (tmp_path / "images" / ".hidden.png").touch()
    (tmp_path / "images" / "notes.txt").touch()
    out = tmp_path / "p.csv"
    flags = f"--workdir={folder}/run --images={out.parent} --out={out}"
    assert call(flags) == 0
    rows = table(out)
    paths = ["images/a.PNG", "images/b/c.png", "images/z.png"]
    assert [row["path"] for row in rows] == paths
    assert [r.args[-2:] for r in caplog.records if "resized" in r.msg] == []
    # Of another size it is resized, and said once.
    big = Image.fromarray(TEST.images[5, ..., 0]).resize((32, 32), 0)
    big.save(tmp_path / "images" / "z.png")
    assert call(flags) == 0 and len(table(out)) == 3
    resized = [r for r in caplog.records if "resized to 8x8" in r.getMessage()]
    assert [r.args[-2:] for r in resized] == [(1, 3)]
    probs = softmax(votes[-1][[17, 300, 5]], -1)
    assert [int(r["predicted_label"]) for r in rows] == list(probs.argmax(-1))
    confidence = [float(row["confidence"]) for row in rows]
    np.testing.assert_allclose(confidence, probs.max(-1), rtol=1e-5)


@pytest.mark.parametrize(
    "arguments, start",
    [
        ("", "--workdir: is missing"),
        ("--workdir={run}", "--images: is missing"),
        ("{valid} --out=", "--out: is missing"),
        ("{valid} --out={tmp}", "--out: {tmp}: is a folder"),
        ("{valid} --out={tmp}/a/b", "--out: {tmp}/a: no"),
        ("{valid} --epoch=9", "{run}/checkpoints: no checkpoint"),
        ("{valid} --epoch=x", "--epoch: expects int"),
        ("{valid} --epochs=1", "--epochs: unknown flag"),
        ("{valid} more", "'more': is not a flag"),
        ("{images} --workdir={tmp}", "{tmp}: holds no run, config.json"),
        ("{images} --workdir={tmp}/bare", "{tmp}/bare/checkpoints: no check"),
        ("--workdir={run} --images={tmp}/no", "{tmp}/no: no such file"),
        ("--workdir={run} --images={tmp}/text", "{tmp}/text: neither a folder"),
        ("--workdir={run} --images={tmp}/cut.npz", "{tmp}/cut.npz: truncated"),
        ("--workdir={run} --images={tmp}/no.npz", "{tmp}/no.npz: holds neith"),
        ("--workdir={run} --images={tmp}/w.npz", "{tmp}/w.npz: images must be"),
        ("--workdir={run} --images={tmp}/f.npz", "{tmp}/f.npz: images must be"),
        ("--workdir={run} --images={tmp}/0.npz", "{tmp}/0.npz: images is empt"),
        ("--workdir={run} --images={tmp}/none", "{tmp}/none: holds no image"),
        ("--workdir={run} --images={tmp}/bad", "{tmp}/bad/b.png: unreadable"),
    ],
)
def test_mistakes_are_one_line(
    arguments, start, run, tmp_path, capsys, monkeypatch
):
    folder, _ = run
    bare = tmp_path / "bare"
    bare.mkdir()
    for name in ("config.json", "dataset.json"):
        shutil.copy(folder / "run" / name, bare)
    (tmp_path / "text").touch()
    whole = (folder / "test.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:500])
    np.savez(tmp_path / "no.npz", pictures=TEST.images)
    wrong = {"w": TEST.images[:, :, :7], "f": TEST.images / 255}
    for name, images in (wrong | {"0": TEST.images[:0]}).items():
        np.savez(tmp_path / f"{name}.npz", images=images)
    for name in ("none", "bad"):
        (tmp_path / name).mkdir()
    (tmp_path / "bad" / "b.png").write_text("no image")
    (tmp_path / "bad" / "c.png").touch()
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))

    places = {"run": folder / "run", "tmp": tmp_path}
    places["images"] = f"--images={folder}/test.npz"
    places["valid"] = f"--workdir={folder}/run {places['images']}"
    assert call(arguments.format(**places)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
    assert err.startswith("jaxnlt: error: " + start.format(**places))
    assert sorted(tmp_path.rglob("*")) == before


def test_resized_as_in_training(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (16, 12, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = predict.find_images(tmp_path, (8, 8, 3), image_size=8)
    wanted = Image.fromarray(pixels).resize((8, 8), Image.Resampling.BILINEAR)
    piece = found.read(0, 1)
    assert (piece.pixels == np.asarray(wanted)).all() and not piece.resized
    other = predict.find_images(tmp_path, (8, 8, 3)).read(0, 1)
    assert (other.pixels == piece.pixels).all()
    assert other.resized == [str(tmp_path / "a.png")]


def test_a_table_is_replaced_at_once_or_not_at_all(tmp_path, monkeypatch):
    out = tmp_path / "p.csv"
    out.write_text("old")
    full = mock.Mock(side_effect=OSError(28, "No space left on device"))
    monkeypatch.setattr(predict.os, "replace", full)
    with pytest.raises(UserError, match="p.csv: cannot be written"):
        predict.write_csv(out, [0], np.array([[0.3, 0.7]]), ("a", "b"))
    assert out.read_text() == "old"
    assert list(tmp_path.iterdir()) == [out]


def test_help(capsys):
    assert call("--help") == 0
    out, err = capsys.readouterr()
    assert "usage: python -m jaxnlt.predict" in out and err == ""
