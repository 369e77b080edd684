"""Out-of-fold probabilities: the folds, their runs, and what cleanlab takes."""

import csv
import json
import types

import numpy as np
import pytest

from jaxnlt import train
from jaxnlt.data import folds
from jaxnlt.results import pred_probs
from jaxnlt.runtime.errors import UserError
from tests.runs import tiny

# Folds ------------------------------------------------------------------------


@pytest.mark.parametrize("count", [2, 5, 7])
def test_folds_are_stratified(count):
    labels = np.repeat(np.arange(6), [40, 13, 6, 2, 1, 3])
    fold_of = folds.assigned(labels, count, seed=3)
    assert (fold_of == folds.assigned(labels, count, seed=3)).all()
    assert (fold_of != folds.assigned(labels, count, seed=4)).any()
    assert (fold_of == 0).tolist() == (labels == 4).tolist()
    assert np.ptp(np.bincount(fold_of)[1:]) <= 1
    for label in range(6):
        own = fold_of[labels == label]
        if label != 4:
            assert np.ptp(np.bincount(own, minlength=count + 1)[1:]) <= 1
        for fold in range(1, count + 1):
            assert (own != fold).any()


def test_more_folds_than_images_are_refused():
    with pytest.raises(UserError, match="^config.audit: 4 images.* 5 folds"):
        folds.assigned(np.array([0, 0, 1, 1, 2]), 5, seed=0)


# Files ------------------------------------------------------------------------

FOLD_OF = np.array([1, 2, 0, 1])
LABELS = np.array([0, 0, 1, 0], np.int32)


def write(folder, fold, probs):
    """One fold's file; probabilities [4, 2] of all rows."""
    folder.mkdir(exist_ok=True)
    out = fold == FOLD_OF
    dataset = types.SimpleNamespace(
        fold_of=FOLD_OF,
        train=types.SimpleNamespace(labels=LABELS[~out]),
        test=types.SimpleNamespace(labels=LABELS[out]),
    )
    pred_probs.write_left_out(
        folder,
        dataset,
        fold,
        probs[out],
        probs[~out],
    )


def of_first(*p):
    """Probabilities of two classes, given those of the first."""
    return np.stack([p, 1 - np.array(p)], 1)


def test_every_row_has_the_probability_of_the_run_without_it(tmp_path, caplog):
    parts = [tmp_path / "1", tmp_path / "2"]
    first = of_first(0.1, 0.9, 0.2, 0.3)
    first[3] = np.nan  # cannot be read
    write(parts[0], 1, first)
    write(parts[1], 2, of_first(0.9, 0.4, 0.6, 0.9))
    pred_probs.join(tmp_path, parts)
    found = np.load(tmp_path / "pred_probs.npy")
    # The row that no fold leaves out has the mean.
    np.testing.assert_allclose(found[:, 0], [0.1, 0.4, 0.4, 0.5], atol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert np.load(tmp_path / "labels.npy").tolist() == LABELS.tolist()
    assert "1 images that cannot be read" in caplog.text
    with pytest.raises(UserError, match="are of other folds; remove"):
        pred_probs.join(tmp_path, parts[1:])
    (parts[1] / "left_out.npz").unlink()
    with pytest.raises(UserError, match="left_out.npz: is missing.*; remove"):
        pred_probs.join(tmp_path, parts)


# Runs -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("folds") / "run"
    config = tiny("erm", "digits,smoke,out_of_sample=2")
    seen = []
    train.run(config, workdir, observe=lambda *given: seen.append(given))
    # Each epoch of the run, and none of the folds.
    assert [len(given) for given in seen] == [3]
    return config, workdir


def rows_of(folder):
    return json.loads((folder / "noise.json").read_text())


def test_the_folds_divide_the_training_set(finished):
    _, workdir = finished
    given = rows_of(workdir)
    probs = np.load(workdir / "pred_probs.npy")
    labels = np.load(workdir / "labels.npy")
    assert labels.tolist() == given["labels"]
    assert probs.shape == (len(labels), 10) and probs.dtype == np.float32
    row_of = {key: row for row, key in enumerate(given["ids"])}
    seen = []
    for fold in "12":
        folder = workdir / "folds" / fold
        trained = {row_of[key] for key in rows_of(folder)["ids"]}
        with open(folder / "labels.csv", newline="") as file:
            listed = list(csv.DictReader(file))
        out = [row for row in listed if row["split"] == "held_out"]
        own = [row_of[int(row["index"])] for row in out]
        assert not trained & {*own} and len(trained) + len(own) == len(labels)
        predicted = [row["predicted_label"] for row in out]
        assert predicted == [str(k) for k in probs[own].argmax(1)]
        # No test set is read: what is left out stands in for it.
        facts = json.loads((folder / "dataset.json").read_text())["facts"]
        assert facts["test_kind"] == "held_out"
        assert facts["n_test"] == len(own)
        seen += own
    assert sorted(seen) == list(range(len(labels)))


def test_a_killed_fold_goes_on(finished):
    config, workdir = finished
    files = [workdir / name for name in ("pred_probs.npy", "labels.npy")]
    before = [file.read_bytes() for file in files]
    first = (workdir / "folds" / "1" / "summary.json").stat().st_mtime_ns
    for path in (*files, workdir / "folds" / "2" / "summary.json"):
        path.unlink()
    train.run(config, workdir)
    assert [file.read_bytes() for file in files] == before
    again = (workdir / "folds" / "1" / "summary.json").stat().st_mtime_ns
    assert again == first
    with pytest.raises(UserError, match="folds/1.*audit.folds 2 -> 3"):
        train.run(tiny("erm", "digits,smoke,out_of_sample=3"), workdir)


def test_cleanlab_takes_the_files_as_they_are(finished):
    cleanlab = pytest.importorskip("cleanlab")
    _, workdir = finished
    probs = np.load(workdir / "pred_probs.npy")
    labels = np.load(workdir / "labels.npy")
    issues = cleanlab.filter.find_label_issues(labels, probs, n_jobs=1)
    assert issues.shape == labels.shape and issues.dtype == bool
    pytest.importorskip("datasets")
    lab = cleanlab.Datalab({"label": labels}, label_name="label", verbosity=0)
    lab.find_issues(pred_probs=probs, issue_types={"label": {}})
    assert len(lab.get_issues("label")) == len(labels)
