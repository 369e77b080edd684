"""Inception-ResNet-v2 for images of 75 pixels and more."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnlt.models.layers import BatchNorm, relu
from jaxnlt.runtime.errors import UserError

EPSILON = 1e-3  # of every BatchNorm
LEAST = 75  # pixels a side that leave a last map of 1x1
WIDTH = 32  # channels of the first layer as published


class Conv(NamedTuple):
    """A convolution.

    Attributes:
      features: channels as published.
      height: of the kernel.
      width: of the kernel.
      stride: 2 is never padded.
      padded: to keep the size, at stride 1.
    """

    features: int
    height: int
    width: int
    stride: int = 1
    padded: bool = True


# Branches of convolutions, side by side; 'max' and 'average' are 3x3 pools of
# stride 2 and 1.
Branch = tuple[Conv | str, ...]
STEM: Branch = (
    Conv(32, 3, 3, 2),
    Conv(32, 3, 3, padded=False),
    Conv(64, 3, 3),
    "max",
    Conv(80, 1, 1),
    Conv(192, 3, 3, padded=False),
    "max",
)
MIXED_5B: tuple[Branch, ...] = (
    (Conv(96, 1, 1),),
    (Conv(48, 1, 1), Conv(64, 5, 5)),
    (Conv(64, 1, 1), Conv(96, 3, 3), Conv(96, 3, 3)),
    ("average", Conv(64, 1, 1)),
)
BLOCK_35: tuple[Branch, ...] = (
    (Conv(32, 1, 1),),
    (Conv(32, 1, 1), Conv(32, 3, 3)),
    (Conv(32, 1, 1), Conv(48, 3, 3), Conv(64, 3, 3)),
)
MIXED_6A: tuple[Branch, ...] = (
    (Conv(384, 3, 3, 2),),
    (Conv(256, 1, 1), Conv(256, 3, 3), Conv(384, 3, 3, 2)),
    ("max",),
)
BLOCK_17: tuple[Branch, ...] = (
    (Conv(192, 1, 1),),
    (Conv(128, 1, 1), Conv(160, 1, 7), Conv(192, 7, 1)),
)
MIXED_7A: tuple[Branch, ...] = (
    (Conv(256, 1, 1), Conv(384, 3, 3, 2)),
    (Conv(256, 1, 1), Conv(288, 3, 3, 2)),
    (Conv(256, 1, 1), Conv(288, 3, 3), Conv(320, 3, 3, 2)),
    ("max",),
)
BLOCK_8: tuple[Branch, ...] = (
    (Conv(192, 1, 1),),
    (Conv(192, 1, 1), Conv(224, 1, 3), Conv(256, 3, 1)),
)


# Each stage's entry, blocks and scale, with the names of their parameters.
STAGES = (
    ("mixed_5b", MIXED_5B, "block35", BLOCK_35, 0.17),
    ("mixed_6a", MIXED_6A, "block17", BLOCK_17, 0.1),
    ("mixed_7a", MIXED_7A, "block8", BLOCK_8, 0.2),
)


class Unit(nn.Module):
    """A unit ``relu(bn(conv(x)))``, the convolution without bias.

    Attributes:
      layer: the convolution as published.
      width: of the network.
      dtype: of the layers and activations.
      param_dtype: of the parameters.
    """

    layer: Conv
    width: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', features]."""
        features, *size, stride, padded = self.layer
        padded = padded and stride == 1
        x = nn.Conv(
            scaled(features, self.width),
            size,
            stride,
            padding=[(padded * (n // 2),) * 2 for n in size],
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )(x)
        return relu(BatchNorm(epsilon=EPSILON, name="bn")(x, train))


class Mixed(nn.Module):
    """Branches side by side, joined along the channels in their order."""

    branches: tuple[Branch, ...]
    width: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H', W', sum of the branches' channels]."""
        return self.join(x, train)

    def join(self, x: jax.Array, train: bool) -> jax.Array:
        """Runs the branches as submodules of this module."""
        sizes = (self.width, self.dtype, self.param_dtype)
        joined = []
        for i, branch in enumerate(self.branches):
            y = x
            for j, layer in enumerate(branch):
                if isinstance(layer, Conv):
                    y = Unit(layer, *sizes, name=f"branch{i}_{j}")(y, train)
                elif layer == "max":
                    y = nn.max_pool(y, (3, 3), (2, 2))
                else:
                    # Windows at the border average the pixels inside.
                    y = nn.avg_pool(
                        y,
                        (3, 3),
                        padding=((1, 1), (1, 1)),
                        count_include_pad=False,
                    )
            joined.append(y)
        return jnp.concatenate(joined, -1)


class Residual(Mixed):
    """A block ``relu(x + scale * up(branches(x)))``, up a 1x1 convolution."""

    scale: float = 1.0
    last_relu: bool = True

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, H, W, C]."""
        up = nn.Conv(
            x.shape[-1],
            (1, 1),
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="up",
        )(self.join(x, train))
        x = x + self.scale * up
        return relu(x) if self.last_relu else x


class InceptionResNetV2(nn.Module):
    """Stem, three stages of residual blocks, global average pooling.

    Global pooling equals the published 8x8 pooling for images of 299 to 330
    pixels.

    Source: ``papers/inception_resnet_v2.md``; ``papers/sfa.md`` section 2.2.

    Attributes:
      width: channels of the first layer; 32 as published, all others scale
        along.
      blocks: blocks of the three stages, (10, 20, 9) as published; the third
        stage has one more, of scale 1 and without ReLU.
      dtype: of the convolutions and activations.
      param_dtype: of the kernels, and of the pooled features.
    """

    width: int = WIDTH
    blocks: tuple[int, ...] = (10, 20, 9)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    def __post_init__(self) -> None:
        if len(self.blocks) != 3:
            raise UserError(
                "config.model.blocks: inception_resnet_v2 has three stages, "
                f"is {tuple(self.blocks)}"
            )
        super().__post_init__()

    @property
    def feature_dim(self) -> int:
        """Length F of the pooled feature; 1536 as published."""
        return scaled(1536, self.width)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Pools the features of normalised images: [B, H, W, C] -> [B, F].

        Raises:
          UserError: an image has fewer than 75 pixels a side.
        """
        if min(images.shape[1:3]) < LEAST:
            raise UserError(
                "config.model.name: inception_resnet_v2 needs images of at "
                f"least {LEAST} pixels a side, these have {images.shape[1:3]}"
            )
        sizes = (self.width, self.dtype, self.param_dtype)
        x, convs = images, 0
        for layer in STEM:
            if isinstance(layer, Conv):
                convs += 1
                x = Unit(layer, *sizes, name=f"stem{convs}")(x, train)
            else:
                x = nn.max_pool(x, (3, 3), (2, 2))
        for count, stage in zip(self.blocks, STAGES, strict=True):
            mixed, lead, name, branches, scale = stage
            x = Mixed(lead, *sizes, name=mixed)(x, train)
            for i in range(count):
                block = Residual(
                    branches, *sizes, scale=scale, name=f"{name}_{i + 1}"
                )
                x = block(x, train)
        x = Residual(
            BLOCK_8,
            *sizes,
            last_relu=False,
            name=f"block8_{self.blocks[-1] + 1}",
        )(x, train)
        x = Unit(Conv(1536, 1, 1), *sizes, name="last")(x, train)
        return x.astype(self.param_dtype).mean((1, 2))


def scaled(features: int, width: int) -> int:
    """Channels of a layer that has ``features`` at the published width."""
    return max(1, features * width // WIDTH)
