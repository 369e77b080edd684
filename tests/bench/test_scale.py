"""What the stages of a run on many images take."""

import time
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import train
from jaxnlt.bench import scale
from jaxnlt.data import fingerprint, load

ROWS = np.arange(70)


class Counted:
    """Inference that numbers its batches, and refuses more than two."""

    batch_size = 32

    def all(self, networks, images, rows):
        batches = -(-len(rows) // self.batch_size)
        assert batches <= 2
        return [
            [{"logits": jnp.full(32, i)} for i in range(batches)]
            for _ in networks
        ]


LINUX = pytest.mark.skipif(
    not scale._STATUS.exists(), reason="reads Linux's /proc"
)


@LINUX
def test_stages_count_for_themselves():
    stages, began = scale.Stages(), time.perf_counter()
    with stages.within("outer"):
        held = np.ones(2**26, np.uint8)
        with stages.within("inner"):
            del held
            time.sleep(0.05)
    with stages.within("inner"):
        pass
    inner, outer = stages.found["inner"], stages.found["outer"]
    assert inner.seconds >= 0.05 > inner.cpu_seconds
    assert inner.seconds + outer.seconds <= time.perf_counter() - began
    # What was let go is no part of what a later stage has held.
    stages.found["inner"].mib = 0.0
    with stages.within("inner"):
        pass
    assert 0 < inner.mib < outer.mib - 32


@LINUX
def test_a_run_is_watched(monkeypatch, capsys):
    """With the data that the command makes; it trains nothing here."""
    seen, read = [], load.dataset

    def run(config, workdir, observe, quiet):
        dataset = load.dataset(config)
        fingerprint.of_dataset(dataset)
        trainer = SimpleNamespace(infer=Counted())
        observe(trainer, [], None)
        (outputs,) = trainer.infer.all(["net"], dataset.train.images, ROWS)
        assert [int(batch["logits"][0]) for batch in outputs] == [0, 1, 0]
        observe(trainer, [], None)
        assert isinstance(trainer.infer._whole, Counted)
        seen.append((config, dataset))

    monkeypatch.setattr(train, "run", run)
    flags = ["--images=200", "--classes=4", "--size=8", "--features=5"]
    flags += ["--steps=3", "--inferred=2"]
    assert scale.main(["scale", *flags]) == 0
    (config, dataset), text = seen[0], capsys.readouterr().out
    assert dataset.train.images.shape == (200, 8, 8, 3)
    assert len(dataset.test) == scale.TESTED and dataset.num_classes == 4
    wrong = (dataset.train.labels != dataset.train.true_labels).mean()
    assert 0.2 < wrong < 0.4
    assert config.data.divided and config.max_steps == 3
    assert config.dasc.projection_dim == 5
    for name in ("read", "fingerprint", "rest", "all"):
        assert f"\n{name} " in text
    assert load.dataset == read
    assert scale.main(["scale", "--classes=1"]) == 2
    assert capsys.readouterr().err.startswith("jaxnlt: error: --classes: ")
