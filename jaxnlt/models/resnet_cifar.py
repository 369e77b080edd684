"""Post-activation ResNets for small images: RoLT's ResNet-32, DaSC's 18."""

from typing import Any, ClassVar

import jax
from flax import linen as nn

from .initialise import normal_by_fan_out
from .layers import BatchNorm
from .preact_resnet import Block, PreActResNet


class BasicBlock(Block):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).

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
        return nn.relu(self._residual(x, train) + shortcut)

    def _residual(self, x: jax.Array, train: bool) -> jax.Array:
        y = self._conv("conv1", self.features, 3, self.stride)(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train))
        y = self._conv("conv2", self.out, 3)(y)
        return BatchNorm(name="bn2")(y, train)


class SmallResNet(PreActResNet):
    """The same stem, stages and pooling, of basic blocks.

    Features are those after the last ReLU, never negative.  DaSC trains it on
    mini-ImageNet at 32 pixels.

    Source: ``papers/dasc.md`` section 3.
    """

    block: ClassVar[type[Block]] = BasicBlock


class ResNetCifar(SmallResNet):
    """The same network with RoLT's initial kernels.

    As published, ``width`` is 16, ``blocks`` (5, 5, 5), the ResNet-32, and
    features are of length 64.

    Source: ``papers/dividemix_rolt.md`` section 4.
    """

    def redraw(self, params: dict[str, Any], seed: int) -> dict[str, Any]:
        """Initial values normal by fan-out, see `normal_by_fan_out`."""
        return normal_by_fan_out(params, seed)
