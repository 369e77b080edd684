"""One fixed plan of steps, to be trained on any number of devices.

``python -m tests.runtime.plan compare FOLDER COUNTS METHOD...`` trains in the
processes and on the devices that its environment names; JAX_ENABLE_X64 must be
set.  ``run WORKDIR METHOD`` is a whole run of it; ``ahead FOLDER`` dispatches
many more programs than XLA lets wait on a CPU device.

The folder keeps the selections that were made on one device, because a mixture
may turn another last bit into another split.
"""

import pathlib
import pickle
import sys
import time

import jax
import numpy as np

from jaxnlt import train as train_lib
from jaxnlt.data import load, streaming
from jaxnlt.models import network
from jaxnlt.runtime import checkpoint, preemption, processes, sharding
from jaxnlt.trainer import Trainer
from tests import runs

STEPS = 10  # of every phase
FOUND = "found.txt"  # figures of a job


SIZES = network.sizes


def sizes(model_config):
    """Reduces the post-activation ResNet to its first convolution."""
    if model_config.name == "resnet18_small":
        return model_config.width, (0,)
    return SIZES(model_config)


def configuration(method, dtype="float64", steps=STEPS):
    """Every phase once, one epoch of so many steps each."""
    fields = {"model.dtype": dtype, "max_steps": steps}
    if method != "h2e":  # which freezes all blocks but the last
        # A convolution and its batch statistics: a third as long to compile.
        fields["model.name"] = "resnet18_small"
    if method == "erm":  # once the real one, where it is compiled once
        fields |= {"erm.view": "strong", "augment.strong": "digits_strong"}
    return runs.tiny(method, "digits,smoke", **fields)


def first_epochs(method, epochs):
    """The first epoch of every phase that a run enters."""
    phases = [method.phase(epoch) for epoch in range(epochs)]
    return [e for e, phase in enumerate(phases) if phase not in phases[:e]]


def train(config, dataset, file, last_phase=False):
    """Leaves of the networks after the plan, float64 on the host.

    Args:
      config: of a method.
      dataset: loaded from it.
      file: selections of all epochs, and the networks before the last phase;
        written if it is not there.
      last_phase: whether to begin with these networks.
    """
    trainer = Trainer(config, dataset)
    epochs = first_epochs(trainer.method, config.epochs)
    if config.max_steps == 1:  # no step but the first
        epochs = epochs[:1]
    initial = trainer.init_states()
    known, before = {}, (initial, trainer.init_memory(initial))
    if file.exists():
        known, stored = pickle.loads(file.read_bytes())
        if last_phase:
            epochs, before = epochs[-1:], stored
    states, memory = trainer.put(before[0]), before[1]
    decide, made = trainer.select, {}

    def select(epoch, phase, pooled, memory, which):
        key = (epoch, tuple(which))
        made[key] = known.get(key) or decide(
            epoch, phase, pooled, memory, which
        )
        return made[key]

    trainer.select = select
    for epoch in epochs:
        if epoch == epochs[-1]:
            before = (sharding.fetch(states), memory)
        phase = trainer.method.phase(epoch)
        pooled = sharding.fetch(trainer.infer_pools(epoch, phase, states))
        states, memory = trainer.enter(epoch, states, memory)
        states, memory, result = trainer.train(
            epoch, phase, states, pooled, memory, lambda *args: None
        )
        assert all(len(s.labelled) for s in result.selections)
    if not known:
        file.write_bytes(pickle.dumps((made, before)))
    leaves = jax.tree.leaves(sharding.fetch(states))
    devices = {len(x.sharding.device_set) for x in jax.tree.leaves(states)}
    assert devices == {trainer.mesh.devices.size}
    return [np.asarray(leaf, np.float64) for leaf in leaves]


def largest(a, b):
    """Largest difference of two lists of arrays."""
    return max(np.abs(x - y).max(initial=0) for x, y in zip(a, b, strict=True))


def note(folder, *words):
    """Adds a line to ``FOUND`` of the folder; gloo prints to the output."""
    if processes.is_lead():
        with (folder / FOUND).open("a") as file:
            print(*words, file=file)


def use_devices(count):
    """Lets every new trainer use the first so many of all devices."""
    chosen = jax.devices()[:count]
    sharding.make_mesh = lambda sizes: jax.make_mesh(
        (count,),
        ("data",),
        devices=chosen,
        axis_types=(jax.sharding.AxisType.Auto,),
    )


def compare(folder, method, counts, dtype="float64", steps=STEPS):
    """Trains on every count of devices; notes differences from the first.

    The first count of the first call for a method is the reference, which the
    folder keeps.
    """
    config = configuration(method, dtype, steps)
    dataset = load.dataset(config)
    name = f"{method}-{dtype}"
    for count in counts:
        use_devices(count)
        leaves = train(
            config,
            dataset,
            folder / f"{name}.pkl",
            # The other phases take as long to compile and differ in no way.
            last_phase=not processes.alone(),
        )
        if not (folder / f"{name}.npz").exists():
            np.savez(folder / f"{name}.npz", *leaves)
        with np.load(folder / f"{name}.npz") as stored:
            first = [stored[key] for key in stored.files]
        note(folder, name, jax.process_count(), count, largest(leaves, first))


def run(workdir, method):
    """A run on all devices, from its start or from what the workdir holds.

    Notes the restored networks, as they are on the devices.
    """
    config = configuration(method)
    watch = preemption.Watch()
    restore = checkpoint.Checkpoints.restore

    def noted(self, states, memory):
        found = restore(self, states, memory)
        if found is None:
            return None
        placed = sharding.put(
            found.states,
            sharding.replicated(sharding.make_mesh([config.batch_size])),
        )
        digest = checkpoint.weights_sha256(sharding.fetch(placed))
        note(workdir.parent, "restored", found.epoch, digest)
        return found

    checkpoint.Checkpoints.restore = noted
    with watch.guarding():
        train_lib.run(config, workdir, watch=watch)


def ahead():
    """Dispatches as training does, the processes late in turn."""
    mesh = sharding.make_mesh([8])
    batched = sharding.batched(mesh)
    turn = jax.jit(lambda x: x[::-1] + x.mean(), out_shardings=batched)
    values = turn(sharding.put(np.zeros((8, 4)), batched))
    throttle = streaming.Throttle(np.zeros(0))
    for step in range(300):
        if step % 50 == 0 and step // 50 % 2 == jax.process_index():
            time.sleep(0.2)
        values = throttle(turn(values))
    jax.block_until_ready(values)


def main(what, folder, *rest):
    """Runs one of the commands in the first lines of this file."""
    processes.join()
    network.sizes = sizes
    folder = pathlib.Path(folder)
    if what == "run":
        return run(folder, *rest)
    if what == "ahead":
        return ahead()
    counts, *methods = rest
    for method in methods:
        compare(folder, method, map(int, counts.split(",")))
        if method == methods[0]:
            compare(folder, method, map(int, counts.split(",")), "float32", 1)
    processes.wait_for_all("plan")


if __name__ == "__main__":
    main(*sys.argv[1:])
