"""What a method is: phases, a selector, and how its networks vote.

A method file defines a class named `Method`.  It says *when* (phase), *whom to
trust* (selector), *what to feed* (streams, views), *what to minimise* (loss)
and *how to vote* (predict); the loop in train.py does everything else.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from jaxnlt.data import sampling
from jaxnlt.runtime.errors import UserError
from jaxnlt.selection import registry as selectors

PyTree = Any
Outputs = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class DataInfo:
    """What a method may know of the training set; true labels are not in it.

    Attributes:
      labels: int32[N] given labels.
      num_classes: C.
      ids: [N] official indices (int) or relative paths (str) of the images,
        as in labels.csv; None where nothing is trained.
    """

    labels: np.ndarray
    num_classes: int
    ids: np.ndarray | None = None

    @property
    def counts(self) -> np.ndarray:
        """int64[C] samples of each given class."""
        return np.bincount(self.labels, minlength=self.num_classes)


@dataclass(frozen=True)
class Selection:
    """Whom one network trusts, as its selector saw it.

    Attributes:
      labelled: int[n] rows whose given label is trusted.
      unlabelled: int[m] rows used without their label.
      weights: float[N] per-sample weight of the given label in training.
      counts: float[C] class sizes that training takes as prior.
      clean_probability: float[N] belief that the given label is right.
      shared: further arrays handed to the loss as they are.
      per_sample: further [N, ...] arrays, handed to the loss row by row.
    """

    labelled: np.ndarray
    unlabelled: np.ndarray
    weights: np.ndarray
    counts: np.ndarray
    clean_probability: np.ndarray | None = None
    shared: Mapping[str, np.ndarray] = field(default_factory=dict)
    per_sample: Mapping[str, np.ndarray] = field(default_factory=dict)


def trust_all(data: DataInfo) -> Selection:
    """The selection of a phase that has no selector."""
    size = len(data.labels)
    return Selection(
        labelled=np.arange(size),
        unlabelled=np.arange(0),
        weights=np.ones(size),
        counts=data.counts,
    )


class Selector:
    """Decides on the host whom to trust; any two-network method can take it.

    Args:
      options: its fields, of config.METHOD or of config.SELECTOR.
      heads: heads of the networks.

    Attributes:
      outputs: heads whose eval-mode values it reads.
    """

    outputs: tuple[str, ...] = ()

    def __init__(self, options: Any = None, heads: tuple[str, ...] = ()):
        self.options, self.heads = options, heads

    def init_memory(self) -> dict[str, np.ndarray]:
        """Host arrays kept from epoch to epoch for one network."""
        return {}

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: dict[str, np.ndarray],
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, dict[str, np.ndarray]]:
        """Selects for network k.

        Args:
          outputs: for every network, the [n, ...] values of the named heads on
            the phase's pool.
          k: which network's view is wanted.
          data: labels and class counts.
          memory: what network k kept from its last selection.
          epoch: epoch about to be trained, from 0.
          rng: generator of this (seed, epoch, network).

        Returns:
          The selection and the memory to keep.
        """
        raise NotImplementedError


@dataclass(frozen=True)
class Phase:
    """One kind of epoch.

    Attributes:
      name: identifies the compiled step; one loss per name.
      loss: (net, params, batch, draws, selection, carry) -> (loss, carry,
        terms).  `batch[stream]` holds `views`, `labels`, `weights` and
        `index`; `batch["epoch"]` and `batch["step"]` say when; `selection`
        holds `counts`, `num_labelled`, `num_unlabelled` and the selector's
        shared arrays.
      streams: (selection, rng) -> {stream: int32[steps, B]} of row numbers.
      views: augmentations of each stream, 'weak', 'strong' or 'none'.
      draws: (key, sizes) -> every random number the loss needs; `sizes` maps
        a stream to its rows a step.
      selector: None trusts every label.
      taught_by: 'peer' trains a network on its peer's selection, 'self' on
        its own.
      order: 'in_turn' selects for all networks, then trains one after the
        other; 'select_train_each' selects for a network's teacher just before
        the network is trained.
      peer: 'updated' shows a network its peer as it is, 'epoch_start' as it
        was before this epoch's first step (training both at once is the same),
        'none' not at all.
      trainable: whether a parameter, named by its path, is trained; others
        keep value and momentum.
      pool: (epoch, k, rng) -> rows that are inferred for selection; None
        takes all.
      pool_view: the view in which the pool is inferred, as those of streams.
      pool_train: whether a network that this epoch has trained infers the
        pool in train mode: by the statistics of batches in the pool's order,
        which move the running ones.  Only 'select_train_each' infers then.
      weight_decay: overrides the optimizer's.
      evaluated: whether its networks vote on the test images.
    """

    name: str
    loss: Callable
    streams: Callable[[Selection, np.random.Generator], dict[str, np.ndarray]]
    views: Mapping[str, tuple[str, ...]]
    draws: Callable[[jax.Array, Mapping[str, int]], Mapping] = (
        lambda key, sizes: {}
    )
    selector: Selector | None = None
    taught_by: str = "self"
    order: str = "in_turn"
    peer: str = "none"
    trainable: Callable[[tuple[str, ...]], bool] = lambda path: True
    pool: Callable[[int, int, np.random.Generator], np.ndarray] | None = None
    pool_view: str = "none"
    pool_train: bool = False
    weight_decay: float | None = None
    evaluated: bool = True

    def __post_init__(self):
        for name, known in (
            ("taught_by", ("self", "peer")),
            ("order", ("in_turn", "select_train_each")),
            ("peer", ("none", "updated", "epoch_start")),
            ("pool_view", ("none", "weak", "strong")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"Phase.{name} must be one of {known}")


class Net:
    """A network within one step; its train-mode calls move its statistics.

    Args:
      apply: (variables, images, heads, train) -> (outputs, batch_stats).
      batch_stats: running statistics before the step.
      peer: the other network's variables, or None.
    """

    def __init__(self, apply: Callable, batch_stats: PyTree, peer: PyTree):
        self._apply, self._peer = apply, peer
        self.batch_stats = batch_stats

    def __call__(self, params: PyTree, images: jax.Array, heads: tuple):
        """Train-mode outputs; only the named heads run."""
        variables = {"params": params, "batch_stats": self.batch_stats}
        outputs, self.batch_stats = self._apply(variables, images, heads, True)
        return outputs

    def guess(self, params: PyTree, images: jax.Array, heads: tuple):
        """Train-mode outputs without gradient; they move the statistics too."""
        return self(jax.lax.stop_gradient(params), images, heads)

    def frozen(self, params: PyTree, images: jax.Array, heads: tuple):
        """Eval-mode outputs, with gradient; the statistics stay."""
        variables = {"params": params, "batch_stats": self.batch_stats}
        return self._apply(variables, images, heads, False)[0]

    def peer(self, images: jax.Array, heads: tuple):
        """The peer's eval-mode outputs, without gradient."""
        return self._apply(self._peer, images, heads, False)[0]


