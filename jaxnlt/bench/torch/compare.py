"""PyTorch beside a trainer of ours: the same epochs in one run.

Both sides start from the same weights, take the same rows of the same images
in memory, make every view with ``config.augment.weak``, a batch at a time, and
train both networks in turn.  PyTorch runs eagerly, with fused SGD, as many
threads as XLA has, and the faster of two memory layouts.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import models
from jaxnlt.bench import command
from jaxnlt.bench.command import Figures
from jaxnlt.bench.torch.losses import LOSSES, SETTLED
from jaxnlt.bench.torch.network import BACKBONES, Setting
from jaxnlt.bench.torch.trainer import Epoch, Given, Task, TorchTrainer
from jaxnlt.bench.torch.views import CROPS, Views
from jaxnlt.config import fields
from jaxnlt.config.base import OptimizerOptions
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.method import (
    Batch,
    Division,
    Net,
    Phase,
    PyTree,
    Selection,
    Stream,
    Time,
    TrainState,
)
from jaxnlt.methods.dasc import ContrastMemory
from jaxnlt.runtime import machine
from jaxnlt.trainer import Trainer, rng_of

LAYOUTS = ("contiguous_format", "channels_last")
#: JAX's name of a backend -> PyTorch's name of the device.
DEVICES = {"cpu": "cpu", "gpu": "cuda"}
#: Timings of each layout before one is taken; the first of them warms up.
TRIALS = 3


class Opponent(NamedTuple):
    """PyTorch's side of one row.

    Attributes:
      run: does the row's work once; returns the seconds.
      about: ``layout``, the faster one, and ``losses`` of a training phase.
    """

    run: Callable[[], float]
    about: Figures


class Rival:
    """PyTorch with the weights and images of a trainer of ours.

    Args:
      ours: whose views are all weak, see ``missing``.
      states: host states of its networks, before training.

    Attributes:
      ours: the trainer.
      about: PyTorch's version, device and threads, and the augmentation.
    """

    def __init__(self, ours: Trainer, states: Sequence[TrainState]) -> None:
        import torch

        torch.set_num_threads(machine.cores())
        torch.backends.cudnn.benchmark = True
        self.ours, self._states = ours, states
        config = ours.config
        self._device = DEVICES[jax.default_backend()]
        self._task = Task(
            method=config.method,
            options=ours.method.options,
            optimizer=fields.read(
                OptimizerOptions, config.optimizer, "config.optimizer"
            ),
            networks=[state.variables for state in states],
            blocks=models.sizes(config.model)[1],
            labels=ours.info.labels,
        )
        train = ours.dataset.train
        self._views = Views(
            train.images, ours.dataset, config.augment.weak, self._device
        )
        self._trainers = {layout: self._trainer(layout) for layout in LAYOUTS}
        self.about: Figures = {
            "version": torch.__version__,
            "device": self._device,
            "threads": torch.get_num_threads(),
            "view": config.augment.weak,
        }

    def _trainer(self, layout: str) -> TorchTrainer:
        """A new one, from the initial weights."""
        dtype = self.ours.config.model.dtype
        setting = Setting(self._device, layout, dtype)
        return TorchTrainer(self._task, self._views, setting)

    def phase(
        self, number: int, phase: Phase, selection: Selection, steps: int
    ) -> Opponent:
        """The epoch that our trainer trains on a selection.

        Args:
          number: of the epoch, counted from 0.
          phase: of the epoch.
          selection: of either network.
          steps: of each network, fewer where the epoch has fewer.
        """
        losses = self.first_losses(phase, selection)
        brief = self._epoch(number, phase, selection, 1)
        layout = _fastest(
            {
                layout: partial(trainer.train, brief)
                for layout, trainer in self._trainers.items()
            }
        )
        epoch = self._epoch(number, phase, selection, steps)
        run = partial(self._trainers[layout].train, epoch)
        return Opponent(run, {"layout": layout, "losses": losses})

    def inference(self, rows: np.ndarray) -> Opponent:
        """Inference of the first network.

        Args:
          rows: int [batches, B] of the training images.
        """
        heads = self.ours.method.outputs
        layout = _fastest(
            {
                layout: partial(trainer.infer, rows[:2], heads)
                for layout, trainer in self._trainers.items()
            }
        )
        run = partial(self._trainers[layout].infer, rows, heads)
        return Opponent(run, {"layout": layout})

    def _epoch(
        self, number: int, phase: Phase, selection: Selection, steps: int
    ) -> Epoch:
        ours, rows = self.ours, []
        for k in range(ours.method.num_nets):
            rng = rng_of(ours.config.seed, number, k, 3)  # as ours draws them
            plan = phase.streams(selection, rng)
            rows.append({name: index[:steps] for name, index in plan.items()})
        return Epoch(
            phase=phase.name,
            number=number + getattr(ours.method, "first_epoch", 0),
            rows=rows,
            views={name: len(views) for name, views in phase.views.items()},
            weights=selection.weights,
            counts=selection.counts,
            num_labelled=len(selection.labelled),
        )

    def first_losses(self, phase: Phase, selection: Selection) -> Figures:
        """Both sides' loss of one step with equal weights, views and draws.

        The weights are the initial ones, the time is the last epoch, when the
        squared error has its full weight, and a memory of keys is full.

        Args:
          phase: of the step.
          selection: whose rows are taken; weights of labels are drawn.

        Returns:
          ``jax`` and ``torch``, numbers.
        """
        ours, rng = self.ours, np.random.default_rng(0)
        weights = rng.random(len(ours.info.labels))
        selection = replace(selection, weights=weights)
        epoch = self._epoch(ours.config.epochs - 1, phase, selection, 1)
        rows = {name: len(index[0]) for name, index in epoch.rows[0].items()}
        shape, carry = (
            ours.dataset.train.images.shape[1:],
            self._states[0].carry,
        )
        keys = np.zeros(0)
        if isinstance(carry, ContrastMemory):
            keys = rng.standard_normal(carry.rows.shape)
            keys /= np.linalg.norm(keys, axis=1, keepdims=True)
        given = Given(
            views={
                name: list(rng.standard_normal((count, rows[name], *shape)))
                for name, count in epoch.views.items()
            },
            coefficient=0.7,
            permutation=rng.permutation(2 * sum(rows.values())),
            memory=keys,
        )
        return {
            "jax": self._our_loss(phase, selection, epoch, given),
            "torch": self._trainer(LAYOUTS[0]).first_loss(epoch, given),
        }

    def _our_loss(
        self, phase: Phase, selection: Selection, epoch: Epoch, given: Given
    ) -> float:
        """Our loss of what PyTorch's ``first_loss`` is given."""
        ours, (own, peer) = self.ours, self._states
        dtype, carry = ours.float_dtype, own.carry
        if isinstance(carry, ContrastMemory):
            size = np.int32(len(given.memory))
            carry = ContrastMemory(given.memory.astype(dtype), size)
        streams = {}
        for name, rows in epoch.rows[0].items():
            index = jnp.asarray(rows[0])
            streams[name] = Stream(
                index=index,
                labels=jnp.asarray(ours.info.labels)[index],
                weights=jnp.asarray(selection.weights, dtype)[index],
                per_sample=(),
                views=tuple(jnp.asarray(v, dtype) for v in given.views[name]),
            )
        number = jnp.asarray(ours.config.epochs - 1, dtype)
        batch = Batch(streams, Time(number, jnp.zeros((), dtype)))
        draws = MixupDraws(
            jnp.asarray(given.coefficient, dtype),
            jnp.asarray(given.permutation),
        )
        division = Division(
            counts=jnp.asarray(selection.counts, dtype),
            num_labelled=jnp.asarray(len(selection.labelled), dtype),
            num_unlabelled=jnp.asarray(len(selection.unlabelled), dtype),
            shared=(),
        )

        @jax.jit
        def loss(own: PyTree, peer: PyTree, batch: Batch, carry: PyTree) -> Any:
            net = Net(ours.network.apply, own["batch_stats"], peer)
            result = phase.loss(
                net, own["params"], batch, draws, division, carry
            )
            return result.loss

        return float(loss(own.variables, peer.variables, batch, carry))


