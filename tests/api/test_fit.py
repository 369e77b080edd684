"""Training on arrays, and what its result offers."""

import csv
import importlib
import json
import pickle

import numpy as np
import pytest

import jaxnlt
from jaxnlt.api import arrays as array_lib
from jaxnlt.runtime.errors import UserError
from tests.api.conftest import FIELDS, NAMES


def test_a_result_speaks_the_users_labels(fitted):
    result, labels = fitted.result, fitted.labels
    assert result.classes_.tolist() == sorted(NAMES)
    probs = result.predict_proba(fitted.images)
    assert probs.shape == (90, 3)
    np.testing.assert_allclose(probs.sum(1), 1, rtol=1e-5)
    predicted = result.predict(fitted.images)
    assert (predicted == np.sort(NAMES)[probs.argmax(1)]).all()
    assert (predicted == labels).mean() > 0.5
    # Rows are known by their place in the arrays, held-out ones too.
    table = result.labels
    assert (table["given_label"] == labels[table["index"]]).all()
    assert sorted(table["index"]) == list(range(90))
    clean = table["clean_probability"]
    assert clean.dtype == float and ((clean >= 0) & (clean <= 1)).all()


def test_a_result_reads_the_files_of_its_run(fitted):
    result = fitted.result
    lines = (result.workdir / "metrics.jsonl").read_text().splitlines()
    assert result.metrics == list(map(json.loads, lines)) and len(lines) == 10
    assert result.summary["method"] == "erm"
    assert result.summary["command"].startswith("jaxnlt.fit(images, labels, ")
    assert result.report.read_text().startswith("<!")
    again = jaxnlt.Result(result.workdir)
    assert again.classes_.tolist() == sorted(NAMES)
    assert (again.predict(fitted.images) == result.predict(fitted.images)).all()


def test_the_command_line_knows_the_run(fitted, tmp_path):
    np.savez(tmp_path / "new.npz", images=fitted.images[..., None])
    command = importlib.import_module("jaxnlt.predict").main
    run, out = fitted.result.workdir, tmp_path / "out.csv"
    flags = f"--workdir={run} --images={tmp_path}/new.npz --out={out}"
    assert command(["predict", *flags.split()]) == 0
    with open(out, newline="") as file:
        found = [
            row["predicted_label"].lstrip("'") for row in csv.DictReader(file)
        ]
    assert found == fitted.result.predict(fitted.images).tolist()


def test_a_pickled_result_needs_no_files(fitted, tmp_path):
    fitted.result.predict(fitted.images[:1])  # has compiled something
    workdir, moved = fitted.result.workdir, tmp_path / "elsewhere"
    workdir.rename(moved)
    try:
        again = pickle.loads(pickle.dumps(fitted.result))
        probs = again.predict_proba(fitted.images)
    finally:
        moved.rename(workdir)
    assert (probs == fitted.result.predict_proba(fitted.images)).all()


def test_later_predictions_load_and_compile_nothing(fitted, monkeypatch):
    predict = importlib.import_module("jaxnlt.predict")
    fitted.result.predict(fitted.images)
    monkeypatch.setattr(predict.models, "build", None)
    monkeypatch.setattr(predict.checkpoint, "load", None)
    assert len(fitted.result.predict(fitted.images[:7])) == 7


