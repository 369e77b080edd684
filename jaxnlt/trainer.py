"""What one epoch is made of: selecting, training, inferring."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxnlt import infer as inference
from jaxnlt import method as base
from jaxnlt import models, step
from jaxnlt.augment import table
from jaxnlt.data import disk, streaming
from jaxnlt.data.records import Dataset
from jaxnlt.runtime import processes, sharding
from jaxnlt.runtime.errors import logger, one_of

PyTree = Any


def rng_of(*seeds: int) -> np.random.Generator:
    """Generator of a tuple of non-negative integers, independent of others."""
    return np.random.default_rng(seeds)


class Trainer:
    """A method, its networks and a data set on the devices.

    Args:
      config: the whole configuration.
      dataset: training and test images.

    Attributes:
      method: built from `config.method`.
      network: the model, functions of its variables.
      steps: compiled training step of every phase entered so far.
    """

    def __init__(self, config, dataset: Dataset):
        self.config, self.dataset = config, dataset
        for view, name in config.augment.items():
            one_of(f"config.augment.{view}", name, table.AUGMENTATIONS)
            if disk.crops(config) and table.crops(name):
                logger.warning(
                    "config.augment.%s: %s crops again what the host has "
                    "cropped; the names without a crop do not",
                    *(view, name),
                )
        self.info = base.DataInfo(
            dataset.train.labels, dataset.num_classes, dataset.train.ids
        )
        self.method = base.create(config, self.info)
        self.network = models.build(
            config.model,
            dataset.num_classes,
            self.method.heads,
            **self.method.network_options,
        )
        self.float_dtype = models.DTYPES[config.model.dtype][1]
        self.mesh = sharding.make_mesh(
            [config.batch_size, config.warmup_batch_size]
        )
        self.images = streaming.hold(dataset.train, config, self.mesh)
        self.test_images = {
            name: streaming.hold(split, config, self.mesh)
            for name, split in dataset.tests.items()
        }
        self.infer = inference.Inference(
            self.network, self.method.outputs, config, dataset, self.mesh
        )
        self.steps: dict[str, Any] = {}
        self.add = jax.jit(lambda a, b: jax.tree.map(jax.numpy.add, a, b))
        self.key = jax.random.key(config.seed)

    def put(self, tree: PyTree) -> PyTree:
        """Copies host arrays to every device."""
        return sharding.put(tree, sharding.replicated(self.mesh))

    def init_states(self, *when: int) -> list[dict]:
        """Fresh host states of all networks, from the seed (and an epoch)."""
        shape = self.dataset.train.images.shape[1:]
        return [
            base.init_state(
                self.network.init(
                    int(rng_of(self.config.seed, k, *when).integers(2**31)),
                    shape,
                ),
                self.method.init_carry(),
            )
            for k in range(self.method.num_nets)
        ]

    def init_memory(self) -> dict:
        """Fresh host memory: of every selector, and of past selections."""
        return {
            "selector": {
                phase.name: [
                    phase.selector.init_memory()
                    for _ in range(self.method.num_nets)
                ]
                for phase in self.method.phases()
                if phase.selector
            },
            "method": {},
            # Clean probabilities of the last selections, mean over networks.
            "history": np.zeros((0, len(self.info.labels)), np.float32),
        }

    def infer_test(self, states: list, name: str = "test") -> list:
        """Device outputs of every network on a set of `dataset.tests`."""
        rows = np.arange(len(self.dataset.tests[name]))
        return self.infer.every(states, self.test_images[name], rows)

    def infer_train(self, states: list) -> list:
        """Device outputs of every network on all training images."""
        rows = np.arange(len(self.dataset.train))
        return self.infer.every(states, self.images, rows)

    # Selecting ---------------------------------------------------------------

    def pools(self, epoch: int, phase: base.Phase) -> list[np.ndarray]:
        """Rows that each network's selection looks at."""
        if phase.pool is None:
            return [np.arange(len(self.info.labels))] * self.method.num_nets
        return [
            phase.pool(epoch, k, rng_of(self.config.seed, epoch, k, 1))
            for k in range(self.method.num_nets)
        ]

    def infer_pools(self, epoch: int, phase: base.Phase, states: list) -> list:
        """Device outputs of every network on every pool: [pool][network]."""
        return self.score_pools(epoch, phase, states, ())[0]

    def score_pools(
        self,
        epoch: int,
        phase: base.Phase,
        states: list,
        trained: Sequence[int],
    ) -> tuple[list, list]:
        """What `infer_pools` returns, and the states after it.

        Args:
          epoch: that selects.
          phase: its pools, their view and mode.
          states: device states.
          trained: networks that this epoch has trained so far.
        """
        if phase.selector is None or not phase.selector.outputs:
            return [], states
        pools, states = self.pools(epoch, phase), list(states)
        nets = range(len(states))
        train = [phase.pool_train and k in trained for k in nets]
        plain = [k for k in nets if phase.pool_view == "none" and not train[k]]
        pooled: list[list] = []
        for rows in pools if phase.pool else pools[:1]:
            own = [states[k] for k in plain]
            found = self.infer.every(own, self.images, rows)
            by_net = dict(zip(plain, found, strict=True))
            for k in sorted(set(nets) - set(plain)):
                # Numbers below that of the networks make training's keys.
                key = jax.random.fold_in(self.key, epoch)
                for number in (self.method.num_nets + k, len(trained)):
                    key = jax.random.fold_in(key, number)
                by_net[k], states[k] = self.infer.as_trained(
                    *(states[k], self.images, rows, key, phase.pool_view),
                    train[k],
                )
            pooled.append([by_net[k] for k in nets])
        return pooled, states

    def select(
        self,
        epoch: int,
        phase: base.Phase,
        pooled: list,
        memory: dict,
        which: Sequence[int],
    ) -> tuple[dict[int, base.Selection], dict]:
        """Selections of some networks, in rows of the whole training set.

        Args:
          epoch: about to be trained.
          phase: its selector and pool.
          pooled: fetched outputs, as `infer_pools` orders them.
          memory: host memory; not changed.
          which: the networks whose view is wanted.

        Returns:
          The selection of each, and the new memory.
        """
        if phase.selector is None:
            return {k: base.trust_all(self.info) for k in which}, memory
        # Once for all processes: what differs in a last bit would differ.
        selections, remembered = processes.decided(
            lambda: self._decide(epoch, phase, pooled, memory, which)
        )
        selector = memory["selector"] | {phase.name: remembered}
        return selections, memory | {"selector": selector}

    def _decide(self, epoch, phase, pooled, memory, which):
        remembered = list(memory["selector"][phase.name])
        pools, selections = self.pools(epoch, phase), {}
        for k in which:
            rows = pools[k]
            if phase.pool or k == which[0]:  # one pool serves all networks
                # A selector that reads no outputs has none.
                batches = pooled[k if phase.pool else 0] if pooled else []
                outputs = []  # gone before the next copy is made
                outputs = [inference.collect(b, len(rows)) for b in batches]
            info = base.DataInfo(self.info.labels[rows], self.info.num_classes)
            rng = rng_of(self.config.seed, epoch, k, 2)
            selection, remembered[k] = phase.selector.select(
                outputs, k, info, remembered[k], epoch, rng
            )
            selection = self._checked(selection, rows, k, epoch, phase)
            if phase.pool:
                selection = self._spread(selection, rows)
            selections[k] = selection
        return selections, remembered

    def _checked(self, selection, rows, k, epoch, phase) -> base.Selection:
        """Says what is odd about a selection; nobody trusted: all are."""
        if not len(selection.labelled):
            logger.warning(
                "network %d trusts no sample in epoch %d; all are trained on",
                *(k, epoch),
            )
            labels = self.info.labels[rows]
            everyone = np.arange(len(rows))
            selection = replace(
                selection,
                labelled=everyone,
                unlabelled=everyone[:0],
                counts=np.bincount(labels, minlength=self.info.num_classes),
            )
        if "u" in phase.views and not len(selection.unlabelled):
            logger.warning(
                "network %d leaves nothing unlabelled in epoch %d; the "
                "unlabelled terms weigh nothing",
                *(k, epoch),
            )
        emptied = np.flatnonzero(np.asarray(selection.counts) == 0)
        if len(emptied):
            names = ", ".join(self.dataset.class_names[c] for c in emptied[:5])
            logger.warning(
                "network %d trusts no sample of class %s in epoch %d; it "
                "counts as one in the class prior",
                *(k, names, epoch),
            )
        return selection

    def _spread(self, selection, rows) -> base.Selection:
        """Moves a pool's selection to rows of the whole training set."""
        size = len(self.info.labels)

        def spread(values):
            whole = np.zeros((size, *np.shape(values)[1:]), values.dtype)
            whole[rows] = values
            return whole

        return replace(
            selection,
            labelled=rows[selection.labelled],
            unlabelled=rows[selection.unlabelled],
            weights=spread(selection.weights),
            # A subset says nothing of the samples outside it.
            clean_probability=None,
            per_sample={
                name: spread(values)
                for name, values in selection.per_sample.items()
            },
        )

    def enter(self, epoch: int, states: list, memory: dict):
        """What the method does before the first epoch of a phase."""
        states, memory = self.method.enter(
            *(epoch, states, memory, lambda: self.init_states(epoch))
        )
        return self.put(states), memory

    # Training ----------------------------------------------------------------

    def train(
        self,
        epoch: int,
        phase: base.Phase,
        states: list,
        pooled: list,
        memory: dict,
        progress,
    ) -> tuple[list, dict, dict]:
        """Trains every network for one epoch; dispatches, never waits.

        Args:
          epoch: counted from 0.
          phase: what to do.
          states: device states; donated.
          pooled: fetched outputs for the selection.
          memory: host memory.
          progress: called as progress(network, step, steps, images).

        Returns:
          The new states, the memory, and facts of the epoch: `terms` (device
          sums, one dict a network), `steps`, `images`, `selections`,
          `bad_images` (unreadable files; None of images in memory).
        """
        nets = range(self.method.num_nets)
        start = states = list(states)
        streaming.count_bad(self.images)  # what inference met is not counted
        if phase.peer == "epoch_start":  # the originals will be donated
            start = jax.tree.map(lambda leaf: leaf.copy(), states)
        others = [(k + 1) % len(nets) for k in nets]
        teachers = others if phase.taught_by == "peer" else list(nets)
        each = phase.order == "select_train_each"
        selections, memory = self.select(
            epoch, phase, pooled, memory, teachers[:1] if each else nets
        )
        facts: dict[str, Any] = {"terms": [], "steps": [], "images": 0}
        for k in nets:
            if teachers[k] not in selections:
                fresh, states = self.score_pools(epoch, phase, states, nets[:k])
                chosen, memory = self.select(
                    *(epoch, phase, sharding.fetch(fresh), memory),
                    [teachers[k]],
                )
                selections |= chosen
            shown = states if phase.peer == "updated" else start
            peer = None
            if phase.peer != "none":
                peer = base.variables(shown[others[k]])
            states[k], terms, steps, images = self._train_one(
                *(epoch, k, phase, states[k], peer),
                *(selections[teachers[k]], progress),
            )
            facts["terms"].append(terms)
            facts["steps"].append(steps)
            facts["images"] += images
        facts["selections"] = [selections[k] for k in nets]
        facts["bad_images"] = streaming.count_bad(self.images)
        memory = _with_history(memory, facts["selections"])
        return self.method.end_epoch(phase, states), memory, facts

    def _train_one(self, epoch, k, phase, state, peer, selection, progress):
        if phase.name not in self.steps:
            self.steps[phase.name] = step.make_step(
                self.network, phase, self.config, self.dataset, self.mesh
            )
        rng = rng_of(self.config.seed, epoch, k, 3)
        plan = phase.streams(selection, rng)
        steps = len(next(iter(plan.values())))
        if self.config.max_steps:
            steps = min(steps, self.config.max_steps)
        rows = {
            name: {
                "index": index,
                "labels": self.info.labels[index].astype(np.int32),
                "weights": selection.weights[index].astype(self.float_dtype),
                **{
                    key: values[index]
                    for key, values in selection.per_sample.items()
                },
            }
            for name, index in plan.items()
        }
        shared = {
            "counts": selection.counts,
            "num_labelled": len(selection.labelled),
            "num_unlabelled": len(selection.unlabelled),
            **selection.shared,
        }
        dtype = self.float_dtype
        shared = {name: np.asarray(v, dtype) for name, v in shared.items()}
        shared = self.put(shared)
        key = jax.random.fold_in(jax.random.fold_in(self.key, epoch), k)
        rate = np.asarray(self.method.learning_rate(epoch), self.float_dtype)
        sums, images = None, 0
        held, throttle = streaming.sides(self.images)
        seeds = (self.config.seed, epoch, k)
        batches = streaming.feed(self.images, rows, phase.views, steps, seeds)
        for i, batch in enumerate(batches):
            moment = {
                "epoch": np.int32(epoch),
                "step": np.int32(i),
                "learning_rate": rate,
            }
            state, terms = self.steps[phase.name](
                *(state, peer, held, sharding.rows(batch, self.mesh)),
                *(shared, moment, key),
            )
            throttle(terms)
            sums = terms if sums is None else self.add(sums, terms)
            images += sum(len(stream["index"]) for stream in batch.values())
            progress(k, i + 1, steps, images)
        return state, sums, steps, images


def _with_history(memory: dict, selections: list[base.Selection]) -> dict:
    """Keeps the mean clean probability of the last ten selecting epochs."""
    found = [s.clean_probability for s in selections]
    clean = [values for values in found if values is not None]
    if not clean:
        return memory
    latest = np.mean(np.stack(clean), axis=0)[None].astype(np.float32)
    history = np.concatenate([memory["history"], latest])[-10:]
    return memory | {"history": history}
