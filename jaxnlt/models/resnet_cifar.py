"""Post-activation ResNets for small images, such as ResNet-32."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnlt.models.initialise import normal_by_fan_in, normal_by_fan_out
from jaxnlt.models.layers import BatchNorm, relu
from jaxnlt.models.preact_resnet import Block, PreActResNet


class BasicBlock(Block):
    """A block ``relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))``.

    Where the shape changes the shortcut is a 1x1 convolution with BN, else the
    identity.

    Source: ``papers/dividemix_rolt.md`` section 4.
    """

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / s), ceil(W / s), out]."""
        shortcut = x
        if self.stride != 1 or x.shape[-1] != self.out:
            shortcut = self._shortcut(x, train)
        return relu(self._residual(x, train) + shortcut)

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        y = self._conv("shortcut", self.out, 1, self.stride)(x)
        return BatchNorm(name="shortcut_bn")(y, train)

    def _residual(self, x: jax.Array, train: bool) -> jax.Array:
        y = self._conv("conv1", self.features, 3, self.stride)(x)
        y = relu(BatchNorm(name="bn1")(y, train))
        y = self._conv("conv2", self.out, 3)(y)
        return BatchNorm(name="bn2")(y, train)


class PaddedBlock(BasicBlock):
    """A basic block whose shortcut has no parameters.

    Where the shape changes it takes every stride-th row and column, and zeros
    for the channels that are missing, half of them before and half after.

    Source: He et al. 2016, option A; ``papers/dividemix_rolt.md`` section 6.
    """

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array:
        missing = self.out - x.shape[-1]
        sides = (missing // 2, missing - missing // 2)
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), sides))


class SmallResNet(PreActResNet):
    """Stem, stages and pooling of ``PreActResNet``, of basic blocks.

    Features follow the last ReLU and are never negative.

    Source: ``papers/dasc.md`` section 3.
    """

    block: ClassVar[type[Block]] = BasicBlock


class ResNetCifar(SmallResNet):
    """``SmallResNet`` with initial kernels that are normal by fan-out.

    ``width`` 16 and ``blocks`` (5, 5, 5) are the ResNet-32, whose features have
    length 64.

    Source: ``papers/dividemix_rolt.md`` section 4.
    """

    def redraw(self, params: dict[str, Any], seed: int) -> dict[str, Any]:
        """Draws the initial values by ``normal_by_fan_out``."""
        return normal_by_fan_out(params, seed)


class ResNetCifarA(SmallResNet):
    """``SmallResNet`` of ``PaddedBlock``, initial kernels normal by fan-in.

    ``width`` 16 and ``blocks`` (5, 5, 5) are the ResNet-32 of RoLT+.  The
    classifiers on it start likewise.

    Source: ``papers/dividemix_rolt.md`` section 6.
    """

    block: ClassVar[type[Block]] = PaddedBlock

    def redraw(self, params: dict[str, Any], seed: int) -> dict[str, Any]:
        """Draws the initial values by ``normal_by_fan_in``."""
        return normal_by_fan_in(params, seed)

    redraw_heads = redraw
