"""The warm-up step here and in PyTorch, where PyTorch happens to be installed.

Both sides take the same step: a forward and backward pass on each of two given
float32 views (no augmentation, no copy to the device is timed), cross-entropy
of one head plus balanced softmax of the other, averaged over the views, then
SGD with momentum and weight decay.  They start from the same weights and see
the same batch, with as many threads.
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
from jaxnlt.data import decode
from jaxnlt.data.records import Dataset

HEADS = ("logits", "balanced")


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
) -> dict[str, Any]:
    """Times both sides.

    Args:
      config: of a method whose networks have both heads.
      dataset: gives image shape, class counts and a batch of labels.
      repeats: timings of each side.
      steps: steps a timing.

    Returns:
      `ratio` (seconds of a PyTorch step over seconds of ours: above 1, ours
      is faster), median `jax_seconds` and `torch_seconds` a step,
      `torch_layout` (the faster of both memory layouts),
      `torch_one_thread_seconds` in that layout, `losses` of the first two
      steps of either side, `device`, `threads`, `batch_size`, `versions`; or
      only `missing`, the reason why nothing was compared.
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

    def timed(advance: Callable[[], float]) -> tuple[float, list[float]]:
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

    phase = method.phases()[0]
    ours, our_losses = timed(_jax_step(network, phase, config, state, batch))

    # Only now, so that its threads do not disturb ours.
    import torch

    kind = jax.default_backend()
    device = {"cpu": "cpu", "gpu": "cuda"}.get(kind, "")
    if not device or (device == "cuda" and not torch.cuda.is_available()):
        return {"missing": f"the installed PyTorch has no device like {kind}"}

    def theirs(layout: str, count: int) -> tuple[float, list[float]]:
        torch.set_num_threads(count)
        advance = _torch_step(state, info.counts, config, batch, device, layout)
        return timed(advance)

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


class _Crops:
    """A map-style data set: a training crop for every position of `rows`."""

    def __init__(self, images: decode.CutImages, rows: np.ndarray):
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        return self.rows.size

    def __getitem__(self, position: int) -> np.ndarray:
        numbers = np.random.default_rng(position).random(decode.UNIFORMS)
        pixels = self.images.files.open(int(self.rows.flat[position]))
        (view,) = decode.views(pixels, self.images.transform, [numbers])
        return view.copy()  # a tensor wants memory that it may write to


def reading(images: decode.CutImages, rows: np.ndarray, workers: int) -> float:
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


def _batch(size: int, shape: tuple, labels: np.ndarray) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    views = rng.standard_normal((2, size, *shape)).astype(np.float32)
    return {
        "views": tuple(views),
        "labels": rng.choice(labels, size).astype(np.int32),
        "weights": np.ones(size, np.float32),
        "index": np.arange(size, dtype=np.int32),
    }


def _jax_step(network, phase, config, state, batch) -> Callable:
    """One training step of the given phase, as a call that gives the loss."""
    optimizer = config.optimizer.to_dict()
    rate = np.float32(optimizer["learning_rate"])

    def advance(state, stream):
        zero = jax.numpy.float32(0)
        everything = {"epoch": zero, "step": zero, "x": stream}
        return step.update(
            *(network.apply, phase, optimizer, state, None),
            *(everything, {}, {}, rate),
        )

    compiled = jax.jit(advance, donate_argnums=0)
    held = {"state": jax.device_put(state)}
    stream = jax.device_put(batch)

    def call():
        held["state"], terms = compiled(held["state"], stream)
        return terms["loss"]

    return call


def _torch_step(
    state: Mapping, counts, config, batch, device: str, layout: str
) -> Callable:
    """The same step in PyTorch, from the same weights.

    Source: papers/preact_resnet18.md.
    """
    import torch
    from torch.nn import functional

    memory_format = getattr(torch, layout)

    def tensor(path, leaf):
        """Kernels HWIO and (in, out) become OIHW and (out, in)."""
        kernel = path[-1].key == "kernel"
        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim)
        value = np.transpose(leaf, axes) if kernel else leaf
        result = torch.tensor(np.ascontiguousarray(value), device=device)
        if leaf.ndim == 4:
            result = result.to(memory_format=memory_format)
        return result

    def flat(tree, heads):
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        return {
            "/".join(key.key for key in path): tensor(path, leaf)
            for path, leaf in leaves
            if path[0].key in heads
        }

    kept = ("backbone", "bottleneck", *HEADS)
    params = flat(state["params"], kept)
    stats = flat(state["batch_stats"], kept)
    for value in params.values():
        value.requires_grad_()

    def norm(x, name):
        return functional.relu(
            functional.batch_norm(
                *(x, stats[f"{name}/mean"], stats[f"{name}/var"]),
                *(params[f"{name}/scale"], params[f"{name}/bias"]),
                *(True, 0.1, 1e-5),
            )
        )

    def conv(x, name, stride=1):
        kernel = params[f"{name}/kernel"]
        padding = kernel.shape[-1] // 2
        return functional.conv2d(x, kernel, stride=stride, padding=padding)

    def linear(x, name):
        return functional.linear(
            x, params[f"{name}/kernel"], params[f"{name}/bias"]
        )

    def block(x, name, stride):
        a = norm(x, f"{name}/bn1")
        y = conv(a, f"{name}/conv1", stride)
        y = conv(norm(y, f"{name}/bn2"), f"{name}/conv2")
        if f"{name}/shortcut/kernel" in params:
            a = conv(a, f"{name}/shortcut", stride)
        return y + a

    def features(x):
        x = norm(conv(x, "backbone/conv"), "backbone/bn")
        for i, count in enumerate(models.sizes(config.model)[1]):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                x = block(x, f"backbone/stage{i + 1}_block{j + 1}", stride)
        x = x.mean((2, 3))
        return linear(x, "bottleneck") if "bottleneck/kernel" in params else x

    views = [
        torch.tensor(view.transpose(0, 3, 1, 2), device=device).contiguous(
            memory_format=memory_format
        )
        for view in batch["views"]
    ]
    labels = torch.tensor(batch["labels"], device=device).long()
    share = np.maximum(counts, 1) / counts.sum()
    log_prior = torch.tensor(np.log(share), device=device).float()
    fields = config.optimizer
    optimizer = torch.optim.SGD(
        params.values(),
        lr=fields.learning_rate,
        momentum=fields.momentum,
        weight_decay=fields.weight_decay,
        fused=True,
    )

    def call():
        losses = []
        for view in views:
            x = features(view)
            balanced = linear(x, "balanced") + log_prior
            losses.append(
                functional.cross_entropy(linear(x, "logits"), labels)
                + functional.cross_entropy(balanced, labels)
            )
        loss = torch.stack(losses).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return call


def sentence(result: Mapping[str, Any], config) -> str:
    """What was compared and what came out, for the table."""
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
