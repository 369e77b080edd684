"""One device and two compute the same function, in float64 to 1e-10."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxnlt import sharding

# Fake devices need a process of their own: JAX counts them once.
SCRIPT = """
import json, sys
sys.path.insert(0, {root!r})
import jax, numpy as np
from jaxnlt import checkpoint, data, sharding
from jaxnlt.trainer import Trainer
from tests.runs import tiny

config = tiny(**{{"model.dtype": "float64", "max_steps": 3}})
dataset, make_mesh = data.load(config), sharding.make_mesh
results = {{}}
for count in (1, 2):
    sharding.make_mesh = lambda sizes: jax.make_mesh(
        (count,), ("data",), devices=jax.devices()[:count],
        axis_types=(jax.sharding.AxisType.Auto,),
    )
    trainer = Trainer(config, dataset)
    states = trainer.put(trainer.init_states())
    memory = trainer.init_memory()
    for epoch in (2,):  # semi-supervised: every kind of operation
        phase = trainer.method.phase(epoch)
        pooled = sharding.fetch(trainer.infer_pools(epoch, phase, states))
        states, memory, facts = trainer.train(
            epoch, phase, states, pooled, memory, lambda *args: None
        )
    assert {{len(leaf.sharding.device_set) for leaf in jax.tree.leaves(states)
             }} == {{count}}
    results[count] = [np.asarray(x, np.float64)
                      for x in jax.tree.leaves(sharding.fetch(states))]
worst = {{
    count: max(np.abs(a - b).max(initial=0)
               for a, b in zip(results[1], results[count], strict=True))
    for count in (2,)
}}
moved = max(np.abs(a).max(initial=0) for a in results[1])
print(json.dumps([worst, moved]))
"""


def test_one_device_or_two_compute_the_same(tmp_path):
    root = str(pathlib.Path(__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(root=root)],
        env=os.environ
        | {
            "JAX_ENABLE_X64": "1",
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_COMPILATION_CACHE_DIR": os.path.expanduser(
                "~/.cache/jaxnlt/xla"
            ),
        },
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    worst, moved = json.loads(done.stdout.splitlines()[-1])
    assert moved > 0.1
    assert max(worst.values()) < 1e-10, worst


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
