"""torchvision's ResNet for large images: ResNet-18 and ResNet-50 (v1.5)."""

from typing import ClassVar

import jax

from jaxnlt.models.layers import BatchNorm, relu
from jaxnlt.models.preact_resnet import Block
from jaxnlt.models.resnet_cifar import BasicBlock, ResNetCifar


class Bottleneck(BasicBlock):
    """A block of three convolutions with BN, ``relu(residual + shortcut(x))``.

    The 1x1, 3x3 and 1x1 convolutions have F, F and 4 F channels; the 3x3 one
    has the stride (v1.5).  The shortcut is the basic block's.

    Source: ``papers/smr.md`` section 5.
    """

    expansion: ClassVar[int] = 4

    def _residual(self, x: jax.Array, train: bool) -> jax.Array:
        y = self._conv("conv1", self.features, 1)(x)
        y = relu(BatchNorm(name="bn1")(y, train))
        y = self._conv("conv2", self.features, 3, self.stride)(y)
        y = relu(BatchNorm(name="bn2")(y, train))
        y = self._conv("conv3", self.out, 1)(y)
        return BatchNorm(name="bn3")(y, train)


class ResNet(ResNetCifar):
    """Stages of basic blocks after a 7x7 stem and max-pooling.

    Stem and pooling halve the resolution once each.  ``width`` 64 and
    ``blocks`` (2, 2, 2, 2) are the ResNet-18.

    Source: ``papers/h2e.md`` section 8.
    """

    stem: ClassVar[tuple[int, int]] = (7, 2)
    pooled: ClassVar[bool] = True


class BottleneckResNet(ResNet):
    """``ResNet`` of bottlenecks; ``blocks`` (3, 4, 6, 3) is the ResNet-50.

    Source: ``papers/smr.md`` section 5.
    """

    block: ClassVar[type[Block]] = Bottleneck
