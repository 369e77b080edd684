"""SFA as its WebVision script counts."""

from dataclasses import replace

import numpy as np
import pytest

from jaxnlt.method import DataInfo
from jaxnlt.methods import sfa

OPTIONS = sfa.StochasticCentroidsOptions(beta=0.5)
DATA = DataInfo(np.array([0, 0, 1, 1], np.int32), 2)


@pytest.mark.parametrize("persist", [True, False])
def test_first_two_selections_forget_the_past(persist):
    """Centroids c, 2c, 3c: moments c, 2c, then half of it and half of 3c."""
    selector = sfa.StochasticCentroids(
        replace(OPTIONS, fresh_selections=2, persist_moments=persist)
    )
    memory = selector.init_memory()
    rows = np.array([[1.0, 0], [1, 0], [0, 1], [0, 1]])
    means = []
    for scale in (1, 2, 3):
        everyone = np.ones(4, bool)
        memory, _ = selector.moments(scale * rows, everyone, DATA, memory)
        means.append(memory.first[0, 0])
        no_noise = sfa.deviation(memory)[0, 0] == 1e-15
        assert no_noise == (scale < 3)
    assert means == [1, 2, 2.5 if persist else 1.5]


@pytest.mark.parametrize("first_exponent", [0, 1])
def test_the_exponent_counts_from(first_exponent):
    """A sample of confidence 0.6 passes while phi^e / 2 is below it."""
    selector = sfa.StochasticCentroids(
        replace(OPTIONS, phi=1.1, first_exponent=first_exponent)
    )
    logits = np.log(np.tile([0.6, 0.4], (4, 1)))
    passes = [
        bool(selector.confident(logits, DATA, epoch)[0]) for epoch in range(4)
    ]
    # 1.1^1 / 2 = 0.55, 1.1^2 / 2 = 0.605.
    assert sum(passes) == 2 - first_exponent
