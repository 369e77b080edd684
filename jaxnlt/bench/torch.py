"""The warm-up step here and in PyTorch, where PyTorch is installed.

Both sides take the same step: a forward and backward pass on each of two given
float32 views (no augmentation, no copy to the device is timed), cross-entropy
of one head plus balanced softmax of the other, averaged over the views, then
SGD with momentum and weight decay.  They start from the same weights and see
the same batch, with as many threads.  No other file imports PyTorch.
"""

import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxnlt import method as base
from jaxnlt import models, step
from jaxnlt.bench.command import Figures
from jaxnlt.data import decode, files
from jaxnlt.data.records import Dataset
from jaxnlt.method import Batch, Division, Phase, Stream, Time, TrainState

HEADS = ("logits", "balanced")

#: A ``torch.Tensor``; PyTorch is imported where it is used.
Tensor = Any
#: Takes a training step and returns its loss, a scalar that may be on its way.
Advance = Callable[[], Any]


def available() -> bool:
    """Whether PyTorch can be imported; does not import it."""
    return importlib.util.find_spec("torch") is not None


def threads() -> int:
    """CPU cores that this process may use, as XLA counts them."""
    return len(os.sched_getaffinity(0))


def compare(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    repeats: int,
    steps: int,
) -> Figures:
    """Times both sides.

    Args:
      config: of a method whose networks have both heads.
      dataset: gives image shape, class counts and a batch of labels.
      repeats: timings of each side.
      steps: steps a timing.

    Returns:
      ``ratio`` (seconds of a PyTorch step over seconds of ours: above 1, ours
      is faster), median ``jax_seconds`` and ``torch_seconds`` a step,
      ``torch_layout`` (the faster of both memory layouts),
      ``torch_one_thread_seconds`` in that layout, ``losses`` of the first two
      steps of either side, ``device``, ``threads``, ``batch_size``,
      ``versions``; or only ``missing``, the reason why nothing was compared.
    """
    config = config.copy_and_resolve_references()
    config.model.dtype = "float32"
    info = base.DataInfo(dataset.train.labels, dataset.num_classes)
    method = base.create(config, info)
    if not set(HEADS) <= set(method.heads):
        return {"missing": f"{config.method} has no balanced head"}
    network = models.build(
        config.model, info.num_classes, method.heads, **method.network_options
    )
    shape = dataset.train.images.shape[1:]
    state = base.init_state(network.init(0, shape), method.init_carry())
    batch = _batch(config.warmup_batch_size, shape, dataset.train.labels)

    phase = method.phases()[0]
    ours, our_losses = _timed(
        _jax_step(network, phase, config, state, batch, info), repeats, steps
    )

    # Only now, so that its threads do not disturb ours.
    import torch

    kind = jax.default_backend()
    device = {"cpu": "cpu", "gpu": "cuda"}.get(kind, "")
    if not device or (device == "cuda" and not torch.cuda.is_available()):
        return {"missing": f"the installed PyTorch has no device like {kind}"}

    def theirs(layout: str, count: int) -> tuple[float, list[float]]:
        torch.set_num_threads(count)
        advance = _TorchStep(state, info.counts, config, batch, device, layout)
        return _timed(advance, repeats, steps)

    layouts = {
        layout: theirs(layout, threads())
        for layout in ("contiguous_format", "channels_last")
    }
    layout = min(layouts, key=lambda name: layouts[name][0])
    seconds, their_losses = layouts[layout]
    return {
        "ratio": seconds / ours,
        "jax_seconds": ours,
        "torch_seconds": seconds,
        "torch_layout": layout,
        # Small steps, and a busy machine, can be slower with more threads.
        "torch_one_thread_seconds": theirs(layout, 1)[0],
        "losses": {"jax": our_losses, "torch": their_losses},
        "device": device,
        "threads": threads(),
        "batch_size": config.warmup_batch_size,
        "versions": {"jax": jax.__version__, "torch": torch.__version__},
    }


def _timed(
    advance: Advance, repeats: int, steps: int
) -> tuple[float, list[float]]:
    """Median seconds a step, and the losses of the first two steps."""
    losses = [float(advance()) for _ in range(2)]
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        for _ in range(steps - 1):
            advance()
        # Reading the loss waits for this step, and so for all before it.
        float(advance())
        seconds.append((time.perf_counter() - began) / steps)
    return statistics.median(seconds), losses


