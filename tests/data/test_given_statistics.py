"""``data.mean`` and ``data.std`` of the user's own images."""

import numpy as np
import pytest

from jaxnlt.config import base
from jaxnlt.data import load
from jaxnlt.runtime.errors import UserError
from tests.data import fakes


@pytest.fixture
def path(tmp_path):
    images = np.full((8, 4, 4, 3), 51, np.uint8)
    np.savez(
        tmp_path / "a.npz", train_images=images, train_labels=np.arange(8) % 2
    )
    return tmp_path / "a.npz"


@pytest.mark.parametrize(
    ("given", "expected"),
    [((0.5,), (0.5, 0.5, 0.5)), ((0.1, 0.2, 0.3), (0.1, 0.2, 0.3))],
)
def test_one_number_or_one_a_channel(path, given, expected):
    config = fakes.config("npz", path=path, mean=given, std=(0.25,))
    dataset = load.dataset(config)
    assert (dataset.mean, dataset.std) == (expected, (0.25,) * 3)
    usual = fakes.config("npz", path=path)
    assert base.short_hash(config) != base.short_hash(usual)
    assert "data.mean" in base.difference(
        base.as_json(usual), base.as_json(config)
    )


@pytest.mark.parametrize(
    ("benchmark", "changes", "field"),
    [
        ("npz", {"mean": (0.5,)}, "std: is empty"),
        ("npz", {"std": (0.5,)}, "mean: is empty"),
        ("npz", {"mean": (0.5, 0.5), "std": (0.5,)}, "mean: .* 3 .*channels"),
        ("npz", {"mean": (0.5,), "std": (0.5, 1.0)}, "std: .* 3 .*channels"),
        ("digits", {"mean": (0.5,), "std": (0.5,)}, "mean: digits .*; npz do"),
        ("features", {"mean": (0.5,), "std": (0.5,)}, "mean: features"),
    ],
)
def test_refused_in_one_line(path, benchmark, changes, field):
    if benchmark != "digits":
        changes["path"] = path
    with pytest.raises(UserError, match=rf"^config.data.{field}.*\Z"):
        config = fakes.config(benchmark, **changes)
        load.check(config)
        load.dataset(config)
