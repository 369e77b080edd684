"""Post-activation ResNets for small images, such as ResNet-32."""

from typing import Any, ClassVar

import jax
from flax import linen as nn

from jaxnlt.models.initialise import normal_by_fan_out
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
            shortcut = self._conv("shortcut", self.out, 1, self.stride)(x)
            shortcut = BatchNorm(name="shortcut_bn")(shortcut, train)
        return relu(self._residual(x, train) + shortcut)

    def _residual(self, x: jax.Array, train: bool) -> jax.Array:
        y = self._conv("conv1", self.features, 3, self.stride)(x)
        y = relu(BatchNorm(name="bn1")(y, train))
        y = self._conv("conv2", self.out, 3)(y)
        return BatchNorm(name="bn2")(y, train)


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
