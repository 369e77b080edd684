"""Epochs of a toy method, whose every value says how far a network has come.

The network is one matrix and every loss has gradient 1, so that each step of
rate 1 takes 1 off the weights.
"""

from types import SimpleNamespace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from configs import erm as erm_config
from jaxnlt import method as base
from jaxnlt import models
from jaxnlt.data.records import Dataset, Description, Split
from jaxnlt.methods import erm
from jaxnlt.runtime import sharding
from jaxnlt.trainer import Trainer

SIZE, CLASSES = 8, 3
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 1], np.int32)


def split(labels, true):
    images = np.zeros((len(labels), 2, 2, 1), np.uint8)
    images[:, 0, 0, 0] = np.arange(len(labels))
    return Split(images, labels, true, np.arange(len(labels)))


DATASET = Dataset(
    train=split(LABELS, LABELS),
    test=split(LABELS[:5], LABELS[:5]),
    class_names=("ant", "bee", "cow"),
    mean=(0.0,),
    std=(1 / 255,),
    test_kind="test",
    description=Description(noise_rate_realised=0.0),
)


class Network:
    """Scores are the weights, plus the image's number in its first pixel."""

    def init(self, seed, shape):
        del seed, shape
        return {
            "params": {"w": np.full(CLASSES, 100, np.float32)},
            "batch_stats": {},
        }

    def apply(self, variables, images, heads, train):
        del heads, train
        number = images[:, :1, 0, 0]
        scores = number + variables["params"]["w"]
        return {"logits": scores}, variables["batch_stats"]

    def seeded(self, key):
        del key
        return self.apply


class Visits(NamedTuple):
    """How often a network has selected."""

    visits: np.ndarray


class Recorder(base.Selector):
    """Trusts the rows it was made with and writes down what it is shown."""

    outputs = ("logits",)

    def __init__(self, *labelled, **fields):
        self.labelled, self.fields = labelled, fields
        self.calls = []

    def init_memory(self):
        return Visits(np.zeros(1))

    def select(self, outputs, k, data, memory, epoch, rng):
        seen = [out["logits"][:, 0] - out["logits"][0, 0] for out in outputs]
        weights = [float(out["logits"][0, 0]) for out in outputs]
        self.calls.append(
            SimpleNamespace(
                k=k,
                epoch=epoch,
                numbers=seen[0],
                weights=weights,
                labels=data.labels,
                visits=memory.visits[0],
            )
        )
        labelled = np.array(self.labelled[k % len(self.labelled)], int)
        size = len(data.labels)
        fields = {
            "labelled": labelled,
            "unlabelled": np.setdiff1d(np.arange(size), labelled),
            "weights": 10 + np.arange(size, dtype=float),
            "counts": np.bincount(
                data.labels[labelled], minlength=data.num_classes
            ),
            "clean_probability": np.full(size, 0.25 + 0.5 * k),
        }
        memory = Visits(memory.visits + 1)
        return base.Selection(**(fields | self.fields)), memory


def falling(net, params, batch, draws, division, carry):
    """Gradient 1 for every weight; the terms tell what was fed."""
    w = params["w"].sum()
    loss = w - jax.lax.stop_gradient(w)
    rows = batch.x
    terms = {
        "own": params["w"][0],
        "counts": division.counts[0],
        "num_labelled": division.num_labelled,
        "num_unlabelled": division.num_unlabelled,
        "labels": rows.labels.sum(),
        "weights": rows.weights.sum(),
        "images": rows.views[0][:, 0, 0, 0].sum(),
    }
    if net._peer is not None:
        image = jnp.zeros((1, 2, 2, 1))
        terms["peer"] = net.peer(image, ("logits",))["logits"][0, 0]
    if rows.per_sample:
        terms["extra"] = rows.per_sample["extra"].sum()
        terms["shared"] = division.shared["bonus"]
    return base.LossResult(loss, terms, carry)


def phase(name="toy", **fields):
    fields = {
        "loss": falling,
        "streams": base.single_stream(2),
        "views": {"x": ("none",)},
    } | fields
    return base.Phase(name=name, **fields)


def build(patch, *phases, num_nets=2, **methods):
    """A trainer of a toy method with the given phases, one an epoch.

    Args:
      patch: pytest's monkeypatch.
      *phases: the last one lasts.
      num_nets: how many networks the method has.
      **methods: functions that replace or add to those of the method.
    """

    class Toy(base.Method):
        options_type = erm.Options

        def phases(self):
            return tuple({p.name: p for p in phases}.values())

        def phase(self, epoch):
            return phases[min(epoch, len(phases) - 1)]

    Toy.num_nets = num_nets
    for name, function in methods.items():
        setattr(Toy, name, function)
    patch.setattr(base, "create", lambda *args: Toy(*args))
    patch.setattr(models, "build", lambda *a, **k: Network())
    return Trainer(configuration(), DATASET)


def configuration(epochs=1):
    config = erm_config.get_config()
    with config.unlocked():
        config.epochs = epochs
        config.batch_size = config.warmup_batch_size = 2
        config.eval_batch_size = 4
        config.optimizer.momentum = config.optimizer.weight_decay = 0.0
        config.optimizer.learning_rate = 1.0
    return config


def run(trainer, epochs=1):
    """Trains epochs as train.run does; gives the facts of each."""
    states = trainer.put(trainer.init_states())
    memory, records = trainer.init_memory(states), []
    for epoch in range(epochs):
        now = trainer.method.phase(epoch)
        pooled = sharding.fetch(trainer.infer_pools(epoch, now, states))
        states, memory, result = trainer.train(
            epoch, now, states, pooled, memory, lambda *args: None
        )
        terms = sharding.fetch(result.terms)
        records.append(result._replace(terms=terms))
    return SimpleNamespace(
        results=records, memory=memory, weights=[w(s) for s in states]
    )


def w(state):
    return float(state.params["w"][0])
