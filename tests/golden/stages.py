"""What training does with a method, stage by stage, without compiling.

A stage is named by its trainer and what that does: 'sfa semi' traces the step
of that phase, 'sfa select' selects, 'sfa evaluate' scores the test set.
"""

import copy
import functools
import pathlib
import tempfile

import jax
import numpy as np

from configs import dasc, dividemix, erm, h2e, rolt, sfa, smr, tabasco, unicon
from jaxnlt import data, records, step
from jaxnlt.data import build_nlt
from jaxnlt.methods import base
from jaxnlt.trainer import Trainer

from ..data import fake_nlt, fakes

SIZE, CLASSES, WIDTH = 12, 3, 4

#: Trainer -> its config file, arguments and fields that make it small or show
#: all that the golden tests call.
TRAINERS = {
    "dasc": (
        dasc,
        "digits,smoke",
        {"dasc.memory_size": 4, "dasc.projection_dim": WIDTH},
    ),
    "dividemix": (dividemix, "digits,smoke,noise=flip", {}),
    "smr": (smr, "digits,smoke", {}),
    "sfa": (sfa, "digits,smoke", {}),
    "tabasco": (tabasco, "digits,smoke", {}),
    "unicon": (unicon, "digits,smoke", {"unicon.projection_dim": WIDTH}),
    "ldam": (erm, "digits,smoke,loss=ldam_drw", {}),
    "h2e": (h2e, "digits,smoke", {}),
    "tau": (erm, "digits,smoke,second=tau_norm", {}),
    "sce": (erm, "digits,smoke,loss=sce", {}),
    "gce": (erm, "digits,smoke,loss=gce", {}),
    "nce_rce": (erm, "digits,smoke,loss=nce_rce", {}),
    "rolt": (rolt, "digits,smoke,loss=ldam", {"rolt.drw_start": 0}),
    "rolt_plus": (rolt, "digits,smoke,plus=True", {}),
}


def split():
    rng = np.random.default_rng(0)
    labels = (np.arange(SIZE) % CLASSES).astype(np.int32)
    images = rng.integers(0, 256, (SIZE, 8, 8, 1), np.uint8)
    return data.Split(images, labels, labels, np.arange(SIZE))


@functools.cache
def built(name):
    """A method as `digits,smoke` runs it, with few images and a small net."""
    module, arg, fields = TRAINERS[name]
    config = module.get_config(arg)
    with config.unlocked():
        config.model.width, config.model.blocks = WIDTH, (1,)
        config.batch_size = config.warmup_batch_size = 2
        config.augment.strong = "shift"  # traces fast
        config.update_from_flattened_dict(fields)
    dataset = data.Dataset(
        *(split(), split(), ("a", "b", "c")),
        *((0.5,), (0.25,), "test", {}),
    )
    return Trainer(config, dataset)


@functools.cache
def fresh_states(name):
    """States that no stage changes; 'dasc states' is what makes them."""
    return built(name).init_states()


def trainer_of(name):
    """A built trainer with a new method, which may hold replaced functions."""
    trainer = copy.copy(built(name))
    trainer.method = base.create(trainer.config, trainer.info)
    return trainer


def first_epoch(trainer, name):
    """The first epoch of a phase, and the phase."""
    for epoch in range(trainer.config.epochs):
        phase = trainer.method.phase(epoch)
        if phase.name == name:
            return epoch, phase
    raise ValueError(f"{trainer.config.method} has no phase {name!r}")


def trace(trainer, name, states):
    """Traces the step of a phase on the first batch of its first epoch."""
    epoch, phase = first_epoch(trainer, name)
    memory = trainer.init_memory()
    states, memory = trainer.enter(epoch, states, memory)
    peer = None if phase.peer == "none" else step.variables(states[1])
    pooled = [[[out] for out in outputs(trainer.method)]]
    chosen, _ = trainer.select(epoch, phase, pooled, memory, [0])
    compiled = step.make_step(
        trainer.network, phase, trainer.config, trainer.dataset, trainer.mesh
    )

    class Traced(Exception):
        """The loop need not go on."""

    def stop(*args):
        compiled.trace(*args)
        raise Traced

    trainer.steps = {phase.name: stop}
    try:
        trainer._train_one(
            epoch, 0, phase, states[0], peer, chosen[0], lambda *args: None
        )
    except Traced:
        return
    raise AssertionError(f"{phase.name}: no step was run")


def outputs(method):
    """Fetched outputs of every network; the balanced head is sure."""
    rng = np.random.default_rng(0)
    sure = 4.0 * np.eye(CLASSES)[np.arange(SIZE) % CLASSES]
    return [
        {
            "logits": rng.normal(size=(SIZE, CLASSES)),
            "identifier": rng.normal(size=(SIZE, CLASSES)),
            "balanced": sure,
            "features": rng.normal(size=(SIZE, WIDTH)),
            "projection": rng.normal(size=(SIZE, WIDTH)),
        }
        for _ in range(method.num_nets)
    ]


def select(trainer):
    """The first selection of every network, from fetched outputs."""
    method = trainer.method
    name = next(phase.name for phase in method.phases() if phase.selector)
    epoch, phase = first_epoch(trainer, name)
    pooled = [[[out] for out in outputs(method)]]
    nets = range(method.num_nets)
    trainer.select(epoch, phase, pooled, trainer.init_memory(), nets)


def evaluate(trainer):
    """The test scores of a record."""
    test = [[out] for out in outputs(trainer.method)]
    records.test_record(trainer, test, trainer.init_memory())


def augmented(trainer):
    """Traces the view that AutoAugment makes, as the step does."""
    jax.eval_shape(
        lambda images, key: step.prepare(
            *(images, key, "strong", trainer.dataset, np.float32),
            {"strong": "autoaugment"},
        ),
        *(trainer.images, jax.random.key(0)),
    )


def infer(trainer):
    """Traces inference on the test images."""
    state = trainer.init_states()[0]
    fresh = step.Inference(
        *(trainer.network, trainer.method.outputs, trainer.config),
        *(trainer.dataset, trainer.mesh),
    )
    fresh._infer.trace(step.variables(state), trainer.images)


WITHOUT_STEP = {
    "states": Trainer.init_states,
    "select": select,
    "evaluate": evaluate,
    "augmented": augmented,
    "infer": infer,
}


def load_asym():
    """The noise that only CIFAR's classes know, on a fake CIFAR-10."""
    with tempfile.TemporaryDirectory() as folder:
        fakes.cifar10(pathlib.Path(folder) / "cifar-10-batches-py")
        fields = {"path": folder, "imb": 1.0, "noise": "asym", "rate": 0.4}
        data.load(fakes.config("cifar10", **fields))


LOADS = {
    "load": lambda: data.load(fakes.config("digits")),
    "load flip": lambda: data.load(
        fakes.config("digits", noise="flip", rate=0.2)
    ),
    "load asym": load_asym,
    "load joint_any": lambda: data.load(
        fakes.config("digits", noise="joint_any", rate=0.2)
    ),
    "load nlt": lambda: build_nlt.construct(
        fake_nlt.full_size(4), fake_nlt.options("purple", 0.4)
    ),
}


def run(stage):
    """Runs the stage of that name."""
    if stage in LOADS:
        LOADS[stage]()
        return
    name, what = stage.split()
    trainer = trainer_of(name)
    if what in WITHOUT_STEP:
        WITHOUT_STEP[what](trainer)
    else:
        trace(trainer, what, fresh_states(name))
