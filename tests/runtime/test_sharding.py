"""Which devices a mesh takes, and what comes back from them."""

import jax
import numpy as np
import pytest

from jaxnlt.runtime import sharding


class Device:
    pass


@pytest.mark.parametrize(
    "sizes, used", [([32], 8), ([32, 20], 4), ([7], 7), ([5, 3], 1)]
)
def test_mesh_takes_the_most_devices_that_divide(
    sizes, used, monkeypatch, caplog
):
    devices = [Device() for _ in range(8)]
    taken = {}
    monkeypatch.setattr(jax, "devices", lambda: devices)
    monkeypatch.setattr(
        jax,
        "make_mesh",
        lambda shape, names, axis_types, devices: taken.update(
            shape=shape, devices=devices
        ),
    )
    sharding.make_mesh(sizes)
    assert taken["shape"] == (used,) and len(taken["devices"]) == used
    assert ("devices used" in caplog.text) == (used < 8)


def test_fetch_copies():
    value = jax.numpy.arange(3.0)
    first = sharding.fetch({"a": value})["a"]
    assert isinstance(first, np.ndarray) and first.flags.writeable
    first[0] = 7
    assert value[0] == 0
