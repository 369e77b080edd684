"""One gather feeds all streams of a step."""

import jax
import numpy as np

from jaxnlt import step
from jaxnlt.data.streaming import InMemory
from tests import typed


def test_streams_of_other_sizes_come_out_of_one_gather():
    held = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2, 1)
    rows = {"u": np.array([3, 1]), "x": np.array([0, 5, 2, 2])}
    streams = {name: typed.stream(index=index) for name, index in rows.items()}
    views = {"u": ("weak",), "x": ("strong", "weak")}

    def run(images):
        return step.pixels(images, streams, views, devices=2)

    images = InMemory.of(held)
    found = run(images)
    assert {name: len(views) for name, views in found.items()} == {
        "u": 1,
        "x": 2,
    }
    for name, index in rows.items():
        for view in found[name]:
            np.testing.assert_array_equal(view, held[index])
    assert str(jax.make_jaxpr(run)(images)).count(" gather[") == 1
