"""Trains networks in PyTorch as ``jaxnlt.trainer`` trains ours."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxnlt.bench.torch.losses import LOSSES, Rows, Step
from jaxnlt.bench.torch.network import Network, Setting, Tensor
from jaxnlt.bench.torch.views import Views
from jaxnlt.config.base import OptimizerOptions


@dataclass(frozen=True)
class Task:
    """What is trained; host arrays.

    Attributes:
      method: its name.
      options: fields of ``config.METHOD``.
      optimizer: fields of ``config.optimizer``.
      networks: variables of both networks.
      blocks: residual blocks of every stage.
      labels: int [N] given labels.
    """

    method: str
    options: Any
    optimizer: OptimizerOptions
    networks: Sequence[Mapping[str, Any]]
    blocks: tuple[int, ...]
    labels: np.ndarray


@dataclass(frozen=True)
class Epoch:
    """An epoch of a phase, in which both networks train in turn.

    Attributes:
      phase: its name.
      number: of the epoch, as the method's paper counts.
      rows: for every network stream -> int [steps, B].
      views: stream -> how many views.
      weights: float [N] of the given labels.
      counts: float [C] class sizes that training takes as prior.
      num_labelled: samples whose given label is trusted.
    """

    phase: str
    number: int
    rows: Sequence[Mapping[str, np.ndarray]]
    views: Mapping[str, int]
    weights: np.ndarray
    counts: np.ndarray
    num_labelled: int


@dataclass(frozen=True)
class Given:
    """Views and draws of the first network's first step; host arrays.

    Attributes:
      views: stream -> float32 [B, H, W, C] for each view, standardised.
      coefficient: of mixup.
      permutation: int [n] partners.
      memory: float32 [M, D] keys of earlier batches; [0] if there is none.
    """

    views: Mapping[str, Sequence[np.ndarray]]
    coefficient: float
    permutation: np.ndarray
    memory: np.ndarray


class TorchTrainer:
    """Two networks in PyTorch, their optimisers and memories.

    Args:
      task: what is trained.
      views: of the training images.
      setting: device, layout and dtype.
    """

    def __init__(self, task: Task, views: Views, setting: Setting) -> None:
        import torch

        self._task, self._views, self._setting = task, views, setting
        self._rng = np.random.default_rng(0)
        self._networks = [
            Network(variables, task.blocks, setting)
            for variables in task.networks
        ]
        self._optimizers = [
            torch.optim.SGD(
                _groups(network),
                lr=task.optimizer.learning_rate,
                momentum=task.optimizer.momentum,
                weight_decay=task.optimizer.weight_decay,
                fused=True,
            )
            for network in self._networks
        ]
        self._labels = self._put(task.labels).long()
        # Of shape [0], which can be joined with rows of any length.
        empty = torch.zeros(0, device=setting.device)
        self._memories = [empty, empty]

    def train(self, epoch: Epoch) -> float:
        """Trains both networks for an epoch; returns the seconds."""
        import torch

        weights, log_prior = self._float(epoch.weights), self._log_prior(epoch)
        total = torch.zeros((), device=self._setting.device)
        alpha = self._task.options.alpha
        self._wait()
        began = time.perf_counter()
        for k, plan in enumerate(epoch.rows):
            rows = {name: self._put(index) for name, index in plan.items()}
            for i in range(len(plan["x"])):
                share = float(self._rng.beta(alpha, alpha))
                streams = {
                    name: self._rows(index[i], epoch.views[name], weights)
                    for name, index in rows.items()
                }
                images = 2 * sum(
                    len(taken.labels) for taken in streams.values()
                )
                loss, self._memories[k] = self._loss(
                    epoch,
                    i,
                    k,
                    streams,
                    max(share, 1 - share),
                    torch.randperm(images, device=self._setting.device),
                    log_prior,
                )
                self._optimizers[k].zero_grad()
                loss.backward()
                self._optimizers[k].step()
                total += loss.detach()
        self._wait()
        return time.perf_counter() - began

    def first_loss(self, epoch: Epoch, given: Given) -> float:
        """Loss of a new first network's first step.

        Args:
          epoch: its first rows are taken.
          given: views of these rows, and draws.
        """
        weights = self._float(epoch.weights)
        streams = {}
        for name, index in epoch.rows[0].items():
            rows = self._put(index[0]).long()
            views = [self._view(view) for view in given.views[name]]
            streams[name] = Rows(views, self._labels[rows], weights[rows])
        self._memories[0] = self._float(given.memory)
        loss, _ = self._loss(
            epoch,
            0,
            0,
            streams,
            given.coefficient,
            self._put(given.permutation).long(),
            self._log_prior(epoch),
        )
        return float(loss.detach())

    def infer(self, rows: np.ndarray, heads: tuple[str, ...]) -> float:
        """Runs the first network in eval mode; returns the seconds.

        Args:
          rows: int [batches, B] of the images.
          heads: to be computed.
        """
        import torch

        outputs = []
        self._wait()
        began = time.perf_counter()
        with torch.inference_mode():
            for index in rows:
                images = self._views.plain(
                    self._put(index), self._setting.layout
                )
                outputs.append(self._networks[0](images, heads, train=False))
        self._wait()
        return time.perf_counter() - began

    def _loss(
        self,
        epoch: Epoch,
        i: int,
        k: int,
        streams: Mapping[str, Rows],
        coefficient: float,
        permutation: Tensor,
        log_prior: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Loss of network k in step i, and its memory after the step."""
        options = self._task.options
        parts = epoch.num_labelled // len(streams["x"].labels) + 1
        ramp = (epoch.number + i / parts - options.warmup) / options.ramp
        step = Step(
            net=self._networks[k],
            peer=self._networks[1 - k],
            x=streams["x"],
            u=streams.get("u"),
            coefficient=coefficient,
            permutation=permutation,
            memory=self._memories[k],
            log_prior=log_prior,
            lambda_u=options.lambda_u * min(max(ramp, 0.0), 1.0),
            options=options,
        )
        return LOSSES[self._task.method][epoch.phase](step)

    def _rows(self, rows: Tensor, views: int, weights: Tensor) -> Rows:
        made = [
            self._views.weak(rows, self._setting.layout) for _ in range(views)
        ]
        return Rows(made, self._labels[rows], weights[rows])

    def _view(self, view: np.ndarray) -> Tensor:
        import torch

        moved = self._float(view).permute(0, 3, 1, 2)
        layout = getattr(torch, self._setting.layout)
        return moved.contiguous(memory_format=layout)

    def _log_prior(self, epoch: Epoch) -> Tensor:
        share = np.maximum(epoch.counts, 1) / epoch.counts.sum()
        return self._float(np.log(share))

    def _float(self, values: np.ndarray) -> Tensor:
        return self._put(np.asarray(values, np.float32))

    def _put(self, values: np.ndarray) -> Tensor:
        import torch

        return torch.tensor(values, device=self._setting.device)

    def _wait(self) -> None:
        import torch

        if self._setting.device == "cuda":
            torch.cuda.synchronize()


def _groups(network: Network) -> list[dict[str, Any]]:
    """Projectors, which DaSC trains later, and all other parameters.

    Fused SGD wants the momenta of a group to begin in one step.
    """
    late: list[Tensor] = []
    others: list[Tensor] = []
    for path, value in network.params.items():
        (late if "projector" in path else others).append(value)
    return [{"params": group} for group in (others, late) if group]
