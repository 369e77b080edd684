"""What a method is: phases, a selector, losses, and how its networks vote.

A method's module, in ``jaxnlt/methods/`` or elsewhere, defines a class
``Method``.  It decides *when* (phase), *whom to trust* (selector), *what to
feed* (streams, views), *what to minimise* (loss) and *how to vote* (predict);
the loop in train.py does the rest.  The dataclasses are what they exchange.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from jaxnlt.auditing.statistics import Statistics
from jaxnlt.config import fields, modules, rates
from jaxnlt.data import registry, sampling
from jaxnlt.runtime.errors import UserError
from jaxnlt.selection import registry as selectors

PyTree = Any
#: An array on the devices, or on the host before it is put there.
Array = Any
#: Head -> [n, ...] values of one network on the host.
Outputs = Mapping[str, np.ndarray]
#: Head -> [B, ...] values of one network on the devices.
DeviceOutputs = Mapping[str, jax.Array]
#: (variables, images, heads, train) -> (outputs, batch_stats).
Apply = Callable[
    [PyTree, jax.Array, tuple[str, ...], bool], tuple[DeviceOutputs, PyTree]
]


# On the host -----------------------------------------------------------------


@dataclass(frozen=True)
class DataInfo:
    """What a method may know of the training set; true labels are not in it.

    Attributes:
      labels: int32 [N] given labels.
      num_classes: C.
      ids: [N] official indices (int) or relative paths (str) of the images,
        as in labels.csv; None where nothing is trained.
    """

    labels: np.ndarray
    num_classes: int
    ids: np.ndarray | None = None

    @property
    def counts(self) -> np.ndarray:
        """int64 [C], samples of each given class."""
        return np.bincount(self.labels, minlength=self.num_classes)


@dataclass(frozen=True)
class Selection:
    """Which samples a selector trusts for one network.

    Attributes:
      labelled: int [n] rows whose given label is trusted.
      unlabelled: int [m] rows that are used without their label.
      weights: float [N] weight of each given label in training.
      counts: float [C] class sizes that training takes as prior.
      clean_probability: float [N] belief that the given label is right.
      shared: pytree of further arrays for the loss, see ``Division.shared``.
      per_sample: pytree of further [N, ...] arrays; the loss receives the rows
        of its batch, see ``Stream.per_sample``.
    """

    labelled: np.ndarray
    unlabelled: np.ndarray
    weights: np.ndarray
    counts: np.ndarray
    clean_probability: np.ndarray | None = None
    shared: PyTree = ()
    per_sample: PyTree = ()


def trust_all(data: DataInfo) -> Selection:
    """The selection of a phase without a selector."""
    size = len(data.labels)
    return Selection(
        labelled=np.arange(size),
        unlabelled=np.arange(0),
        weights=np.ones(size),
        counts=data.counts,
    )


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Memory:
    """Host arrays that are kept from epoch to epoch and saved.

    Its structure never changes, its arrays may grow.

    Attributes:
      selector: phase name -> what its selector keeps for each network.
      method: what the method keeps.
      audit: ``train`` and ``held_out`` -> what the vote said of their images.
    """

    selector: dict[str, list[PyTree]]
    method: PyTree
    audit: dict[str, Statistics]


class Selector:
    """Decides on the host which samples to trust.

    Any two-network method can take another method's selector.

    Args:
      options: the fields that it reads, of its ``options_type``.
      heads: heads of the networks.

    Attributes:
      options_type: the class of its fields.
      outputs: heads whose eval-mode values it reads.
    """

    options_type: ClassVar[type[fields.OptionsClass] | None] = None
    outputs: tuple[str, ...] = ()

    def __init__(self, options: Any = None, heads: tuple[str, ...] = ()):
        self.options, self.heads = options, heads

    def init_memory(self) -> PyTree:
        """Host arrays that are kept from selection to selection."""
        return ()

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: PyTree,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, PyTree]:
        """Selects for network k.

        Args:
          outputs: for every network, the [n, ...] values of the named heads on
            the phase's pool.
          k: the network.
          data: labels and class counts of the pool.
          memory: what the last selection for network k returned.
          epoch: epoch about to be trained, from 0.
          rng: generator of this (seed, epoch, network).

        Returns:
          The selection and the memory to keep.
        """
        raise NotImplementedError


# On the devices --------------------------------------------------------------


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """Training state of one network; its tree never changes shape.

    Attributes:
      params: parameters.
      batch_stats: running statistics of the normalisation layers.
      opt_state: state of ``optimizer``, the momentum in it.
      carry: the method's device arrays.
      average: ``models.average.Average``; () without ``config.model.ema``.
    """

    params: PyTree
    batch_stats: PyTree
    opt_state: optax.OptState
    carry: PyTree
    average: PyTree = ()

    @property
    def variables(self) -> dict[str, PyTree]:
        """What ``Network.apply`` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}

    @property
    def momentum(self) -> PyTree:
        """Running mean of the gradients, a tree as ``params``."""
        return optax.tree_utils.tree_get(self.opt_state, "trace")

    def with_momentum(self, momentum: PyTree) -> "TrainState":
        """The state with another momentum."""
        changed = optax.tree_utils.tree_set(self.opt_state, trace=momentum)
        return replace(self, opt_state=changed)

    def at_rest(self) -> "TrainState":
        """The state with a momentum of zero."""
        return self.with_momentum(jax.tree.map(jnp.zeros_like, self.momentum))


