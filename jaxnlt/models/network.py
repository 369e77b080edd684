"""Networks as functions of their variables, built from ``config.model``."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from jaxnlt.models import pretrained as files
from jaxnlt.models.heads import HEADS, Classifier
from jaxnlt.models.inception_resnet_v2 import InceptionResNetV2
from jaxnlt.models.initialise import initialise
from jaxnlt.models.layers import grouped
from jaxnlt.models.mlp import MLP
from jaxnlt.models.preact_resnet import PreActResNet
from jaxnlt.models.resnet import BottleneckResNet, ResNet
from jaxnlt.models.resnet_cifar import ResNetCifar, ResNetCifarA, SmallResNet
from jaxnlt.models.vgg import VGG
from jaxnlt.runtime import tables
from jaxnlt.runtime.errors import UserError

Variables = dict[str, Any]
Outputs = dict[str, jax.Array]

#: config.model.dtype -> (dtype of the backbone, dtype of everything else).
DTYPES = {
    "float32": (jnp.float32, jnp.float32),
    "bfloat16": (jnp.bfloat16, jnp.float32),
    "float64": (jnp.float64, jnp.float64),
}


#: Every stage halves the resolution and most double the channels.
MOST_STAGES = 8
#: Most parameters of a network, 8 GiB of them.
MOST_PARAMETERS = 2**31


class Published(NamedTuple):
    """A backbone and its published size.

    Attributes:
      kind: Linen module, made of width, blocks, dtype and param_dtype; see
        ``heads.Backbone``.
      width: channels of the first layer or stage.
      blocks: blocks of every stage.
    """

    kind: type[Any]
    width: int
    blocks: tuple[int, ...]


#: config.model.name -> backbone.
BACKBONES = {
    "preact_resnet18": Published(PreActResNet, 64, (2, 2, 2, 2)),
    "resnet32": Published(ResNetCifar, 16, (5, 5, 5)),
    "resnet32_a": Published(ResNetCifarA, 16, (5, 5, 5)),
    "resnet18_small": Published(SmallResNet, 64, (2, 2, 2, 2)),
    "resnet18": Published(ResNet, 64, (2, 2, 2, 2)),
    "resnet50": Published(BottleneckResNet, 64, (3, 4, 6, 3)),
    "vgg19_bn": Published(VGG, 64, (2, 2, 4, 4, 4)),
    "inception_resnet_v2": Published(InceptionResNetV2, 32, (10, 20, 9)),
    # Of rows of features; nobody has published it.
    "mlp": Published(MLP, 256, (2,)),
}


def register(
    name: str, kind: type[Any], width: int, blocks: tuple[int, ...]
) -> None:
    """Adds a backbone; called where the module of a method is imported.

    Args:
      name: for ``config.model.name``.
      kind: see ``Published``, as ``width`` and ``blocks``.
      width: its usual width.
      blocks: its usual blocks.

    Raises:
      UserError: another backbone has the name, or it is no name.
    """
    tables.add(BACKBONES, "network", name, Published(kind, width, blocks))


@dataclasses.dataclass(frozen=True)
class Network:
    """A network as two functions of its variables.

    Attributes:
      module: the Linen module behind them.
      pretrained: file whose weights the backbone starts with; '' draws them.
      bn_shard: images that BatchNorm takes statistics of; 0 is the batch.
    """

    module: Classifier
    pretrained: str = ""
    bn_shard: int = 0

    def init(self, seed: int, image_shape: tuple[int, ...]) -> Variables:
        """Draws initial variables with PyTorch's default distributions.

        A backbone with other published initial values has a ``redraw``, and a
        ``redraw_heads`` where they are those of the heads too.

        Args:
          seed: the same seed gives the same values, to the bit.
          image_shape: (H, W, channels), or (D,) of rows of features.

        Returns:
          {'params': tree, 'batch_stats': tree} of numpy arrays, float32
          (float64 where the network computes in float64).  Trees start with
          'backbone', 'bottleneck', 'logits', 'balanced', 'projector',
          'prototype_projector', 'embedding', 'identifier', if the network has
          them.

        Raises:
          UserError: float64 without JAX_ENABLE_X64, images too small for the
            network, images for a network of rows or rows for one of images, or
            a pretrained file that cannot be read or does not fit.
        """
        shapes = self.shapes(image_shape)
        size = sum(leaf.size for leaf in jax.tree.leaves(shapes))
        if size > MOST_PARAMETERS:
            raise UserError(
                f"config.model.width: makes {size:,} parameters with these "
                f"blocks, more than {MOST_PARAMETERS:,}; take fewer"
            )
        values = initialise(shapes, seed, np.dtype(self.module.dtype))
        backbone = self.module.backbone
        if self.pretrained:
            return files.overlay(values, self.pretrained)
        params = values["params"]
        if hasattr(backbone, "redraw"):
            params["backbone"] = backbone.redraw(params["backbone"], seed)
        if hasattr(backbone, "redraw_heads"):
            heads = {k: v for k, v in params.items() if k != "backbone"}
            params |= backbone.redraw_heads(heads, seed)
        return values

    def shapes(self, image_shape: tuple[int, ...]) -> Variables:
        """The tree that ``init`` fills, with shapes as its leaves."""
        _check_dtype(self.module.dtype)
        _check_kind(self.module.backbone, image_shape)
        found = jax.eval_shape(
            lambda: self.module.init(
                jax.random.key(0),
                jnp.zeros((1, *image_shape), self.module.dtype),
                heads=("features", *self.module.held),
                train=False,
            )
        )
        # A network may have no BatchNorm.
        return {"batch_stats": {}, **found}

    def apply(
        self,
        variables: Variables,
        images: jax.Array | None,
        heads: tuple[str, ...] = ("logits",),
        train: bool = False,
        key: jax.Array | None = None,
    ) -> tuple[Outputs, Variables]:
        """Runs the named heads; call it under ``jax.jit``.

        A head that is not named does not run, so its BN statistics do not
        move; ``heads=("prototypes",)`` does not run the backbone either.
        ``heads`` and ``train`` are static.

        Args:
          variables: what ``init`` returned, or trained values of it.
          images: [B, H, W, C] or rows of features [B, D], normalised; may be
            None where only 'prototypes' is named.
          heads: outputs to compute, each of those given to ``build`` or
            'features'.
          train: BatchNorm uses the statistics of the (global) batch or of its
            shards, and dropout drops.
          key: of the dropout; needed in train mode by a network with dropout.

        Returns:
          Head -> array as ``Classifier`` describes, float32 (float64 in
          float64); and the batch statistics, moved in train mode.

        Raises:
          ValueError: a named head is not held, no head is named, or needed
            images or a needed key are missing.
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
        if self.drops and key is None:
            raise ValueError("dropout in train mode needs a key")
        # Prototypes have a row for each class.
        with grouped(self.bn_shard, spared="prototype_projector"):
            outputs, moved = module.apply(
                variables,
                images,
                heads,
                train=True,
                mutable=["batch_stats"],
                rngs={"dropout": key} if self.drops else {},
            )
        return outputs, moved.get("batch_stats", {})

    @property
    def drops(self) -> bool:
        """Whether the network has dropout."""
        return getattr(self.module.backbone, "drops", False)

    def seeded(
        self, key: jax.Array
    ) -> Callable[..., tuple[Outputs, Variables]]:
        """Makes an ``apply`` for one step, with another dropout in every call.

        The n-th train-mode call, from 0, takes ``fold_in(key, n)``.  A network
        without dropout gives ``apply`` itself.

        Args:
          key: of the step.

        Returns:
          (variables, images, heads, train) -> (outputs, batch_stats).
        """
        if not self.drops:
            return self.apply
        count = itertools.count()

        def apply(
            variables: Variables,
            images: jax.Array,
            heads: tuple[str, ...] = ("logits",),
            train: bool = False,
        ) -> tuple[Outputs, Variables]:
            own = jax.random.fold_in(key, next(count)) if train else None
            return self.apply(variables, images, heads, train, own)

        return apply


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
      model_config: ``name``, ``dtype``, ``width`` and ``blocks`` (see
        ``sizes``) and, where they are there, ``pretrained`` and ``bn_shard``.
      num_classes: C.
      heads: every head that the parameters hold, of ``HEADS``.
      bottleneck: whether a Linear(F -> F) stands between pooling and heads.
      projection_dim: length of projection, prototypes and embedding; the
        projectors' hidden layer is four times as wide.
      prior: C class frequencies; the head 'identifier' needs them.

    Returns:
      The network.

    Raises:
      UserError: unknown name or dtype, a field out of range, or a pretrained
        file for a network that takes none.
      ValueError: unknown head, 'prototypes' without 'logits', or 'identifier'
        without a prior of C classes.
    """
    width, blocks = sizes(model_config)
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
    make = BACKBONES[model_config.name].kind
    pretrained = model_config.get("pretrained", "")
    if pretrained and not issubclass(make, ResNet):
        raise UserError(
            "config.model.pretrained: reads torchvision's ResNets only, "
            f"config.model.name is {model_config.name!r}"
        )
    return Network(
        Classifier(
            backbone=make(width, blocks, compute, dtype),
            num_classes=num_classes,
            held=tuple(heads),
            has_bottleneck=bottleneck,
            projection_dim=projection_dim,
            dtype=dtype,
            prior=tuple(prior),
        ),
        pretrained,
        model_config.get("bn_shard", 0),
    )


def sizes(
    model_config: ml_collections.ConfigDict,
) -> tuple[int, tuple[int, ...]]:
    """Width and blocks of the backbone that ``config.model`` describes.

    Args:
      model_config: ``name``, ``width`` (0 takes the published one) and
        ``blocks`` (empty takes the published ones).

    Returns:
      Channels of the first layer or stage, and blocks of each stage.

    Raises:
      UserError: unknown name, or a field out of range.
    """
    if model_config.name not in BACKBONES:
        raise UserError(
            f"config.model.name: {model_config.name!r} is unknown, choose one "
            f"of {', '.join(sorted(BACKBONES))}"
        )
    _, width, blocks = BACKBONES[model_config.name]
    if model_config.width < 0:
        raise UserError(
            "config.model.width: must be at least 1, or 0 for the published "
            f"one, is {model_config.width}"
        )
    given = tuple(model_config.blocks)
    if len(given) > MOST_STAGES:
        raise UserError(
            f"config.model.blocks: has at most {MOST_STAGES} stages, is {given}"
        )
    if given and min(given) < 1:
        raise UserError(
            "config.model.blocks: needs at least one block in each stage, is "
            f"{given}"
        )
    return model_config.width or width, given or blocks


def _check_kind(backbone: Any, image_shape: tuple[int, ...]) -> None:
    """Refuses rows of features for a network of images, and vice versa."""
    rows = len(image_shape) == 1
    if rows != getattr(backbone, "reads_rows", False):
        wanted, given = "images", "the data are rows of features; take mlp"
        if not rows:
            wanted, given = "rows of features", "the data are images"
        raise UserError(f"config.model.name: reads {wanted}, and {given}")


def _check_dtype(dtype: Any) -> None:
    """Refuses float64 where JAX would compute in float32 without a warning."""
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise UserError("config.model.dtype: float64 needs JAX_ENABLE_X64=1")
