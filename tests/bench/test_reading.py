"""The bench of reading, and the memory that streaming takes."""

import dataclasses
import json
import pickle
import sys
import tracemalloc
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxnlt import command_line
from jaxnlt.bench import command
from jaxnlt.bench import reading as bench_reading
from jaxnlt.data import load
from jaxnlt.runtime.errors import UserError
from jaxnlt.trainer import Trainer
from tests import runs
from tests.data import fake_web


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    root = fake_web.images(tmp_path_factory.mktemp("images"))
    fields = {"data.path": str(root), "data.image_size": 16, "data.workers": 2}
    fields |= {"batch_size": 4, "warmup_batch_size": 4}
    fields |= {"model.name": "preact_resnet18"}
    return runs.tiny("erm", "images", **fields)


def test_every_figure_is_measured(tiny, monkeypatch, tmp_path, capsys):
    """Through the command, which prints them and writes them as JSON."""
    monkeypatch.setattr(command, "has_torch", lambda: False)
    monkeypatch.setattr(command_line, "parse", lambda argv: (tiny, None))
    file = tmp_path / "figures.json"
    flags = ["--batches=3", "--steps=2", f"--json={file}"]
    assert bench_reading.main(["bench", *flags]) == 0
    found = json.loads(file.read_text())
    assert (found["files"], found["batch_size"], found["workers"]) == (8, 4, 2)
    assert found["images_per_second"] > 0 and found["ms_per_step"] > 0
    assert 0 < found["waiting_share"] < 1
    assert 50 < found["peak_mib"] < 1e5
    assert found["torch_images_per_second"] is None
    text = capsys.readouterr().out
    assert "2 threads" in text and "PyTorch: not installed" in text
    assert "% of it waiting for images" in text
    alone = bench_reading.measure(tiny, batches=2, steps=0)
    assert alone["ms_per_step"] is None
    assert "a step" not in bench_reading.table(alone)


def test_pytorch_reads_the_same_files(tiny, monkeypatch):
    """With a fake DataLoader: batches of what the data set gives."""
    seen = []

    class DataLoader:
        def __init__(
            self, dataset, batch_size, num_workers, multiprocessing_context
        ):
            assert num_workers == 2 and multiprocessing_context == "spawn"
            pickle.dumps(dataset)  # it is sent to the other processes
            self.dataset, self.size = dataset, batch_size

        def __iter__(self):
            for first in range(0, len(self.dataset), self.size):
                batch = [self.dataset[first + i] for i in range(self.size)]
                seen.append(np.stack(batch))
                yield seen[-1]

    for name in ("torch", "torch.utils", "torch.utils.data"):
        module = SimpleNamespace(DataLoader=DataLoader)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(command, "has_torch", lambda: True)
    found = bench_reading.measure(tiny, batches=3, steps=0)
    assert found["torch_images_per_second"] > 0
    assert [batch.shape for batch in seen] == [(4, 16, 16, 3)] * 3
    assert "PyTorch's DataLoader" in bench_reading.table(found)


def test_mistakes_are_refused(tiny, capsys):
    for config, field, given in (
        (tiny, "--batches: ", {"batches": 1}),
        (tiny, "--steps: ", {"steps": -1}),
        (runs.tiny("erm"), "config.benchmark: digits", {}),
    ):
        with pytest.raises(UserError, match=f"^{field}"):
            bench_reading.measure(config, **given)
    assert bench_reading.main(["bench", "--help"]) == 0
    assert "usage" in capsys.readouterr().out


@pytest.mark.slow
def test_memory_does_not_grow_with_the_files(tiny):
    """Host's and devices' bytes while an epoch is trained, 48 and 400 files."""
    config = tiny.copy_and_resolve_references()
    config.data.image_size, config.max_steps = 32, 0
    dataset, peaks, compiled = load.dataset(config), [], {}

    def on_devices():
        return sum(array.nbytes for array in jax.live_arrays())

    for count in (8, 48, 400):  # the first compiles
        rows = np.arange(count) % len(dataset.train)
        many = dataclasses.replace(dataset, train=dataset.train.take(rows))
        trainer = Trainer(config, many)
        trainer.steps = compiled
        states = trainer.put(trainer.init_states())
        memory = trainer.init_memory(states)
        before, seen = on_devices(), []
        tracemalloc.start()
        phase = trainer.method.phase(0)

        def note(*_, seen=seen):
            seen.append(on_devices())

        trainer.train(0, phase, states, [[]], memory, note)
        host = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(seen) == count // 4
        peaks.append(host + max(seen) - before)
    images = (400 - 48) * 32 * 32 * 3
    assert peaks[2] - peaks[1] < images / 5