def sgd(
    learning_rate: Any, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
    r"""Stochastic gradient descent as in PyTorch.

    .. math:: g \leftarrow \nabla L + \lambda p,\quad
       v \leftarrow \mu v + g,\quad p \leftarrow p - \eta v

    Args:
      learning_rate: eta, a number or a scalar array.
      momentum: mu.
      weight_decay: lambda.

    Returns:
      The transformation; its state depends on no argument.

    Source: ``papers/smr.md`` section 6.
    """
    return optax.chain(
        optax.add_decayed_weights(weight_decay),
        optax.sgd(learning_rate, momentum),
    )


def init_state(variables: PyTree, carry: PyTree) -> TrainState:
    """The training state of a new network.

    Args:
      variables: ``params`` and ``batch_stats``, host arrays.
      carry: the method's device arrays.

    Returns:
      The state with zero momentum, arrays on the host.
    """
    params = variables["params"]
    opt_state = jax.eval_shape(sgd(0.0, 0.0, 0.0).init, params)
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), opt_state)
    return TrainState(params, variables["batch_stats"], zeros, carry)


class Time(NamedTuple):
    """When a step is taken.

    Attributes:
      epoch: scalar, from 0.
      step: scalar, from 0 in every epoch.
    """

    epoch: Array
    step: Array


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Stream:
    """The rows that one step takes from one stream.

    Attributes:
      index: int32 [B] rows of the training set.
      labels: int32 [B] given labels.
      weights: float [B], of ``Selection.weights``.
      per_sample: pytree of [B, ...] arrays, of ``Selection.per_sample``.
      views: augmented, standardised images [B, H, W, C], or rows of features
        [B, D], one array for each view of the phase.  Before augmentation: the
        uint8 images that were read from disk, or () where they are gathered by
        ``index``.
    """

    index: Array
    labels: Array
    weights: Array
    per_sample: PyTree
    views: tuple[jax.Array, ...]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Batch:
    """What one step is fed.

    Attributes:
      streams: by name, as ``Phase.streams`` names them.
      time: epoch and step.
    """

    streams: dict[str, Stream]
    time: Time

    @property
    def x(self) -> Stream:
        """The stream ``x``: labelled samples, or all."""
        return self.streams["x"]

    @property
    def u(self) -> Stream:
        """The stream ``u``: unlabelled samples."""
        return self.streams["u"]


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Division:
    """What a loss receives of a selection, besides the rows of its batch.

    Attributes:
      counts: float [C] class sizes, of ``Selection.counts``.
      num_labelled: scalar.
      num_unlabelled: scalar; 0 where stream ``u`` repeats labelled rows.
      shared: of ``Selection.shared``.
    """

    counts: Array
    num_labelled: Array
    num_unlabelled: Array
    shared: PyTree