class _Crops:
    """A map-style data set: a training crop for every position of ``rows``."""

    def __init__(self, images: files.CutImages, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return self.rows.size

    def __getitem__(self, position: int) -> np.ndarray:
        numbers = np.random.default_rng(position).random(decode.UNIFORMS)
        pixels = self.images.files.open(int(self.rows.flat[position]))
        (view,) = decode.views(pixels, self.images.transform, [numbers])
        return view.copy()  # a tensor wants memory that it may write to


def reading(images: files.CutImages, rows: np.ndarray, workers: int) -> float:
    """PyTorch's DataLoader over the same files, decoded and cut by Pillow.

    Args:
      images: the files and how they are cut; every crop is a training crop.
      rows: int [batches, B] which of them, two batches at least.
      workers: processes that decode.

    Returns:
      Images a second from the second batch on: the processes have started.
    """
    from torch.utils.data import DataLoader

    loader = DataLoader(
        _Crops(images, rows),  # type: ignore[arg-type, unused-ignore]
        batch_size=rows.shape[1],
        num_workers=workers,
        # A fork of a process in which JAX has threads may hang.
        multiprocessing_context="spawn",
    )
    batches = iter(loader)
    next(batches)
    began = time.perf_counter()
    seen = sum(len(batch) for batch in batches)
    return seen / (time.perf_counter() - began)


def _batch(size: int, shape: tuple[int, ...], labels: np.ndarray) -> Batch:
    """Two random views of ``size`` images, with labels of the training set."""
    rng = np.random.default_rng(0)
    views = rng.standard_normal((2, size, *shape)).astype(np.float32)
    stream = Stream(
        index=np.arange(size, dtype=np.int32),
        labels=rng.choice(labels, size).astype(np.int32),
        weights=np.ones(size, np.float32),
        per_sample=(),
        views=tuple(views),
    )
    return Batch({"x": stream}, Time(np.float32(0), np.float32(0)))


def _jax_step(
    network: models.Network,
    phase: Phase,
    config: ml_collections.ConfigDict,
    state: TrainState,
    batch: Batch,
    info: base.DataInfo,
) -> Advance:
    """One training step of the given phase."""
    optimizer = config.optimizer
    division = Division(
        counts=info.counts.astype(np.float32),
        num_labelled=np.float32(len(info.labels)),
        num_unlabelled=np.float32(0),
        shared=(),
    )

    def update(
        state: TrainState, batch: Batch
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        return step.update(
            network.apply,
            phase,
            state,
            None,
            batch,
            (),
            division,
            jax.numpy.float32(optimizer.learning_rate),
            optimizer.momentum,
            optimizer.weight_decay,
        )

    compiled = jax.jit(update, donate_argnums=0)
    held = jax.device_put(state)
    placed = jax.device_put(batch)

    def advance() -> jax.Array:
        nonlocal held
        held, terms = compiled(held, placed)
        return terms["loss"]

    return advance


class _TorchStep:
    """The same step in PyTorch, from the same weights.

    Args:
      state: of the network.
      counts: int [C] samples of each class.
      config: the whole configuration.
      batch: views and labels.
      device: ``cpu`` or ``cuda``.
      layout: memory format of images and kernels.

    Source: ``papers/preact_resnet18.md``.
    """

    def __init__(
        self,
        state: TrainState,
        counts: np.ndarray,
        config: ml_collections.ConfigDict,
        batch: Batch,
        device: str,
        layout: str,
    ) -> None:
        import torch

        self._device = device
        self._memory_format = getattr(torch, layout)
        self._blocks = models.sizes(config.model)[1]
        self._params = self._by_path(state.params)
        self._stats = self._by_path(state.batch_stats)
        for value in self._params.values():
            value.requires_grad_()
        self._views = [
            torch.tensor(
                np.asarray(view).transpose(0, 3, 1, 2), device=device
            ).contiguous(memory_format=self._memory_format)
            for view in batch.x.views
        ]
        labels = torch.tensor(np.asarray(batch.x.labels), device=device)
        self._labels = labels.long()
        share = np.maximum(counts, 1) / counts.sum()
        self._log_prior = torch.tensor(np.log(share), device=device).float()
        optimizer = config.optimizer
        self._optimizer = torch.optim.SGD(
            self._params.values(),
            lr=optimizer.learning_rate,
            momentum=optimizer.momentum,
            weight_decay=optimizer.weight_decay,
            fused=True,
        )

    def __call__(self) -> Tensor:
        import torch
        from torch.nn import functional

        losses = []
        for view in self._views:
            x = self._features(view)
            balanced = self._linear(x, "balanced") + self._log_prior
            losses.append(
                functional.cross_entropy(
                    self._linear(x, "logits"), self._labels
                )
                + functional.cross_entropy(balanced, self._labels)
            )
        loss = torch.stack(losses).mean()
        self._optimizer.zero_grad()
        loss.backward()
        self._optimizer.step()
        return loss.detach()

    def _by_path(self, tree: Any) -> dict[str, Tensor]:
        """Tensors of the parts that the step uses, by path."""
        used = ("backbone", "bottleneck", *HEADS)
        return {
            "/".join(key.key for key in path): self._tensor(path, leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
            if path[0].key in used
        }

    def _tensor(self, path: tuple[Any, ...], leaf: np.ndarray) -> Tensor:
        """Kernels HWIO and (in, out) become OIHW and (out, in)."""
        import torch

        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim)
        value = np.transpose(leaf, axes) if path[-1].key == "kernel" else leaf
        result = torch.tensor(np.ascontiguousarray(value), device=self._device)
        if leaf.ndim == 4:
            result = result.to(memory_format=self._memory_format)
        return result

    def _norm(self, x: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        normalised = functional.batch_norm(
            x,
            self._stats[f"{name}/mean"],
            self._stats[f"{name}/var"],
            self._params[f"{name}/scale"],
            self._params[f"{name}/bias"],
            training=True,
            momentum=0.1,
            eps=1e-5,
        )
        return functional.relu(normalised)

    def _conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        from torch.nn import functional

        kernel = self._params[f"{name}/kernel"]
        padding = kernel.shape[-1] // 2
        return functional.conv2d(x, kernel, stride=stride, padding=padding)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        return functional.linear(
            x, self._params[f"{name}/kernel"], self._params[f"{name}/bias"]
        )

    def _block(self, x: Tensor, name: str, stride: int) -> Tensor:
        a = self._norm(x, f"{name}/bn1")
        y = self._conv(a, f"{name}/conv1", stride)
        y = self._conv(self._norm(y, f"{name}/bn2"), f"{name}/conv2")
        if f"{name}/shortcut/kernel" in self._params:
            a = self._conv(a, f"{name}/shortcut", stride)
        return y + a

    def _features(self, x: Tensor) -> Tensor:
        x = self._norm(self._conv(x, "backbone/conv"), "backbone/bn")
        for i, count in enumerate(self._blocks):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                name = f"backbone/stage{i + 1}_block{j + 1}"
                x = self._block(x, name, stride)
        x = x.mean((2, 3))
        if "bottleneck/kernel" in self._params:
            return self._linear(x, "bottleneck")
        return x


def sentence(
    result: Mapping[str, Any], config: ml_collections.ConfigDict
) -> str:
    """The result of ``compare``, for the table."""
    if "missing" in result:
        return f"PyTorch: not compared, {result['missing']}"
    ours, theirs = (result["losses"][name] for name in ("jax", "torch"))
    width, blocks = models.sizes(config.model)
    return (
        f"PyTorch: {result['ratio']:.2f} x the speed of PyTorch "
        f"{result['versions']['torch']} (eager, {result['torch_layout']}, "
        f"fused SGD): {1e3 * result['jax_seconds']:.1f} ms a step against "
        f"{1e3 * result['torch_seconds']:.1f} ms, "
        f"{result['threads']} threads each (PyTorch with one thread: "
        f"{1e3 * result['torch_one_thread_seconds']:.1f} ms)\n"
        f"  compared: {config.method}'s warm-up step on {result['device']}, "
        f"two views of {result['batch_size']} images augmented beforehand, "
        f"both heads, CE + balanced softmax, SGD; PreAct ResNet width {width}, "
        f"blocks {blocks}, float32\n"
        f"  losses of the first two steps: {ours[0]:.5f} {ours[1]:.5f} here, "
        f"{theirs[0]:.5f} {theirs[1]:.5f} in PyTorch"
    )
