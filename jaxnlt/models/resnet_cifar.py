"""Post-activation ResNets for small images: RoLT's ResNet-32, DaSC's 18."""

from typing import Any, ClassVar

import jax
from flax import linen as nn

from .initialise import normal_by_fan_out
from .layers import BatchNorm
from .preact_resnet import PreActResNet


class BasicBlock(nn.Module):
    """relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x)).

    Where the shape changes the shortcut is a 1x1 convolution with BN, else the
    identity.

    Source: papers/dividemix_rolt.md section 4.
    """

    features: int
    stride: int
    dtype: Any
    param_dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """[B, H, W, C] -> [B, ceil(H / stride), ceil(W / stride), features]."""
        shortcut = x
        if self.stride != 1 or x.shape[-1] != self.features:
            shortcut = self._conv("shortcut", 1, self.stride)(x)
            shortcut = BatchNorm(name="shortcut_bn")(shortcut, train)
        y = self._conv("conv1", 3, self.stride)(x)
        y = nn.relu(BatchNorm(name="bn1")(y, train))
        y = BatchNorm(name="bn2")(self._conv("conv2", 3, 1)(y), train)
        return nn.relu(y + shortcut)

    def _conv(self, name: str, size: int, stride: int) -> nn.Conv:
        return nn.Conv(
            self.features,
            (size, size),
            stride,
            padding=size // 2,  # 'SAME' pads (0, 1) at stride 2 and even sizes
            use_bias=False,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            name=name,
        )


class SmallResNet(PreActResNet):
    """The same stem, stages and pooling, of basic blocks.

    Features are those after the last ReLU, never negative.  DaSC trains it on
    mini-ImageNet at 32 pixels.

    Source: papers/dasc.md section 3.
    """

    block: ClassVar[type[nn.Module]] = BasicBlock


class ResNetCifar(SmallResNet):
    """The same network with RoLT's initial kernels.

    As published, ``width`` is 16, ``blocks`` (5, 5, 5), the ResNet-32, and
    features are of length 64.

    Source: papers/dividemix_rolt.md section 4.
    """

    def redraw(self, params: dict[str, Any], seed: int) -> dict[str, Any]:
        """Initial values normal by fan-out, see `normal_by_fan_out`."""
        return normal_by_fan_out(params, seed)