class LossResult(NamedTuple):
    """What a loss returns.

    Attributes:
      loss: scalar to minimise.
      terms: named scalars for metrics.jsonl.
      carry: the method's device arrays after the step.
    """

    loss: jax.Array
    terms: dict[str, jax.Array]
    carry: PyTree


class Net:
    """A network within one step; its train-mode calls move its statistics.

    Args:
      apply: function of the network.
      batch_stats: running statistics before the step.
      peer: the other network's variables, or None.
      teacher: variables that guess in place of the network's; None lets the
        network guess by itself.
    """

    def __init__(
        self,
        apply: Apply,
        batch_stats: PyTree,
        peer: PyTree,
        teacher: PyTree = None,
    ):
        self._apply, self._peer, self._teacher = apply, peer, teacher
        self.batch_stats = batch_stats

    def __call__(
        self, params: PyTree, images: jax.Array, heads: tuple[str, ...]
    ) -> DeviceOutputs:
        """Train-mode outputs; only the named heads run."""
        variables = {"params": params, "batch_stats": self.batch_stats}
        outputs, self.batch_stats = self._apply(variables, images, heads, True)
        return outputs

    def guess(
        self, params: PyTree, images: jax.Array, heads: tuple[str, ...]
    ) -> DeviceOutputs:
        """Outputs without gradient, of which targets are made.

        In train mode, which moves the statistics too; those of a teacher in
        eval mode.
        """
        if self._teacher is not None:
            return self._apply(self._teacher, images, heads, False)[0]
        return self(jax.lax.stop_gradient(params), images, heads)

    def frozen(
        self, params: PyTree, images: jax.Array, heads: tuple[str, ...]
    ) -> DeviceOutputs:
        """Eval-mode outputs, with gradient; the statistics stay."""
        variables = {"params": params, "batch_stats": self.batch_stats}
        return self._apply(variables, images, heads, False)[0]

    def peer(self, images: jax.Array, heads: tuple[str, ...]) -> DeviceOutputs:
        """The peer's eval-mode outputs, without gradient."""
        return self._apply(self._peer, images, heads, False)[0]


class Loss(Protocol):
    """The loss of a phase; every random number is in ``draws``."""

    def __call__(
        self,
        net: Net,
        params: PyTree,
        batch: Batch,
        draws: Any,
        division: Division,
        carry: PyTree,
    ) -> LossResult:
        """The loss of one batch.

        Args:
          net: the network that is trained.
          params: its parameters.
          batch: images and labels.
          draws: what ``Phase.draws`` returned.
          division: what the selection says of the whole set.
          carry: the method's device arrays.
        """


# Phases and methods ----------------------------------------------------------

#: (selection, rng) -> stream name -> int32 [steps, B] rows.
Streams = Callable[[Selection, np.random.Generator], dict[str, np.ndarray]]
#: Epoch -> how many passes it takes.
Passes = Callable[[int], int]
#: (epoch, network, rng) -> int [n] rows.
Pool = Callable[[int, int, np.random.Generator], np.ndarray]
#: Path of a parameter -> whether it is trained.
Trainable = Callable[[tuple[str, ...]], bool]
#: (key, stream name -> rows a step) -> random numbers of the loss.
Draws = Callable[[jax.Array, Mapping[str, int]], Any]
View = Literal["none", "weak", "strong"]


def no_draws(key: jax.Array, sizes: Mapping[str, int]) -> tuple[()]:
    """``Phase.draws`` of a loss without random numbers."""
    del key, sizes
    return ()


