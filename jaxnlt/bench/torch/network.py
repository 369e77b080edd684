"""The PreAct ResNet and its heads in PyTorch, made of our weights."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

#: A ``torch.Tensor``; PyTorch is imported where it is used.
Tensor = Any

#: ``config.model.name`` of the networks that this file can build.
BACKBONES = ("preact_resnet18",)


class Setting(NamedTuple):
    """Where and how PyTorch computes.

    Attributes:
      device: ``cpu`` or ``cuda``.
      layout: memory format of images and kernels, ``contiguous_format`` or
        ``channels_last``.
      dtype: ``float32``, or ``bfloat16``, in which the backbone then computes
        under autocast; heads and losses stay in float32, as ours.
    """

    device: str
    layout: str
    dtype: str = "float32"


class Network:
    """A network in PyTorch: a function of images, with weights of its own.

    Args:
      variables: what ``models.Network.init`` returned, or trained values.
      blocks: residual blocks of every stage.
      setting: where and how it computes.

    Attributes:
      params: tensors that are trained, by their path in our tree.

    Source: ``papers/preact_resnet18.md``; ``papers/dasc.md`` section 3.
    """

    def __init__(
        self,
        variables: Mapping[str, Any],
        blocks: tuple[int, ...],
        setting: Setting,
    ) -> None:
        self._blocks, self._setting = blocks, setting
        self.params = self._by_path(variables["params"])
        self._stats = self._by_path(variables["batch_stats"])
        for value in self.params.values():
            value.requires_grad_()

    def __call__(
        self, images: Tensor, heads: tuple[str, ...], train: bool = True
    ) -> dict[str, Tensor]:
        """Runs the named heads.

        Args:
          images: [B, C, H, W] in the layout of the setting.
          heads: of ``models.heads.HEADS``, of those that the weights hold.
          train: BatchNorm uses the batch's statistics and moves its own.

        Returns:
          Head -> float32 tensor.
        """
        import torch
        from torch.nn import functional

        half = self._setting.dtype == "bfloat16"
        with torch.autocast(self._setting.device, torch.bfloat16, enabled=half):
            x = self._pooled(images, train)
        x = x.float()
        if "bottleneck/kernel" in self.params:
            x = self._linear(x, "bottleneck")
        outputs = {"features": x} if "features" in heads else {}
        for name in ("logits", "balanced"):
            if name in heads:
                outputs[name] = self._linear(x, name)

        def projected(rows: Tensor, name: str) -> Tensor:
            hidden = self._linear(rows, f"{name}/hidden")
            rows = self._norm(hidden, f"{name}/bn", train)
            rows = self._linear(rows, f"{name}/out")
            return functional.normalize(rows, dim=1)

        if "projection" in heads:
            outputs["projection"] = projected(x, "projector")
        if "prototypes" in heads:
            outputs["prototypes"] = projected(
                self.params["logits/kernel"], "prototype_projector"
            )
        return outputs

    def _by_path(self, tree: Any) -> dict[str, Tensor]:
        return {
            "/".join(key.key for key in path): self._tensor(path, leaf)
            for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
        }

    def _tensor(self, path: tuple[Any, ...], leaf: np.ndarray) -> Tensor:
        """Kernels HWIO and (in, out) become OIHW and (out, in)."""
        import torch

        axes = {4: (3, 2, 0, 1), 2: (1, 0)}.get(leaf.ndim)
        value = np.transpose(leaf, axes) if path[-1].key == "kernel" else leaf
        device, layout, _ = self._setting
        # A copy: NumPy's array may belong to JAX.
        result = torch.tensor(np.ascontiguousarray(value), device=device)
        if leaf.ndim == 4:
            result = result.to(memory_format=getattr(torch, layout))
        return result

    def _norm(self, x: Tensor, name: str, train: bool) -> Tensor:
        """BatchNorm, then ReLU."""
        from torch.nn import functional

        normalised = functional.batch_norm(
            x,
            self._stats[f"{name}/mean"],
            self._stats[f"{name}/var"],
            self.params[f"{name}/scale"],
            self.params[f"{name}/bias"],
            training=train,
            momentum=0.1,
            eps=1e-5,
        )
        return functional.relu(normalised, inplace=True)

    def _conv(self, x: Tensor, name: str, stride: int = 1) -> Tensor:
        from torch.nn import functional

        kernel = self.params[f"{name}/kernel"]
        padding = kernel.shape[-1] // 2
        return functional.conv2d(x, kernel, stride=stride, padding=padding)

    def _linear(self, x: Tensor, name: str) -> Tensor:
        from torch.nn import functional

        return functional.linear(
            x, self.params[f"{name}/kernel"], self.params[f"{name}/bias"]
        )

    def _block(self, x: Tensor, name: str, stride: int, train: bool) -> Tensor:
        a = self._norm(x, f"{name}/bn1", train)
        y = self._conv(a, f"{name}/conv1", stride)
        y = self._conv(self._norm(y, f"{name}/bn2", train), f"{name}/conv2")
        if f"{name}/shortcut/kernel" in self.params:
            a = self._conv(a, f"{name}/shortcut", stride)
        return y + a

    def _pooled(self, x: Tensor, train: bool) -> Tensor:
        x = self._conv(x, "backbone/conv")
        x = self._norm(x, "backbone/bn", train)
        for i, count in enumerate(self._blocks):
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                name = f"backbone/stage{i + 1}_block{j + 1}"
                x = self._block(x, name, stride, train)
        return x.mean((2, 3))
