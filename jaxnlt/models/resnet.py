"""torchvision's ResNet for large images: ResNet-18 and ResNet-50 (v1.5)."""

from typing import Any, ClassVar

import jax
from flax import linen as nn

from .layers import BatchNorm
from .resnet_cifar import ResNetCifar


class Bottleneck(nn.Module):
    """relu(bn3(conv3(relu(bn2(conv2(relu(bn1(conv1(x)))))))) + shortcut(x)).

    The 1x1, 3x3 and 1x1 convolutions have F, F and 4 F channels; the 3x3 one
    has the stride (v1.5).  Where the shape changes the shortcut is a 1x1
    convolution with BN, else the identity.

    Source: papers/smr.md section 5.
    """

    features: int
    stride: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / s), ceil(W / s), 4 features]."""
        wide = 4 * self.features
        shortcut = x
        if self.stride != 1 or x.shape[-1] != wide:
            shortcut = self._conv("shortcut", wide, 1, self.stride)(x)
            shortcut = BatchNorm(name="shortcut_bn")(shortcut, train)
        y = self._conv("conv1", self.features, 1)(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train))
        y = self._conv("conv2", self.features, 3, self.stride)(y)
        y = nn.relu(BatchNorm(name="bn2")(y, train))
        y = BatchNorm(name="bn3")(self._conv("conv3", wide, 1)(y), train)
        return nn.relu(y + shortcut)

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
            name=name,
        )


class ResNet(ResNetCifar):
    """The same stages and initial values after a 7x7 stem and max-pooling.

    Stem and pooling halve the resolution once each.  ``width`` 64 and
    ``blocks`` (2, 2, 2, 2) are the ResNet-18.

    Source: papers/h2e.md section 8.
    """

    stem: ClassVar[tuple[int, int]] = (7, 2)
    pooled: ClassVar[bool] = True


class BottleneckResNet(ResNet):
    """The same of bottlenecks; ``blocks`` (3, 4, 6, 3) is the ResNet-50.

    Source: papers/smr.md section 5.
    """

    block: ClassVar[type[nn.Module]] = Bottleneck
    expansion: ClassVar[int] = 4