@dataclass(frozen=True)
class Phase:
    """One kind of epoch.

    Attributes:
      name: identifies the compiled step; one loss for each name.
      loss: what a step minimises.
      streams: which rows every step takes.
      views: augmentations of each stream.
      draws: samples the random numbers of the loss.
      selector: None trusts every label.
      remembers: phase with whose memory the selector goes on; '' has its own.
      taught_by: ``peer`` trains a network on its peer's selection, ``self`` on
        its own.
      order: ``in_turn`` selects for all networks, then trains one after the
        other; ``select_train_each`` selects for a network's teacher just
        before the network is trained.
      peer: ``updated`` shows a network its peer as it is, ``epoch_start`` as it
        was before this epoch's first step (as when both are trained at once),
        ``none`` not at all.
      trainable: which parameters are trained; others keep value and momentum.
      pool: rows that are inferred for selection; None takes all.
      pool_view: the view in which the pool is inferred.
      pool_train: whether a network that this epoch has trained infers the pool
        in train mode: normalised by the statistics of batches in the pool's
        order, which move the running ones.  Only ``select_train_each`` infers
        after training.
      weight_decay: overrides the optimizer's.
      rate: share of the step size that its epochs have.
      evaluated: whether its networks vote on the test images.
      passes: how often an epoch draws the streams of a selection and trains on
        them.
      keep: ``best`` leaves a network as it was best on the validation images,
        after a pass of the epoch or before it, statistics included and
        momentum not; ``last`` as the last pass has left it.
    """

    name: str
    loss: Loss
    streams: Streams
    views: Mapping[str, tuple[View, ...]]
    draws: Draws = no_draws
    selector: Selector | None = None
    remembers: str = ""
    taught_by: Literal["self", "peer"] = "self"
    order: Literal["in_turn", "select_train_each"] = "in_turn"
    peer: Literal["none", "updated", "epoch_start"] = "none"
    trainable: Trainable = lambda path: True
    pool: Pool | None = None
    pool_view: View = "none"
    pool_train: bool = False
    weight_decay: float | None = None
    rate: float = 1.0
    evaluated: bool = True
    passes: Passes = lambda epoch: 1
    keep: Literal["last", "best"] = "last"

    def __post_init__(self) -> None:
        for name in ("taught_by", "order", "peer", "pool_view", "keep"):
            hint = Phase.__annotations__[name]
            fields.check_value(hint, getattr(self, name), f"Phase.{name}")