def _fastest(layouts: dict[str, Callable[[], float]]) -> str:
    """The layout whose work takes the least time."""
    seconds = {
        layout: min([run() for _ in range(TRIALS)][1:])
        for layout, run in layouts.items()
    }
    return min(seconds, key=seconds.__getitem__)


def missing(ours: Trainer) -> str:
    """Why PyTorch cannot do what a trainer does; '' where it can."""
    config, method = ours.config, ours.config.method
    if not command.has_torch():
        return "not installed"
    if method not in LOSSES:
        return f"no PyTorch step of {method}"
    for name, value in SETTLED[method].items():
        if getattr(ours.method.options, name) != value:
            return f"no PyTorch step of {method} without {name}={value}"
    if config.model.name not in BACKBONES:
        return f"no PyTorch network like {config.model.name}"
    if config.model.dtype == "float64":
        return "no PyTorch step in float64"
    if config.augment.weak not in CROPS:
        return f"no PyTorch augmentation like {config.augment.weak}"
    if not isinstance(ours.dataset.train.images, np.ndarray):
        return "no PyTorch step of images that are read from disk"
    if ours.mesh.devices.size > 1:
        return f"PyTorch would use one of {ours.mesh.devices.size} devices"
    kind = jax.default_backend()
    if kind == "gpu":
        import torch

        if not torch.cuda.is_available():
            return "the installed PyTorch has no GPU"
    elif kind not in DEVICES:
        return f"no PyTorch device like {kind}"
    return ""


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Figures:
    """How many times as fast ours is, over paired timings.

    Args:
      ours: seconds.
      theirs: seconds of the timings that follow ours.

    Returns:
      ``ratio``, the geometric mean of theirs / ours, and ``interval``, the
      ends of its 95 % interval by Student's t of the logarithms; None of a
      single pair.
    """
    from scipy import stats

    logs = [math.log(b / a) for a, b in zip(ours, theirs, strict=True)]
    mean, interval = statistics.fmean(logs), None
    if len(logs) > 1:
        error = statistics.stdev(logs) / math.sqrt(len(logs))
        reach = float(stats.t.ppf(0.975, len(logs) - 1)) * error
        interval = [math.exp(mean - reach), math.exp(mean + reach)]
    return {"ratio": math.exp(mean), "interval": interval}
