"""The bench of training: every row is there and describes what was timed."""

import json
import sys

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache

from jaxnlt.bench import command
from jaxnlt.bench import training as bench_training
from jaxnlt.bench.torch import compare
from jaxnlt.data.readers import lists
from jaxnlt.runtime.errors import UserError
from tests import runs

ROWS = ["warmup", "semi", "inference", "selection for semi, host"]
# A fixture replaces it.
has_torch = command.has_torch


class FakeRival:
    """PyTorch's side, without PyTorch: takes 2 s, whatever it does."""

    about = dict(version="2.13.0", device="cpu", threads=2, view="crop_flip")

    def __init__(self, ours, states):
        self.ours, self.names = ours, [p.name for p in ours.method.phases()]
        assert len(states) == 2

    def phase(self, number, phase, selection, steps):
        assert phase.name in self.names and steps == 1
        return self.inference(losses={"jax": 2.5, "torch": 2.25})

    def inference(self, rows=None, **about):
        about |= {"layout": "channels_last"}
        return compare.Opponent(lambda: 2.0, about)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    """A compilation cache of this file's own, which keeps every program."""
    folder = tmp_path_factory.mktemp("cache")
    ours = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }
    before = {name: jax.config.values[name] for name in ours}
    _configure(ours)
    yield folder
    _configure(before)


def _configure(fields):
    for name, value in fields.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


@pytest.fixture(scope="module")
def result(cache):
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare, "missing", lambda ours: "")
        patch.setattr(compare, "Rival", FakeRival)
        result = bench_training.measure(tiny, repeats=1, steps=1, samples=300)
    # A program that was looked up there in vain would have been left there.
    assert not [*cache.iterdir()]
    return tiny, result


@pytest.fixture(autouse=True, scope="module")
def no_files(tmp_path_factory):
    """No CIFAR in the usual places, no PyTorch, wherever the tests run."""
    empty = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lists, "usual_places", lambda: [empty])
        patch.setattr(command, "has_torch", lambda: False)
        yield


def test_rows(result):
    _, measured = result
    rows = {row["what"]: row for row in measured["rows"]}
    assert list(rows) == ROWS
    for row in rows.values():
        assert row["seconds"] > 0
        rate = row["images"] / row["seconds"]
        assert row["images_per_second"] == pytest.approx(rate)
        assert row["timings"] == [row["seconds"]]
        if row["what"] in ROWS[:3]:
            theirs = row["pytorch"]
            steps = 1 if row["what"] == "inference" else 2
            assert theirs["ms_per_step"] == 2000 / steps
            assert theirs["timings"] == [2.0] and theirs["interval"] is None
            assert theirs["ratio"] == pytest.approx(2 / row["seconds"])
    # Two networks, one step each; x and u are both counted.
    counts = [row["images"] for row in rows.values()]
    assert counts == [2 * 16, 2 * 2 * 16, 128, 300]
    assert rows["semi"]["compile_seconds"] > 0


def test_the_table(result):
    tiny, measured = result
    text = bench_training.table(measured, tiny)
    assert "synthetic" in text and "cifar10 not found" in text
    assert "PyTorch 2.13.0 on cpu, 2 threads" in text
    assert "loss of semi with equal weights, views and draws: 2.500000" in text
    assert "inference: channels_last" in text
    assert all(f"\n{name} " in text for name in ROWS)
    for load, busy in ((0.9, False), (1.1, True)):
        changed = measured | {"load_average": [load, 0, 0], "cores": 2}
        text = bench_training.table(changed, tiny)
        assert ("the machine was busy" in text) == busy


def test_settings_are_left_as_they_were(result, cache):
    tiny, _ = result
    assert tiny.max_steps == 3 and tiny.model.dtype == "float32"
    jax.jit(lambda x: x + 1)(1.0)
    assert [*cache.iterdir()]


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
    assert not has_torch()
    assert asked == ["torch"]
    assert ("torch" in sys.modules) == loaded


def test_a_trainer_of_weak_views():
    """PyTorch's epochs have weak views; ours do where they are compared."""
    tiny = runs.tiny("dasc", **{"augment.strong": "digits_strong"})
    trainer = bench_training.Trainer(tiny, bench_training._dataset(tiny)[0])
    weak = bench_training._weak(trainer)
    assert weak.config.augment.strong == weak.config.augment.weak == "shift"
    assert trainer.config.augment.strong == "digits_strong"
    assert bench_training._weak(weak) is weak
