"""What one epoch is made of: selecting, training, inferring."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import ml_collections
import numpy as np

from jaxnlt import method as method_lib
from jaxnlt import models, step
from jaxnlt.auditing import statistics
from jaxnlt.augment import table
from jaxnlt.data import decode, streaming
from jaxnlt.data.records import HELD_OUT, VALIDATION, Dataset
from jaxnlt.infer import (
    SMALLER_STEPS,
    Batches,
    Inference,
    collect,
    require_finite,
    voters,
)
from jaxnlt.method import (
    DataInfo,
    Division,
    Memory,
    Outputs,
    Phase,
    PyTree,
    Selection,
    Stream,
    Time,
    TrainState,
    trust_all,
)
from jaxnlt.models import average
from jaxnlt.runtime import processes, sharding
from jaxnlt.runtime.errors import UserError, logger

#: (network, step, steps, images) after every dispatched step.
Progress = Callable[[int, int, int, int], None]
#: Outputs of every network on every pool: [pool][network].
Pooled = list[list[Batches]]
#: The same, fetched.
FetchedPools = Sequence[Sequence[Sequence[Outputs]]]


class EpochResult(NamedTuple):
    """What an epoch leaves besides states and memory.

    Attributes:
      terms: for each network the sums of its loss terms over the steps, on
        the devices.
      steps: for each network how many steps it took.
      images: images that all steps took.
      learning_rate: step size of the epoch.
      selections: for each network its own selection.
      bad_images: files that could not be read; None of images in memory.
    """

    terms: list[dict[str, jax.Array]]
    steps: list[int]
    images: int
    learning_rate: float
    selections: list[Selection]
    bad_images: int | None


class _Validated(NamedTuple):
    """Variables of a network, and their accuracy on the validation images."""

    accuracy: float
    variables: dict[str, PyTree]


def _accuracy(network: _Validated) -> float:
    return network.accuracy


def rng_of(*seeds: int) -> np.random.Generator:
    """Generator of a tuple of non-negative integers, independent of others."""
    return np.random.default_rng(seeds)


def init_memory(
    method: method_lib.Method,
    states: Sequence[TrainState],
    size: int,
    held_out: int = 0,
) -> Memory:
    """The memory before the first epoch.

    Args:
      method: what is trained.
      states: new training states of its networks.
      size: N, training samples.
      held_out: samples of the training set that are held out.
    """
    classes = method.data.num_classes
    return Memory(
        selector={
            phase.name: [phase.selector.init_memory() for _ in states]
            for phase in method.phases()
            if phase.selector and not phase.remembers
        },
        method=method.init_memory(states),
        audit={
            "train": statistics.empty(size, classes),
            HELD_OUT: statistics.empty(held_out, classes),
        },
    )


class Trainer:
    """A method, its networks and a data set on the devices.

    Args:
      config: the whole configuration.
      dataset: training and test images.

    Attributes:
      method: built from ``config.method``.
      network: the model, functions of its variables.
      steps: compiled training step of every phase entered so far.
    """

    def __init__(self, config: ml_collections.ConfigDict, dataset: Dataset):
        self.config, self.dataset = config, dataset
        for view, name in config.augment.items():
            shape = dataset.train.images.shape[1:]
            table.check(f"config.augment.{view}", name, shape)
            if decode.crops(config) and table.crops(name):
                logger.warning(
                    "config.augment.%s: %s crops images that were cropped "
                    "when they were read; choose a name without a crop",
                    view,
                    name,
                )
        self.info = DataInfo(
            dataset.train.labels, dataset.num_classes, dataset.train.ids
        )
        self.method = method_lib.create(config, self.info)
        self.method.check()
        self._check_keeping()
        self.network = models.build(
            config.model,
            dataset.num_classes,
            self.method.heads,
            **self.method.network_options,
        )
        self.float_dtype = models.DTYPES[config.model.dtype][1]
        self.mesh = sharding.make_mesh(self.method.batch_sizes)
        self.statistics = self.put(table.as_arrays(dataset, self.float_dtype))
        self.images = streaming.hold(dataset.train, config, self.mesh)
        self.test_images = {
            name: streaming.hold(split, config, self.mesh)
            for name, split in dataset.tests.items()
        }
        self.infer = Inference(
            self.network, self.method.outputs, config, dataset, self.mesh
        )
        self.steps: dict[str, step.Step] = {}
        self.add = jax.jit(lambda a, b: jax.tree.map(jax.numpy.add, a, b))
        self.average = jax.jit(partial(average.moved, decay=config.model.ema))
        self.teacher = jax.jit(average.teacher)
        self.key = jax.random.key(config.seed)

    def _check_keeping(self) -> None:
        """Refuses to choose weights where only test images could choose."""
        keeping = [p for p in self.method.phases() if p.keep == "best"]
        if keeping and VALIDATION not in self.dataset.more_tests:
            raise UserError(
                f"config.benchmark: {self.config.benchmark} has no validation "
                f"images, by which {self.config.method} keeps its best weights"
            )

    def put(self, tree: PyTree) -> PyTree:
        """Copies host arrays to every device."""
        return sharding.put(tree, sharding.replicated(self.mesh))

    def init_states(self, *when: int) -> list[TrainState]:
        """Fresh host states of all networks, from the seed (and an epoch)."""
        shape = self.dataset.train.images.shape[1:]
        states = [
            method_lib.init_state(
                self.network.init(
                    int(rng_of(self.config.seed, k, *when).integers(2**31)),
                    shape,
                ),
                self.method.init_carry(),
            )
            for k in range(self.method.num_nets)
        ]
        if not self.config.model.ema:
            return states
        return [
            replace(state, average=average.empty(state.variables))
            for state in states
        ]

    def init_memory(self, states: Sequence[TrainState]) -> Memory:
        """Fresh host memory."""
        sizes = {k: len(split) for k, split in self.dataset.audited.items()}
        return init_memory(
            self.method, states, sizes["train"], sizes.get(HELD_OUT, 0)
        )

    def infer_test(
        self, states: Sequence[TrainState], name: str = "test"
    ) -> list[Batches]:
        """Device outputs of what votes, on a set of ``dataset.tests``."""
        rows = np.arange(len(self.dataset.tests[name]))
        return self.infer.all(voters(states), self.test_images[name], rows)

    def infer_train(self, states: Sequence[TrainState]) -> list[Batches]:
        """Device outputs of what votes, on all training images."""
        rows = np.arange(len(self.dataset.train))
        return self.infer.all(voters(states), self.images, rows)

    # Selecting ---------------------------------------------------------------

    def pools(self, epoch: int, phase: Phase) -> list[np.ndarray]:
        """Rows that each network's selection looks at."""
        if phase.pool is None:
            return [np.arange(len(self.info.labels))] * self.method.num_nets
        return [
            phase.pool(epoch, k, rng_of(self.config.seed, epoch, k, 1))
            for k in range(self.method.num_nets)
        ]

    def teaching(self, state: TrainState, task: average.Task) -> PyTree:
        """Variables of a network in a task: its own, or its average's."""
        if average.teaches(self.config.model, task):
            return self.teacher(state.average, state.variables)
        return state.variables

    def infer_pools(
        self, epoch: int, phase: Phase, states: list[TrainState]
    ) -> Pooled:
        """Device outputs of every network on every pool: [pool][network]."""
        return self.score_pools(epoch, phase, states, ())[0]

    def score_pools(
        self,
        epoch: int,
        phase: Phase,
        states: list[TrainState],
        trained: Sequence[int],
    ) -> tuple[Pooled, list[TrainState]]:
        """What ``infer_pools`` returns, and the states after it.

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
        shown = [self.teaching(state, "selection") for state in states]
        pooled: Pooled = []
        for rows in pools if phase.pool else pools[:1]:
            own = [shown[k] for k in plain]
            found = self.infer.all(own, self.images, rows)
            by_net = dict(zip(plain, found, strict=True))
            for k in sorted(set(nets) - set(plain)):
                # Training folds in numbers below that of the networks.
                key = jax.random.fold_in(self.key, epoch)
                for number in (self.method.num_nets + k, len(trained)):
                    key = jax.random.fold_in(key, number)
                # In train mode it is the network itself that moves.
                scored = states[k]
                if not train[k]:
                    scored = replace(scored, **shown[k])
                by_net[k], scored = self.infer.view(
                    scored, self.images, rows, key, phase.pool_view, train[k]
                )
                if train[k]:
                    states[k] = scored
            pooled.append([by_net[k] for k in nets])
        return pooled, states

    def select(
        self,
        epoch: int,
        phase: Phase,
        pooled: FetchedPools,
        memory: Memory,
        which: Sequence[int],
    ) -> tuple[dict[int, Selection], Memory]:
        """Selections of some networks, in rows of the whole training set.

        Args:
          epoch: about to be trained.
          phase: its selector and pool.
          pooled: fetched outputs, as ``infer_pools`` orders them.
          memory: host memory; not changed.
          which: the networks that select.

        Returns:
          The selection of each, and the new memory.
        """
        if phase.selector is None:
            return {k: trust_all(self.info) for k in which}, memory
        # One process selects: last bits may differ between processes.
        selections, kept = processes.decided(
            lambda: self._select(epoch, phase, pooled, memory, which)
        )
        place = phase.remembers or phase.name
        selector = memory.selector | {place: kept}
        return selections, replace(memory, selector=selector)

    def _select(
        self,
        epoch: int,
        phase: Phase,
        pooled: FetchedPools,
        memory: Memory,
        which: Sequence[int],
    ) -> tuple[dict[int, Selection], list[PyTree]]:
        assert phase.selector is not None
        kept = list(memory.selector[phase.remembers or phase.name])
        pools, selections = self.pools(epoch, phase), {}
        outputs: list[Outputs] = []
        for k in which:
            rows = pools[k]
            if phase.pool or k == which[0]:  # one pool serves all networks
                # A selector that reads no outputs has none.
                networks = pooled[k if phase.pool else 0] if pooled else []
                outputs = []  # freed before the next copy is made
                outputs = [collect(batches, len(rows)) for batches in networks]
            info = DataInfo(self.info.labels[rows], self.info.num_classes)
            rng = rng_of(self.config.seed, epoch, k, 2)
            selection, kept[k] = phase.selector.select(
                outputs, k, info, kept[k], epoch, rng
            )
            selection = self._checked(selection, rows, k, epoch, phase)
            if phase.pool:
                selection = self._spread(selection, rows)
            selections[k] = selection
        return selections, kept

    def _checked(
        self,
        selection: Selection,
        rows: np.ndarray,
        k: int,
        epoch: int,
        phase: Phase,
    ) -> Selection:
        """Warns of degenerate selections; an empty one trusts all samples.

        Messages count epochs from 1.
        """
        if not len(selection.labelled):
            logger.warning(
                "network %d trusts no sample in epoch %d; all are trained on",
                k,
                epoch + 1,
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
                k,
                epoch + 1,
            )
        emptied = np.flatnonzero(np.asarray(selection.counts) == 0)
        if len(emptied):
            names = ", ".join(self.dataset.class_names[c] for c in emptied[:5])
            logger.warning(
                "network %d trusts no sample of class %s in epoch %d; it "
                "counts as one in the class prior",
                k,
                names,
                epoch + 1,
            )
        return selection

    def _spread(self, selection: Selection, rows: np.ndarray) -> Selection:
        """Moves a pool's selection to rows of the whole training set."""
        size = len(self.info.labels)

        def spread(values: np.ndarray) -> np.ndarray:
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
            per_sample=jax.tree.map(spread, selection.per_sample),
        )

    def enter(
        self, epoch: int, states: list[TrainState], memory: Memory
    ) -> tuple[list[TrainState], Memory]:
        """What the method does before the first epoch of a phase.

        A network that it gives other weights begins another average.
        """
        entered, memory = self.method.enter(
            epoch, states, memory, lambda: self.init_states(epoch)
        )
        pairs = zip(states, entered, strict=True)
        return self.put([_averaging(old, new) for old, new in pairs]), memory

    # Training ----------------------------------------------------------------

    def train(
        self,
        epoch: int,
        phase: Phase,
        states: list[TrainState],
        pooled: FetchedPools,
        memory: Memory,
        progress: Progress,
    ) -> tuple[list[TrainState], Memory, EpochResult]:
        """Trains every network for one epoch; dispatches, never waits.

        Args:
          epoch: counted from 0.
          phase: what to do.
          states: device states; donated.
          pooled: fetched outputs for the selection.
          memory: host memory.
          progress: called after every dispatched step.

        Returns:
          The new states, the memory, and the epoch's result.
        """
        nets = range(self.method.num_nets)
        start = states = list(states)
        streaming.count_bad(self.images)  # forgets those of inference
        if phase.peer == "epoch_start":  # the originals will be donated
            start = jax.tree.map(lambda leaf: leaf.copy(), states)
        others = [(k + 1) % len(nets) for k in nets]
        teachers = others if phase.taught_by == "peer" else list(nets)
        each = phase.order == "select_train_each"
        selections, memory = self.select(
            epoch, phase, pooled, memory, teachers[:1] if each else nets
        )
        # A schedule may be a device computation: before any step is queued.
        rate = self.method.learning_rate(epoch) * phase.rate
        terms, steps, images = [], [], 0
        for k in nets:
            if teachers[k] not in selections:
                fresh, states = self.score_pools(epoch, phase, states, nets[:k])
                fetched = sharding.fetch(fresh)
                require_finite(fetched, f"epoch {epoch + 1}", SMALLER_STEPS)
                chosen, memory = self.select(
                    epoch,
                    phase,
                    fetched,
                    memory,
                    [teachers[k]],
                )
                selections |= chosen
            shown = states if phase.peer == "updated" else start
            peer = None
            if phase.peer != "none":
                peer = self.teaching(shown[others[k]], "guesses")
            states[k], own_terms, own_steps, own_images = self._train_one(
                epoch,
                k,
                phase,
                states[k],
                peer,
                selections[teachers[k]],
                np.asarray(rate, self.float_dtype),
                memory,
                progress,
            )
            terms.append(own_terms)
            steps.append(own_steps)
            images += own_images
        own_selections = [selections[k] for k in nets]
        result = EpochResult(
            terms,
            steps,
            images,
            rate,
            own_selections,
            streaming.count_bad(self.images),
        )
        return self._end_epoch(phase, states), memory, result

    def _end_epoch(
        self, phase: Phase, states: list[TrainState]
    ) -> list[TrainState]:
        """What the method makes of the networks, and of their averages."""
        states = self.method.end_epoch(phase, states)
        if not self.config.model.ema:
            return states
        moved = [self.average(s.average, s.variables) for s in states]
        pairs = list(zip(states, moved, strict=True))
        voting = self.method.end_epoch(
            phase, [replace(state, **mean.variables) for state, mean in pairs]
        )
        return [
            replace(state, average=replace(mean, **network.variables))
            for (state, mean), network in zip(pairs, voting, strict=True)
        ]

    def _train_one(
        self,
        epoch: int,
        k: int,
        phase: Phase,
        state: TrainState,
        peer: PyTree,
        selection: Selection,
        rate: np.ndarray,
        memory: Memory,
        progress: Progress,
    ) -> tuple[TrainState, dict[str, jax.Array], int, int]:
        """One network's epoch: its state, sums of terms, steps and images."""
        if phase.name not in self.steps:
            self.steps[phase.name] = step.make_step(
                self.network, phase, self.config, self.mesh
            )
        plan, ends = self._plan(epoch, k, phase, selection)
        steps = ends[-1]
        best = None
        if phase.keep == "best":
            best = self._validated(state, memory)
        division = self.put(self._division(selection))
        key = jax.random.fold_in(jax.random.fold_in(self.key, epoch), k)
        sums: dict[str, jax.Array] = {}
        images = 0
        held, throttle = streaming.sides(self.images)
        seeds = (self.config.seed, epoch, k)
        reads = streaming.feed(self.images, plan, phase.views, steps, seeds)
        for i, read in enumerate(reads):
            streams = {
                name: self._stream(plan[name][i], selection, read[name])
                for name in plan
            }
            state, terms = self.steps[phase.name](
                state,
                peer,
                held,
                self.statistics,
                sharding.rows(streams, self.mesh),
                division,
                Time(np.int32(epoch), np.int32(i)),
                rate,
                key,
            )
            throttle(terms)
            sums = self.add(sums, terms) if sums else terms
            images += sum(len(stream.index) for stream in streams.values())
            progress(k, i + 1, steps, images)
            if best is not None and i + 1 in ends:
                best = max(best, self._validated(state, memory), key=_accuracy)
        if best is not None:
            state = replace(state, **best.variables)
        return state, sums, steps, images

    def _plan(
        self, epoch: int, k: int, phase: Phase, selection: Selection
    ) -> tuple[dict[str, np.ndarray], list[int]]:
        """Rows of every step of all passes, and the steps after each pass."""
        rng = rng_of(self.config.seed, epoch, k, 3)
        passes = [
            phase.streams(selection, rng) for _ in range(phase.passes(epoch))
        ]
        most = self.config.max_steps or None
        plan = {
            name: np.concatenate([rows[name][:most] for rows in passes])
            for name in passes[0]
        }
        lengths = [len(next(iter(rows.values()))[:most]) for rows in passes]
        return plan, np.cumsum(lengths).tolist()

    def _validated(self, state: TrainState, memory: Memory) -> _Validated:
        """A copy of a network's variables, and what they achieve."""
        name = self.dataset.choosing
        split = self.dataset.tests[name]
        outputs = sharding.fetch(
            self.infer(
                state.variables, self.test_images[name], np.arange(len(split))
            )
        )
        scores = self.method.predict([collect(outputs, len(split))], memory)
        return _Validated(
            float(np.mean(scores.argmax(1) == split.labels)),
            # The state will be donated.
            jax.tree.map(lambda leaf: leaf.copy(), state.variables),
        )

    def _division(self, selection: Selection) -> Division:
        """What a loss receives of a selection, host arrays."""
        division = Division(
            counts=selection.counts,
            num_labelled=len(selection.labelled),
            num_unlabelled=len(selection.unlabelled),
            shared=selection.shared,
        )
        dtype = self.float_dtype
        return jax.tree.map(lambda value: np.asarray(value, dtype), division)

    def _stream(
        self, index: np.ndarray, selection: Selection, read: streaming.Read
    ) -> Stream:
        """The rows of one step, before augmentation.

        Where an image cannot be read, another row of the batch replaces it,
        the label included.
        """
        if read.source is not None:
            index = index[read.source]
        return Stream(
            index=index,
            labels=self.info.labels[index].astype(np.int32),
            weights=selection.weights[index].astype(self.float_dtype),
            per_sample=jax.tree.map(
                lambda values: values[index], selection.per_sample
            ),
            views=read.pixels,
        )


def _averaging(old: TrainState, new: TrainState) -> TrainState:
    """The new state, its average begun anew where its weights are others."""
    if not new.average:
        return new
    leaves = (jax.tree.leaves(state.variables) for state in (old, new))
    if all(a is b for a, b in zip(*leaves, strict=True)):
        return new
    return replace(new, average=replace(new.average, epochs=np.int32(0)))