class Method:
    """Base of all methods: what they share and may override.

    Args:
      config: the whole configuration.
      data: what may be known of the training set.

    Attributes:
      own_selector: its selector's name in jaxnlt.selectors; empty if no
        other can take its place.
      num_nets: how many networks are trained.
      heads: heads the parameters hold.
      vote: heads that `predict` adds up.
      network_options: further arguments of models.build.
    """

    own_selector = ""
    num_nets = 1
    heads: tuple[str, ...] = ("logits",)
    vote: tuple[str, ...] = ("logits",)
    network_options: Mapping[str, Any] = {}

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        self.config, self.data = config, data
        if config.selector and not self.own_selector:
            raise UserError(
                f"config.selector: {config.method} takes no other selector"
            )

    def selector(self) -> Selector:
        """Whom to trust: the method's own way, or that of config.selector."""
        name = self.config.selector or self.own_selector
        own = name == self.own_selector
        options = self.config[self.config.method if own else name]
        return selectors.create(name, options, self.heads)

    @property
    def outputs(self) -> tuple[str, ...]:
        """Heads that inference computes, for votes and selectors alike."""
        wanted = dict.fromkeys(self.vote)
        for phase in self.phases():
            if phase.selector:
                wanted |= dict.fromkeys(phase.selector.outputs)
        return tuple(wanted)

    def phases(self) -> Sequence[Phase]:
        """Every phase the method can be in."""
        raise NotImplementedError

    def phase(self, epoch: int) -> Phase:
        """The phase of an epoch, counted from 0."""
        raise NotImplementedError

    def learning_rate(self, epoch: int) -> float:
        """Step size of an epoch: constant, divided at every drop."""
        optimizer = self.config.optimizer
        passed = sum(epoch >= drop for drop in optimizer.drops)
        return optimizer.learning_rate * optimizer.drop_factor**passed

    def init_carry(self) -> PyTree:
        """Device arrays of fixed shape that a network carries along."""
        return {}

    def enter(self, epoch: int, states: list, memory: dict, fresh: Callable):
        """Called before the first epoch of every phase.

        What the phase's first selection reads was inferred before that: it
        sees the networks as the last phase left them.

        Args:
          epoch: the phase's first epoch.
          states: the networks' training states.
          memory: host arrays, {"selector": {phase: [per network]}, "method":
            {...}}.
          fresh: () -> states of new networks, drawn for this epoch.

        Returns:
          The states and memory to go on with.
        """
        return states, memory

    def end_epoch(self, phase: Phase, states: list) -> list:
        """Called after the last step of every epoch."""
        return states

    def predict(self, outputs: Sequence[Outputs], memory: Mapping):
        """Scores [N, C] of the vote: the sum of all voting logits.

        Args:
          outputs: for every network, its eval-mode heads.
          memory: what `enter` describes.

        Returns:
          [N, C] scores; the largest is the prediction.
        """
        return sum(out[head] for out in outputs for head in self.vote)

    def suggest(self, outputs: Sequence[Outputs], memory: Mapping):
        """Scores [N, C] behind suggested labels: balanced heads, if any."""
        if "balanced" in self.vote:
            return sum(out["balanced"] for out in outputs)
        return self.predict(outputs, memory)