class Method:
    """Base of all methods: what they share and may override.

    Args:
      config: the whole configuration.
      data: what may be known of the training set.

    Attributes:
      options_type: the class of its fields.
      group: of the config that holds them, the last part of config.method.
      options: these fields, checked.
      own_selector: name in selection/registry.py of its selector; empty if no
        other can take its place.
      one_batch_size: whether all epochs take ``config.batch_size``; else those
        of warm-up and plain training take ``config.warmup_batch_size``.
      num_nets: how many networks are trained.
      heads: heads that the parameters hold.
      vote: heads that ``predict`` adds up.
      network_options: further arguments of ``models.build``.

    Raises:
      UserError: a field is out of its range or not used, or no other selector
        can be taken.
    """

    options_type: ClassVar[type[fields.OptionsClass]]
    options: Any
    own_selector: ClassVar[str] = ""
    one_batch_size: ClassVar[bool] = False
    num_nets: int = 1
    heads: ClassVar[tuple[str, ...]] = ("logits",)
    vote: ClassVar[tuple[str, ...]] = ("logits",)

    def __init__(self, config: ml_collections.ConfigDict, data: DataInfo):
        self.config, self.data = config, data
        self.network_options: dict[str, Any] = {}
        self.group = modules.options_group(config.method)
        self.options = fields.read(
            self.options_type,
            config.get(self.group, {}),
            f"config.{self.group}",
        )
        if config.selector and not self.own_selector:
            raise UserError(
                f"config.selector: {config.method} takes no other selector"
            )
        usual = registry.get(config.benchmark).warmup_batch_size
        unused = {usual, config.batch_size}
        if self.one_batch_size and config.warmup_batch_size not in unused:
            raise UserError(
                f"config.warmup_batch_size: {config.method} does not use it; "
                "set config.batch_size, which all its epochs take"
            )

    def starts(self) -> dict[str, int]:
        """Fields that hold the first epoch of a phase, in their order."""
        return {}

    def check(self) -> None:
        """Refuses, before a run, fields that do not fit one another."""
        fields.check_starts(self.starts(), self.config.epochs)

    def selector(self) -> Selector:
        """The method's own selector, or the one that config.selector names."""
        name = self.config.selector or self.own_selector
        group = self.group if name == self.own_selector else name
        return selectors.create(
            name, self.config.get(group), f"config.{group}", self.heads
        )

    @property
    def batch_sizes(self) -> list[int]:
        """Sizes of the batches that it trains on."""
        warmup = [] if self.one_batch_size else [self.config.warmup_batch_size]
        return [self.config.batch_size, *warmup]

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
        """Step size of an epoch, as ``config.optimizer`` schedules it."""
        return rates.step_size(self.config, epoch)

    def init_carry(self) -> PyTree:
        """Device arrays of fixed shape that a network carries along."""
        return ()

    def init_memory(self, states: Sequence[TrainState]) -> PyTree:
        """Host arrays that the method keeps, in their final structure."""
        del states
        return ()

    def enter(
        self,
        epoch: int,
        states: list[TrainState],
        memory: Memory,
        fresh: Callable[[], list[TrainState]],
    ) -> tuple[list[TrainState], Memory]:
        """Called before the first epoch of every phase.

        The outputs that the phase's first selection reads were inferred before
        this call, from the networks as the last phase left them.

        Args:
          epoch: the phase's first epoch.
          states: the networks' training states.
          memory: host arrays.
          fresh: returns states of new networks, drawn for this epoch.

        Returns:
          The states and memory to go on with.
        """
        del epoch, fresh
        return states, memory

    def end_epoch(
        self, phase: Phase, states: list[TrainState]
    ) -> list[TrainState]:
        """Called after an epoch's last step, for averaged weights too."""
        del phase
        return states

    def predict(self, outputs: Sequence[Outputs], memory: Memory) -> np.ndarray:
        """Scores of the vote: the sum of all voting logits.

        Args:
          outputs: for every network, its eval-mode heads.
          memory: host arrays.

        Returns:
          [N, C] scores; the largest is the prediction.
        """
        del memory
        return np.asarray(
            sum(out[head] for out in outputs for head in self.vote)
        )

    def suggest(
        self, outputs: Sequence[Outputs], memory: Memory
    ) -> np.ndarray | None:
        """[N, C] scores behind suggested labels; None takes the audit's."""
        del memory
        if "balanced" not in self.vote:
            return None
        return np.asarray(sum(out["balanced"] for out in outputs))


def split_streams(
    labelled_batch: int,
    unlabelled_batch: int,
    last: sampling.LastBatch = "filled",
) -> Streams:
    """Streams of divided data: one pass over x, u cycled to its length.

    Where nothing is unlabelled, u repeats labelled rows, so that shapes stay;
    ``Division.num_unlabelled`` is then 0 and the loss must not count them.

    Args:
      labelled_batch: rows of x a step.
      unlabelled_batch: rows of u a step.
      last: see ``sampling.one_pass``.

    Returns:
      Streams ``x`` and ``u``.
    """

    def rows(
        selection: Selection, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        x = sampling.one_pass(selection.labelled, labelled_batch, rng, last)
        pool = selection.unlabelled
        if not len(pool):
            pool = selection.labelled
        u = sampling.cycle(pool, len(x), unlabelled_batch, rng, last)
        return {"x": x, "u": u}

    return rows


def single_stream(
    batch_size: int, last: sampling.LastBatch = "filled"
) -> Streams:
    """A stream ``x`` of one pass over all trusted rows."""
    return lambda selection, rng: {
        "x": sampling.one_pass(selection.labelled, batch_size, rng, last)
    }


def find(name: str) -> type[Method]:
    """The class of a method; see ``modules.load_class``."""
    return modules.load_class(name, Method)


def create(config: ml_collections.ConfigDict, data: DataInfo) -> Method:
    """The method that ``config.method`` names."""
    return find(config.method)(config, data)
