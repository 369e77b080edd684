"""Rows of features in place of images: reading, training, predicting."""

import csv
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import command_line, main, models, predict
from jaxnlt.augment import features, table
from jaxnlt.data import check, load
from jaxnlt.predict import main as label_images
from jaxnlt.runtime.errors import UserError
from tests import runs
from tests.data import fakes

LABELS = np.repeat([0, 1, 2], 12)
ROWS = np.random.default_rng(0).normal(7, 1, (36, 5)) + LABELS[:, None]
ROWS = (ROWS * [1, 1e9, 1e-9, 5, 0] + [0, 0, 0, 0, 0.1]).astype(np.float32)


def write(folder, **changes):
    content = {"train_features": ROWS, "train_labels": LABELS}
    content |= {"test_features": ROWS[::2], "test_labels": LABELS[::2]}
    path = folder / "a.npz"
    content |= changes
    np.savez(path, **{k: v for k, v in content.items() if v is not None})
    return path


@pytest.mark.parametrize("dtype", ["f2", "<f4", ">f4", "f8"])
def test_any_float_is_read_and_standardised(dtype, tmp_path):
    given = ROWS[:, [0, 0, 3, 3, 4]] if dtype == "f2" else ROWS
    path = write(tmp_path, train_features=given.astype(dtype))
    dataset = load.dataset(fakes.config("features", path=path))
    images = dataset.train.images
    assert images.dtype == np.float32 and images.shape == (36, 5)
    assert dataset.train.has_features
    rows = table.normalise(images, dataset.mean, dataset.std)
    assert np.abs(rows.mean(0)).max() < 1e-3
    np.testing.assert_allclose(rows.std(0), [1, 1, 1, 1, 0], atol=1e-3)


def marked(value, dtype=np.float64):
    rows = ROWS.astype(dtype)
    rows[[4, 30], 2] = value
    return rows


@pytest.mark.parametrize(
    "changes, word",
    [
        (
            {"train_features": marked(np.nan)},
            "train_features: row 4, feature 2",
        ),
        ({"train_features": marked(-np.inf)}, "train_features: row 4, feature"),
        ({"train_features": marked(1e99)}, "train_features: row 4, feat"),
        ({"test_features": marked(np.nan)[::2]}, "test_features: row 2, feat"),
        ({"train_features": ROWS.astype(int)}, "train_features must be float"),
        ({"train_features": ROWS[:, 0]}, "train_features must be float16"),
        ({"train_features": ROWS[:, :0]}, "train_features is empty"),
        ({"test_features": ROWS[::2, 1:]}, r"test_features are \(4,\), train"),
        ({"test_labels": None}, "holds no test_labels"),
        ({"train_labels": LABELS[1:]}, "train_labels must have shape"),
        ({"train_images": LABELS}, "holds train_features and train_images"),
        ({"test_images": LABELS}, "holds train_features and test_images"),
        (
            {"train_features": None, "train_images": LABELS},
            "holds train_images and no train_features; take .* npz",
        ),
    ],
)
def test_refused(changes, word, tmp_path):
    path = write(tmp_path, **changes)
    with pytest.raises(UserError, match=f"^{path}: {word}"):
        fakes.read("features", path)


def test_npz_of_images_names_the_benchmark_of_features(tmp_path):
    with pytest.raises(UserError, match="--config=erm:features"):
        fakes.read("npz", write(tmp_path))


def parsed(method, path, *flags):
    value = f"--config={method}:npz,smoke"
    argv = ["main", value, f"--config.data.path={path}", *flags]
    return command_line.parse(argv)[0]


def test_npz_makes_the_config_that_its_arrays_need(tmp_path):
    path = write(tmp_path)
    config = parsed("erm", path, "--config.model.width=8")
    assert config.benchmark == "features" and config.erm.loss == "elr"
    assert (config.model.name, config.model.width) == ("mlp", 8)
    assert config.augment.strong == "feature_jitter_dropout"
    assert command_line.load_config("erm", "features,loss=ce").erm.loss == "ce"
    path = runs.write_npz(tmp_path / "b.npz", size=4)
    config = parsed("erm", path)
    assert config.benchmark == "npz" and config.erm.loss == "ce"
    assert config.model.name == "preact_resnet18"


