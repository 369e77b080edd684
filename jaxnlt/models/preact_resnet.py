"""PreAct ResNet for small images.

The other ResNets are this one with other blocks or another stem.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnlt.models.layers import BatchNorm, convolve, relu


class Block(nn.Module):
    """Base of the residual blocks: sizes and a convolution without bias.

    Attributes:
      expansion: channels of the output over ``features``.
      features: channels within the block.
      stride: of the block.
      dtype: of the convolutions and activations.
      param_dtype: of the kernels.
    """

    expansion: ClassVar[int] = 1

    features: int
    stride: int
    dtype: Any
    param_dtype: Any

    @property
    def out(self) -> int:
        """Channels of the output."""
        return self.expansion * self.features

    def _conv(
        self, name: str, features: int, size: int, stride: int = 1
    ) -> nn.Conv:
        return nn.Conv(
            features,
            (size, size),
            stride,
            padding=size // 2,  # 'SAME' pads (0, 1) at stride 2 and even sizes
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            conv_general_dilated=convolve,
            name=name,
        )


class PreActBlock(Block):
    """A block ``conv2(relu(bn2(conv1(a)))) + shortcut(a)``, a = relu(bn1(x)).

    The identity shortcut carries ``a``, not ``x`` as in the textbook block;
    where the shape changes the shortcut is a 1x1 convolution of ``a`` without
    BN.

    Source: ``papers/preact_resnet18.md``, Peculiarities 1, 4 and 5.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        a = relu(BatchNorm(name="bn1")(x, train))
        shortcut = a
        if self.stride != 1 or x.shape[-1] != self.out:
            shortcut = self._conv("shortcut", self.out, 1, self.stride)(a)
        y = self._conv("conv1", self.features, 3, self.stride)(a)
        y = relu(BatchNorm(name="bn2")(y, train))
        return self._conv("conv2", self.out, 3)(y) + shortcut


class PreActResNet(nn.Module):
    """Stem, stages of pre-activation blocks, global average pooling.

    Stage i (from 0) has ``blocks[i]`` blocks of ``width * 2**i`` channels and,
    from the second stage on, halves the resolution.  There is no BN or ReLU
    after the last block, so features can be negative.  Global pooling equals
    the published 4x4 pooling at 32 pixels.

    Source: ``papers/preact_resnet18.md``, Layers.

    Attributes:
      block: the residual block.
      stem: kernel size and stride of the first convolution.
      pooled: whether a 3x3 max-pooling of stride 2 follows the stem.
      width: channels of the stem and of the first stage; 64 as published.
      blocks: blocks per stage; (2, 2, 2, 2) is the ResNet-18.
      dtype: of the convolutions and activations.
      param_dtype: of the kernels, and of the pooled features.
    """

    block: ClassVar[type[Block]] = PreActBlock
    stem: ClassVar[tuple[int, int]] = (3, 1)
    pooled: ClassVar[bool] = False

    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 2, 2)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Length F of the pooled feature; 512 as published."""
        return self.block.expansion * self.width * 2 ** (len(self.blocks) - 1)

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Pools the features of normalised images: [B, H, W, C] -> [B, F]."""
        size, stride = self.stem
        x = nn.Conv(
            self.width,
            (size, size),
            stride,
            padding=size // 2,
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name="conv",
        )(images)
        x = relu(BatchNorm(name="bn")(x, train))
        if self.pooled:
            x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        for i, count in enumerate(self.blocks):
            for j in range(count):
                x = self.block(
                    features=self.width * 2**i,
                    stride=2 if i > 0 and j == 0 else 1,
                    dtype=self.dtype,
                    param_dtype=self.param_dtype,
                    name=f"stage{i + 1}_block{j + 1}",
                )(x, train)
        return x.astype(self.param_dtype).mean((1, 2))
