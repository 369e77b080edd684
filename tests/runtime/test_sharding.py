"""Which devices a mesh takes, and what comes back from them."""

from unittest import mock

import jax
import numpy as np
import pytest

from jaxnlt.runtime import sharding


@pytest.mark.parametrize(
    "sizes, used", [([32], 8), ([32, 20], 4), ([7], 7), ([5, 3], 1)]
)
def test_mesh_takes_the_most_devices_that_divide(
    sizes, used, monkeypatch, caplog
):
    monkeypatch.setattr(jax, "devices", lambda: [object()] * 8)
    make_mesh = mock.Mock()
    monkeypatch.setattr(jax, "make_mesh", make_mesh)
    sharding.make_mesh(sizes)
    assert make_mesh.call_args.args[0] == (used,)
    assert len(make_mesh.call_args.kwargs["devices"]) == used
    assert ("devices used" in caplog.text) == (used < 8)


def test_fetch_copies():
    value = jax.numpy.arange(3.0)
    first = sharding.fetch({"a": value})["a"]
    assert isinstance(first, np.ndarray) and first.flags.writeable
    first[0] = 7
    assert value[0] == 0