@pytest.mark.parametrize(
    "benchmark, field, value",
    [
        ("features", "model.name", "preact_resnet18"),
        ("digits", "model.name", "mlp"),
        ("features", "augment.weak", "crop_flip"),
        ("digits", "augment.strong", "feature_jitter"),
    ],
)
def test_images_and_features_are_not_mixed_up(
    benchmark, field, value, tmp_path, capsys
):
    argv = f"main --config=erm:{benchmark},smoke --workdir={tmp_path}/run"
    if benchmark == "features":
        argv += f" --config.data.path={write(tmp_path)}"
    assert main.main([*argv.split(), f"--config.{field}={value}"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"jaxnlt: error: config.{field}: ")
    assert error.count("\n") == 1 and not (tmp_path / "run").exists()


def test_views_count_in_standard_deviations():
    class Statistics:
        mean, std = (7.0, 7.0), (1e3, 1e-3)

    names = {"weak": "feature_jitter", "strong": "feature_jitter_dropout"}
    rows = 7 + jnp.ones((4000, 2)) * jnp.array([1e3, 1e-3])

    def view(name):
        key = jax.random.key(0)
        return table.prepare(rows, key, name, Statistics, jnp.float32, names)

    np.testing.assert_allclose(view("none"), 1, atol=1e-3)
    weak, strong = np.asarray(view("weak")), np.asarray(view("strong"))
    np.testing.assert_allclose(weak.mean(0), 1, atol=0.05)
    np.testing.assert_allclose(weak.std(0), features.NOISE, rtol=0.05)
    np.testing.assert_allclose(
        (strong == 0).mean(0), features.DROPPED, atol=0.03
    )
    spread = [strong[strong[:, k] != 0, k].std() for k in (0, 1)]
    np.testing.assert_allclose(spread, features.NOISE, rtol=0.05)


def test_the_perceptron_has_the_heads_and_layers_asked_for():
    config = command_line.load_config("dasc", "features").model
    with config.unlocked():
        config.width, config.blocks = 8, (2, 1)
    heads = ("logits", "balanced", "projection", "prototypes", "embedding")
    network = models.build(config, 3, heads, projection_dim=4)
    values = network.init(0, (5,))
    layers = values["params"]["backbone"]
    assert sorted(layers) == sorted(
        f"{kind}{i}" for kind in ("bn", "linear") for i in (1, 2, 3)
    )
    assert layers["linear1"]["kernel"].shape == (5, 8)
    wanted = ("features", *heads)
    out, _ = jax.eval_shape(
        lambda rows: network.apply(values, rows, wanted), jnp.ones((2, 5))
    )
    shapes = {name: value.shape for name, value in out.items()}
    assert shapes == {
        "features": (2, 8),
        "logits": (2, 3),
        "balanced": (2, 3),
        "projection": (2, 4),
        "prototypes": (3, 4),
        "embedding": (2, 4),
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run through the command line; its folder and the file of features."""
    folder = tmp_path_factory.mktemp("features")
    path, workdir = write(folder), folder / "run"
    argv = f"main --config=erm:npz,epochs=3 --config.data.path={path}"
    argv += f" --workdir={workdir} --config.model.width=8"
    argv += " --config.batch_size=8 --config.optimizer.learning_rate=0.1"
    assert main.main(argv.split()) == 0
    return workdir, path


def test_a_run_knows_its_features(finished):
    workdir, _ = finished
    described = json.loads((workdir / "dataset.json").read_text())
    assert described["image_shape"] == [5] and len(described["mean"]) == 5
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary["benchmark"] == "features"
    assert summary["data"]["image_shape"] == [5]
    assert summary["last_test_accuracy"] > 0.5
    assert len((workdir / "labels.csv").read_text().splitlines()) == 37
    assert "image/png" not in (workdir / "report.html").read_text()


@pytest.mark.parametrize("name", ["features", "test_features"])
def test_features_are_predicted(name, finished, tmp_path):
    workdir, _ = finished
    file, out = tmp_path / "new.npz", tmp_path / "p.csv"
    np.savez(file, **{name: ROWS.astype(np.float64)})
    argv = f"predict --workdir={workdir} --images={file} --out={out}"
    assert label_images(argv.split()) == 0
    with open(out, newline="") as rows:
        found = [int(row["predicted_label"]) for row in csv.DictReader(rows)]
    assert (np.array(found) == LABELS).mean() > 0.5


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"features": ROWS[:, 1:]}, "features have 4 numbers a row"),
        ({"features": marked(np.nan)}, "features: row 4, feature 2"),
        ({"images": ROWS}, "holds neither features"),
        (None, "is a folder"),
    ],
)
def test_prediction_refuses(changes, word, finished, tmp_path):
    place = tmp_path if changes is None else tmp_path / "new.npz"
    if changes is not None:
        np.savez(place, **changes)
    with pytest.raises(UserError, match=f"^{place}: {word}"):
        predict(finished[0], place)


def test_check_lists_equal_rows(tmp_path, capsys):
    rows = ROWS.copy()
    rows[3] = rows[20]
    path = write(
        tmp_path,
        train_features=rows,
        test_features=rows[:1] + 1,
        test_labels=LABELS[:1],
    )
    assert check.main(["check", f"--path={path}"]) == 0
    out = capsys.readouterr().out
    assert "rows: 5 features (37)" in out and "3 = 20" in out
    path = write(tmp_path)
    assert check.main(["check", f"--path={path}"]) == 2  # test rows of train


@pytest.mark.slow
@pytest.mark.parametrize("method", sorted(runs.methods()))
def test_every_method_trains_on_features(method, tmp_path):
    module, text = runs.methods()[method]
    name = module.__name__.split(".")[-1]
    argv = f"main --config={name}:npz,smoke{text} --workdir={tmp_path}/run"
    argv += f" --config.data.path={write(tmp_path)} --config.model.width=8"
    assert main.main(argv.split()) == 0
    assert (tmp_path / "run" / "labels.csv").exists()
