"""One run that most tests of the Python interface look at."""

import dataclasses
from typing import Any

import numpy as np
import pytest

import jaxnlt
from tests.data import fakes

# One network that compiles fast.
FIELDS = {
    "method": "erm",
    "epochs": 10,
    "model__width": 4,
    "model__blocks": (1,),
    "augment__weak": "shift",
    "batch_size": 16,
    "optimizer__learning_rate": 0.05,
}
NAMES = np.array(["zero", "=one", "two"])


@dataclasses.dataclass
class Fitted:
    """A finished fit and what it was given."""

    result: Any
    images: np.ndarray
    labels: np.ndarray


@pytest.fixture(scope="session")
def arrays():
    """90 digits, grey without an axis of channels, and their names."""
    train = fakes.read("digits").train
    rows = np.concatenate(
        [np.flatnonzero(train.labels == k)[:30] for k in (0, 1, 2)]
    )
    return train.images[rows, ..., 0], NAMES[train.labels[rows]]


@pytest.fixture(scope="session")
def fitted(arrays, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("api") / "new" / "run"
    result = jaxnlt.fit(*arrays, workdir=workdir, **FIELDS)
    return Fitted(result, *arrays)
