"""The bench of training: every row is there and describes what was timed."""

import json
import sys

import jax
import numpy as np
import pytest

from jaxnlt.bench import torch as bench_torch
from jaxnlt.bench import training as bench_training
from jaxnlt.data.readers import lists
from jaxnlt.runtime.errors import UserError
from tests import runs

ROWS = ["warmup", "semi", "inference", "selection for semi, host"]
# A fixture replaces it.
torch_available = bench_torch.available


@pytest.fixture(scope="module")
def result():
    """Of a net of width 4, on images of CIFAR's shape that are not there."""
    fields = {
        "data.n_max": 40,
        "augment.strong": "crop_flip",
        "model.blocks": (1,),
        # Its phase compiles longest.
        "dasc.contrast": False,
        "dasc.midl": False,
    }
    tiny = runs.tiny("dasc", "cifar10", **fields)
    return tiny, bench_training.measure(tiny, repeats=1, steps=1, samples=300)


@pytest.fixture(autouse=True, scope="module")
def no_files(tmp_path_factory):
    """No CIFAR in the usual places, no PyTorch, wherever the tests run."""
    empty = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "usual_places", lambda: [empty])
        patch.setattr(bench_torch, "available", lambda: False)
        yield


def test_rows(result):
    _, measured = result
    rows = {row["what"]: row for row in measured["rows"]}
    assert list(rows) == ROWS
    for row in rows.values():
        assert row["seconds"] > 0
        rate = row["images"] / row["seconds"]
        assert row["images_per_second"] == pytest.approx(rate)
    # Two networks, one step each; x and u are both counted.
    counts = [row["images"] for row in rows.values()]
    assert counts == [2 * 16, 2 * 2 * 16, 128, 300]
    # Nothing came from the cache that the other tests fill.
    assert rows["semi"]["compile_seconds"] > 10 * rows["semi"]["seconds"]


def test_the_table(result):
    tiny, measured = result
    text = bench_training.table(measured, tiny)
    assert "synthetic" in text and "cifar10 not found" in text
    assert "PyTorch: not installed" in text
    assert all(f"\n{name} " in text for name in ROWS)
    for load, busy in ((0.9, False), (1.1, True)):
        changed = measured | {"load_average": [load, 0, 0], "cores": 2}
        text = bench_training.table(changed, tiny)
        assert ("the machine was busy" in text) == busy


def test_settings_are_left_as_they_were(result):
    tiny, _ = result
    assert tiny.max_steps == 3 and tiny.model.dtype == "float32"
    assert jax.config.jax_enable_compilation_cache


def test_the_synthetic_set_has_the_benchmarks_shape(result):
    dataset, origin = bench_training._dataset(result[0])
    assert "synthetic" in origin
    assert dataset.train.images.shape[1:] == (32, 32, 3)
    counts = [int(40 * 0.1 ** (k / 9)) for k in range(10)]
    assert dataset.given_counts.tolist() == counts
    np.testing.assert_allclose(dataset.mean, (0.4914, 0.4822, 0.4465))


def test_named_files_must_be_there(tmp_path):
    path = str(tmp_path / "no")
    config = runs.tiny("erm", "cifar10", **{"data.path": path})
    with pytest.raises(UserError, match=path):
        bench_training.measure(config)


@pytest.mark.parametrize(
    "flag", ["--repeats=0", "--steps=x", "--workdir=a", "--stepps=1"]
)
def test_mistakes_take_one_line(flag, capsys):
    field = flag.partition("=")[0]
    assert bench_training.main(["benchmark", "--config=dasc", flag]) == 2
    out, err = capsys.readouterr()
    assert not out and err.count("\n") == 1
    assert err.startswith(f"jaxnlt: error: {field}: ")


def test_the_command_writes_json(result, tmp_path, monkeypatch, capsys):
    asked = []

    def measure(config, repeats, steps, samples):
        asked.append((config.seed, repeats, steps, samples))
        return result[1]

    monkeypatch.setattr(bench_training, "measure", measure)
    file = tmp_path / "speed.json"
    flags = ["--repeats=3", "--steps=2", "--samples=7", f"--json={file}"]
    command = ["benchmark", "--config=dasc:cifar10,seed=4", *flags]
    assert bench_training.main(command) == 0
    assert asked == [(4, 3, 2, 7)]
    assert json.loads(file.read_text()) == result[1]
    assert "images/s" in capsys.readouterr().out


def test_pytorch_is_found_without_being_imported(monkeypatch):
    asked = []
    monkeypatch.setattr("importlib.util.find_spec", asked.append)
    loaded = "torch" in sys.modules
    assert not torch_available()
    assert asked == ["torch"]
    assert ("torch" in sys.modules) == loaded


def test_sentence_of_a_comparison():
    seconds = {"jax": 0.02, "torch": 0.01, "torch_one_thread": 0.015}
    figures = {f"{name}_seconds": s for name, s in seconds.items()}
    figures |= {
        "ratio": 0.5,
        "torch_layout": "channels_last",
        "losses": {"jax": [2.0, 1.0], "torch": [2.0, 1.0]},
        "device": "cpu",
        "threads": 2,
        "batch_size": 16,
        "versions": {"torch": "2.13.0"},
    }
    text = bench_torch.sentence(figures, runs.tiny())
    assert text.startswith("PyTorch: 0.50 x the speed of PyTorch 2.13.0")
    assert "20.0 ms a step against 10.0 ms, 2 threads each" in text
    missing = bench_torch.sentence({"missing": "no GPU"}, runs.tiny())
    assert missing == "PyTorch: not compared, no GPU"
