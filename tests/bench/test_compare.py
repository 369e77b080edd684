"""The comparison with PyTorch; what needs PyTorch is slow, or skipped."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

from jaxnlt import method as base
from jaxnlt.bench import command
from jaxnlt.bench import training as bench_training
from jaxnlt.bench.torch import compare, losses, views
from jaxnlt.data import load
from jaxnlt.trainer import Trainer
from tests import runs

has_torch = pytest.mark.skipif(not command.has_torch(), reason="no PyTorch")


def test_the_ratio_is_that_of_pairs():
    found = compare.ratio([1, 2, 4], [2, 2, 4])
    assert found["ratio"] == pytest.approx(2 ** (1 / 3))
    # Student's t of 2 degrees of freedom: 4.3027.
    error = math.log(2) / math.sqrt(3) / math.sqrt(3)
    low, high = (found["ratio"] * math.exp(s * 4.3027 * error) for s in (-1, 1))
    assert found["interval"] == pytest.approx([low, high], rel=1e-4)
    assert compare.ratio([2], [3]) == {"ratio": 1.5, "interval": None}


@pytest.mark.parametrize(
    ("method", "fields", "reason"),
    [
        ("h2e", {}, "no PyTorch step of h2e"),
        ("smr", {}, "no PyTorch step of smr"),
        ("dasc", {"dasc.midl_label": "arange"}, "dasc without midl_label=zero"),
        ("sfa", {"model.name": "resnet32"}, "network like resnet32"),
        ("sfa", {"model.dtype": "float64"}, "float64"),
        ("sfa", {"augment.weak": "flip_rotate"}, "like flip_rotate"),
        ("sfa", {}, "3 devices"),
        ("sfa", {}, "device like tpu"),
        ("sfa", {}, "read from disk"),
        ("sfa", {}, "not installed"),
        ("dasc", {}, ""),
    ],
)
def test_what_cannot_be_compared_says_why(method, fields, reason, monkeypatch):
    monkeypatch.setattr(command, "has_torch", lambda: "installed" not in reason)
    backend = "tpu" if "tpu" in reason else "cpu"
    monkeypatch.setattr("jax.default_backend", lambda: backend)
    config = runs.tiny(method, **fields)
    images = np.zeros((20, 8, 8, 1), np.uint8)
    info = base.DataInfo(np.arange(20) % 10, 10)
    train = SimpleNamespace(images=None if "disk" in reason else images)
    ours = SimpleNamespace(
        config=config,
        method=base.create(config, info),
        dataset=SimpleNamespace(train=train),
        mesh=SimpleNamespace(devices=np.zeros(3 if "3 dev" in reason else 1)),
    )
    found = compare.missing(ours)
    assert reason in found and bool(found) == bool(reason)
    result = {"pytorch": {"missing": found}, "rows": []}
    (line,) = bench_training._about_pytorch(result)
    assert line == f"PyTorch: not compared, {found}"


@pytest.fixture(scope="module", params=losses.LOSSES)
def rival(request):
    fields = {"augment.strong": "shift", "model.blocks": (1, 1)}
    config = runs.tiny(request.param, **fields)
    ours = Trainer(config, load.dataset(config))
    return ours, compare.Rival(ours, ours.init_states())


@has_torch
@pytest.mark.slow
def test_both_sides_take_the_same_step(rival):
    """With equal weights, views and draws; and PyTorch's training moves."""
    ours, rival = rival
    assert set(losses.LOSSES[ours.config.method]) == {
        phase.name for phase in ours.method.phases()
    }
    for phase in ours.method.phases():
        selection = base.trust_all(ours.info)
        if phase.selector:
            selection = bench_training._half(ours.info)
        side = rival.phase(1, phase, selection, 2)
        found = side.about["losses"]
        assert found["torch"] == pytest.approx(found["jax"], rel=1e-4)
        assert side.run() > 0
        # New networks, so that what was trained since makes no difference.
        assert rival.first_losses(phase, selection) == found
    assert rival.inference(np.arange(8).reshape(2, 4)).run() > 0


@has_torch
@pytest.mark.slow
def test_crops_of_both_sides():
    """Every crop is a window of the padded image, mirrored or not."""
    import torch

    images = np.random.default_rng(0).integers(0, 256, (3, 16, 16, 2), np.uint8)
    statistics = SimpleNamespace(mean=(0.5, 0.25), std=(0.25, 0.5))
    rows = torch.tensor([2, 0] * 20)
    mean = 255 * np.array(statistics.mean)
    std = 255 * np.array(statistics.std)
    for name, (pad, flips) in {
        "none": (0, [1]),
        "shift": (1, [1]),
        "crop_flip": (2, [1, -1]),
    }.items():
        cut = views.Views(images, statistics, name, "cpu")
        plain = cut.plain(rows, "channels_last").numpy().transpose(0, 2, 3, 1)
        np.testing.assert_allclose(
            plain, (images[rows] - mean) / std, rtol=1e-5, atol=1e-5
        )
        made = cut.weak(rows, "contiguous_format").numpy()
        levels = np.rint(made.transpose(0, 2, 3, 1) * std + mean)
        padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
        seen = set()
        for row, crop in zip(rows.tolist(), levels, strict=True):
            (found,) = [
                (top, left, flip)
                for top in range(2 * pad + 1)
                for left in range(2 * pad + 1)
                for flip in flips
                if np.array_equal(
                    padded[row, top : top + 16, left : left + 16][:, ::flip],
                    crop,
                )
            ]
            seen.add(found)
        assert len(seen) >= {0: 1, 1: 8, 2: 20}[pad]
