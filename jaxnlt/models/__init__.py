"""Networks: everyone else sees ``build``, ``Network.init`` and ``apply``."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxnlt.errors import UserError

from .heads import HEADS, Classifier
from .initialise import initialise
from .preact_resnet import PreActResNet
from .resnet_cifar import ResNetCifar

__all__ = ["BACKBONES", "DTYPES", "HEADS", "Network", "build"]

Variables = dict[str, Any]

#: config.model.dtype -> (dtype of the backbone, dtype of everything else).
DTYPES = {
    "float32": (jnp.float32, jnp.float32),
    "bfloat16": (jnp.bfloat16, jnp.float32),
    "float64": (jnp.float64, jnp.float64),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as two functions of its variables.

    Attributes:
      module: the Linen module behind them.
    """

    module: Classifier

    def init(self, seed: int, image_shape: tuple[int, int, int]) -> Variables:
        """Draws initial variables with PyTorch's default distributions.

        ResNet-32 draws its kernels as RoLT does, `ResNetCifar.redraw`.

        Args:
          seed: the same seed gives the same values, to the bit.
          image_shape: (H, W, channels).

        Returns:
          {'params': tree, 'batch_stats': tree} of numpy arrays, float32
          (float64 where the network computes in float64).  Trees start with
          'backbone', 'bottleneck', 'logits', 'balanced', 'projector',
          'prototype_projector', 'embedding', 'identifier', as far as the
          network has them.

        Raises:
          UserError: float64 without JAX_ENABLE_X64.
        """
        values = initialise(
            self.shapes(image_shape), seed, np.dtype(self.module.dtype)
        )
        backbone = self.module.backbone
        if isinstance(backbone, ResNetCifar):
            params = values["params"]
            params["backbone"] = backbone.redraw(params["backbone"], seed)
        return values

    def shapes(self, image_shape: tuple[int, int, int]) -> Variables:
        """The tree that ``init`` fills, with shapes as its leaves."""
        _check_dtype(self.module.dtype)
        return jax.eval_shape(
            lambda: self.module.init(
                jax.random.key(0),
                jnp.zeros((1, *image_shape), self.module.dtype),
                heads=("features", *self.module.held),
                train=False,
            )
        )

    def apply(
        self,
        variables: Variables,
        images: jax.Array | None,
        heads: tuple[str, ...] = ("logits",),
        train: bool = False,
    ) -> tuple[dict[str, jax.Array], Variables]:
        """Runs the named heads; call it under ``jax.jit``.

        A head that is not named does not run, so its BN statistics do not
        move; ``heads=("prototypes",)`` does not run the backbone either.
        ``heads`` and ``train`` are static.

        Args:
          variables: what ``init`` returned, or trained values of it.
          images: [B, H, W, C], normalised; may be None where only
            'prototypes' is named.
          heads: outputs to compute, each of those given to ``build`` or
            'features'.
          train: BatchNorm uses the (global) batch's statistics.

        Returns:
          outputs: head -> array as Classifier describes, float32 (float64 in
            float64).
          batch_stats: the moved ones, or the given ones where not train.

        Raises:
          ValueError: a named head is not held, no head is named, or images
            are needed and there are none.
          UserError: float64 without JAX_ENABLE_X64.
        """
        module: Any = self.module
        unknown = set(heads) - {"features", *module.held}
        if unknown or not heads:
            raise ValueError(f"heads={heads}: this network holds {module.held}")
        _check_dtype(module.dtype)
        if not train:
            outputs = module.apply(variables, images, heads, train=False)
            return outputs, variables["batch_stats"]
        outputs, moved = module.apply(
            variables, images, heads, train=True, mutable=["batch_stats"]
        )
        return outputs, moved["batch_stats"]


def build(
    model_config: ml_collections.ConfigDict,
    num_classes: int,
    heads: tuple[str, ...],
    bottleneck: bool = False,
    projection_dim: int = 128,
    prior: tuple[float, ...] = (),
) -> Network:
    """Builds the network that ``config.model`` describes.

    Args:
      model_config: ``name``, ``dtype`` and the fields of that backbone.
      num_classes: C.
      heads: every head that the parameters hold, of HEADS.
      bottleneck: Linear(F -> F) between pooling and heads (DaSC).
      projection_dim: length of projection, prototypes and embedding; the
        projectors' hidden layer is four times as wide.
      prior: C class frequencies; the head 'identifier' needs them.

    Returns:
      The network.

    Raises:
      UserError: unknown name or dtype, or a field out of range.
      ValueError: unknown head, 'prototypes' without 'logits', or 'identifier'
        without a prior of C classes.
    """
    if model_config.name not in BACKBONES:
        raise UserError(
            f"config.model.name: {model_config.name!r} is unknown, choose one "
            f"of {', '.join(sorted(BACKBONES))}"
        )
    if model_config.dtype not in DTYPES:
        raise UserError(
            f"config.model.dtype: {model_config.dtype!r} is unknown, choose "
            f"one of {', '.join(DTYPES)}"
        )
    if set(heads) - set(HEADS):
        raise ValueError(f"heads={heads}: choose of {HEADS}")
    if "prototypes" in heads and "logits" not in heads:
        raise ValueError("'prototypes' are made from the weights of 'logits'")
    if "identifier" in heads and len(prior) != num_classes:
        raise ValueError(f"'identifier' needs a prior of {num_classes} classes")
    compute, dtype = map(jnp.dtype, DTYPES[model_config.dtype])
    return Network(
        Classifier(
            backbone=BACKBONES[model_config.name](model_config, compute, dtype),
            num_classes=num_classes,
            held=tuple(heads),
            has_bottleneck=bottleneck,
            projection_dim=projection_dim,
            dtype=dtype,
            prior=tuple(prior),
        )
    )


def _check_dtype(dtype: Any) -> None:
    """Refuses float64 where JAX would silently compute in float32."""
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise UserError("config.model.dtype: float64 needs JAX_ENABLE_X64=1")


def _staged(
    module: Callable[..., Any],
    config: ml_collections.ConfigDict,
    dtype: Any,
    param_dtype: Any,
) -> Any:
    """A ResNet whose size is `width` and `blocks`."""
    blocks = tuple(config.blocks)
    if config.width < 1:
        raise UserError(
            f"config.model.width: must be at least 1, is {config.width}"
        )
    if not blocks or min(blocks) < 1:
        raise UserError(
            "config.model.blocks: needs at least one stage and one block in "
            f"each, is {blocks}"
        )
    return module(config.width, blocks, dtype, param_dtype)


#: config.model.name -> (config.model, dtype, param_dtype) -> backbone.
BACKBONES: dict[str, Callable[..., Any]] = {
    "preact_resnet18": functools.partial(_staged, PreActResNet),
    "resnet32": functools.partial(_staged, ResNetCifar),
}