def test_the_same_call_goes_on(fitted, capfd, monkeypatch):
    result, workdir = fitted.result, fitted.result.workdir
    before = (workdir / "data.npz").stat().st_mtime_ns
    pair = fitted.images, fitted.labels
    again = jaxnlt.fit(*pair, workdir=workdir, **FIELDS)
    assert capfd.readouterr() == ("", "")
    assert again.summary == result.summary
    jaxnlt.fit(*pair, workdir=workdir, verbose=True, **FIELDS)
    assert "already complete" in capfd.readouterr().err
    assert (workdir / "data.npz").stat().st_mtime_ns == before
    for changed in (fitted.labels[::-1], fitted.labels[:-1]):
        images = fitted.images[: len(changed)]
        with pytest.raises(UserError, match="workdir: .*holds other images"):
            jaxnlt.fit(images, changed, workdir=workdir, **FIELDS)
    with pytest.raises(UserError, match="another config: epochs 10 -> 1"):
        jaxnlt.fit(*pair, workdir=workdir, **FIELDS | {"epochs": 1})
    assert (workdir / "data.npz").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "change, message",
    [
        ({"modle__width": 3}, "modle__width: .* did you mean model__width?"),
        ({"lr": 0.1}, "lr: .* did you mean optimizer__learning_rate?"),
        ({"los": "elr"}, "los: no such field, did you mean erm__loss?"),
        ({"loss": "ellr"}, "erm__loss: 'ellr' is not one of"),
        ({"loss": "ce,imb=1"}, "loss: 'ce,imb=1' holds a comma"),
        ({"epochs": "x"}, "epochs: expects int"),
        ({"model__width": 0.5}, "model__width: expects int"),
        ({"model__width": -1}, r"model__width: must be in \[0, 1024\], is -1"),
        ({"method": "dsc"}, "method: dsc: no such file; methods are best"),
        ({"benchmark": "cifar10"}, "benchmark: fit trains on its arrays"),
        ({"noise": "symm"}, "data__noise: 'symm' is not one of"),
        ({"images": np.zeros((90, 8, 8))}, "images: images must be uint8"),
        ({"images": np.zeros((9, 8, 8), int)}, "images: 9 images, 90 labels"),
        ({"images": np.full((90, 8, 8), 256)}, "images: images must lie in"),
        ({"images": np.zeros((90, 8, 8, 2), "u1")}, "images must hold images"),
        ({"images": [[1.0], [np.inf]]}, "images: row 1 holds a number"),
        ({"images": [["a"]]}, "images: must be images, uint8"),
        ({"images": np.zeros((0, 8, 8))}, "images: is empty"),
        ({"labels": ["a"] * 90}, "labels: holds one class, at least two"),
        ({"labels": [["a"]] * 90}, "labels: must be one label an image"),
        (
            {"labels": np.array(["a", 1] * 45, object)},
            "labels: mix int and str",
        ),
        ({"labels": ["a", None] * 45}, "labels: mix NoneType and str"),
        ({"labels": [0.0, np.nan] * 45}, "labels: 'nan' names no class"),
        ({"labels": ["a", "b\x1b"] * 45}, "labels: .* names no class"),
        ({"test": 3}, "test: must be .images, labels."),
        ({"test": (np.zeros((1, 8, 8), "u1"), ["x"])}, "test: 'x' is no class"),
        ({"test": (np.zeros((1, 4, 4), "u1"), ["two"])}, "test_images are"),
    ],
)
def test_mistakes_name_the_argument(change, message, arrays, tmp_path):
    images, labels = arrays
    given = {"images": images, "labels": labels, **FIELDS}
    workdir = tmp_path / "a" / "run"
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        jaxnlt.fit(**given | {"workdir": workdir} | change)
    assert isinstance(caught.value, UserError)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_files_of_others_stay(arrays, tmp_path):
    np.savez(tmp_path / "data.npz", mine=np.arange(3))
    with pytest.raises(ValueError, match="workdir: .* holds other images"):
        jaxnlt.fit(*arrays, workdir=tmp_path, **FIELDS)
    assert np.load(tmp_path / "data.npz").files == ["mine"]
    with pytest.raises(ValueError, match="workdir: .*holds no finished run"):
        jaxnlt.Result(tmp_path)


def test_classes_are_those_of_the_run(fitted):
    with pytest.raises(ValueError, match="classes: 2 of them, the run has 3"):
        jaxnlt.Result(fitted.result.workdir, np.array([4, 5]))
    numbered = jaxnlt.Result(fitted.result.workdir, np.array([4, 5, 6]))
    found = numbered.labels["given_label"][numbered.labels["index"].argsort()]
    assert (np.sort(NAMES)[found - 4] == fitted.labels).all()


def test_other_images_are_refused(fitted):
    with pytest.raises(ValueError, match=r"images: are of shape \(4, 8, 1\)"):
        fitted.result.predict(fitted.images[:, :4])
    as_integers = fitted.result.predict(fitted.images[:5].astype(np.int64))
    assert (as_integers == fitted.result.predict(fitted.images[:5])).all()


@pytest.mark.parametrize(
    "labels",
    [[3, -1, 3], [2.5, 0.0, 2.5], [True, False, True], ["b", "a", "b"]],
)
def test_labels_of_any_value(labels):
    numbers, known = array_lib.classes(labels, "labels")
    assert numbers.tolist() == [1, 0, 1]
    assert known.values[numbers].tolist() == labels
    assert array_lib.numbers(labels, known, "test").tolist() == [1, 0, 1]


def test_features_of_any_encoder():
    labels = np.repeat([-1, 7], 30)
    rows = np.random.default_rng(0).normal(size=(60, 4)) + labels[:, None]
    result = jaxnlt.fit(rows, labels, epochs=8)
    config = json.loads((result.workdir / "config.json").read_text())
    assert (config["method"], config["erm"]["loss"]) == ("erm", "elr")
    assert (result.predict(rows) == labels).mean() > 0.9
    assert result.predict_proba(rows[:5].astype(int)).shape == (5, 2)
    with pytest.raises(ValueError, match=r"images: are of shape \(3,\)"):
        result.predict(rows[:, 1:])


def test_columns_as_a_data_frame(fitted):
    pd = pytest.importorskip("pandas")
    table = fitted.result.labels.to_pandas()
    assert isinstance(table, pd.DataFrame) and len(table) == 90
    assert list(table) == list(fitted.result.labels)