def split_streams(labelled_batch: int, unlabelled_batch: int) -> Callable:
    """Streams of co-divided data: one pass over x, u cycled to its length.

    Where nothing is left unlabelled, u repeats labelled rows, so that shapes
    stay; `selection["num_unlabelled"]` is then 0 and the loss must not count
    them.

    Args:
      labelled_batch: rows of x a step.
      unlabelled_batch: rows of u a step.

    Returns:
      A function as `Phase.streams` wants it.
    """

    def rows(selection: Selection, rng: np.random.Generator):
        x = sampling.one_pass(selection.labelled, labelled_batch, rng)
        pool = selection.unlabelled
        if not len(pool):
            pool = selection.labelled
        u = sampling.cycle(pool, len(x), unlabelled_batch, rng)
        return {"x": x, "u": u}

    return rows


def single_stream(batch_size: int) -> Callable:
    """Stream of one pass over all trusted rows, as `Phase.streams` wants it."""
    return lambda selection, rng: {
        "x": sampling.one_pass(selection.labelled, batch_size, rng)
    }


def fifo(carry: Mapping, rows: jax.Array, keep: jax.Array) -> dict:
    """Appends rows to a first-in-first-out memory of fixed size.

    Args:
      carry: `memory` [M, D], oldest first, of which the last `fill` are valid.
      rows: [n, D] in the order they come.
      keep: bool[n] which of them enter.

    Returns:
      The new `memory` and `fill`; no gradient flows into it.

    Source: DaSC section 3.4; papers/dasc.md 6.4.
    """
    memory, fill = carry["memory"], carry["fill"]
    size = memory.shape[0]
    rows = jax.lax.stop_gradient(rows).astype(memory.dtype)
    valid = jnp.concatenate([jnp.arange(size) >= size - fill, keep])
    # A stable sort moves the invalid rows to the front and keeps the order.
    order = jnp.argsort(valid, stable=True)[len(rows) :]
    memory = jnp.concatenate([memory, rows])[order]
    fill = jnp.minimum(size, fill + keep.sum(dtype=fill.dtype))
    return {"memory": memory, "fill": fill}


def create(config: ml_collections.ConfigDict, data: DataInfo) -> Method:
    """The method that `config.method` names, from its file of that name."""
    module = importlib.import_module(f"jaxnlt.methods.{config.method}")
    return module.Method(config, data)


def init_state(initial: PyTree, carry: PyTree) -> dict:
    """Training state of one network; its tree never changes shape.

    Args:
      initial: `params` and `batch_stats`.
      carry: the method's device arrays.

    Returns:
      Dict of `params`, `batch_stats`, `opt_state` (momentum) and `carry`.
    """
    momentum = jax.tree.map(np.zeros_like, initial["params"])
    return {
        "params": initial["params"],
        "batch_stats": initial["batch_stats"],
        "opt_state": optax.TraceState(trace=momentum),
        "carry": carry,
    }


def variables(state: Mapping) -> dict:
    """The part of a training state that `Network.apply` takes."""
    return {name: state[name] for name in ("params", "batch_stats")}
