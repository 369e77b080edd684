"""VGG19-BN: torchvision's configuration E with batch normalisation."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnlt.models.initialise import normal_by_fan_out
from jaxnlt.models.layers import BatchNorm, adaptive_mean, relu
from jaxnlt.runtime.errors import UserError

#: Bins a side of the map that the linear layers read.
BINS = 7


class VGG(nn.Module):
    """Stages of 3x3 convolutions and max-pooling, then two linear layers.

    Stage i (from 0) has ``blocks[i]`` times convolution, BN and ReLU, of
    ``width * min(2**i, 8)`` channels, and halves the resolution at its end.
    Adaptive averaging makes a map of 7x7 of any size.  Each linear layer has
    ``64 * width`` outputs, ReLU and dropout of one half; the second one gives
    the features.

    Source: ``papers/smr.md`` section 5.

    Attributes:
      width: channels of the first stage; 64 as published.
      blocks: convolutions per stage; (2, 2, 4, 4, 4) is the VGG19.
      dtype: of the layers and activations.
      param_dtype: of the parameters and of the features.
    """

    drops: ClassVar[bool] = True
    width: int = 64
    blocks: tuple[int, ...] = (2, 2, 4, 4, 4)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Length F of the features; 4096 as published."""
        return 64 * self.width

    @nn.compact
    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Features of normalised images, [B, H, W, C] -> [B, F].

        Dropout in train mode draws from the rng named 'dropout'.

        Raises:
          UserError: an image has fewer than 2**stages pixels a side.
        """
        least = 2 ** len(self.blocks)
        if min(images.shape[1:3]) < least:
            raise UserError(
                f"config.model.name: vgg19_bn needs images of at least {least}"
                f" pixels a side, these have {images.shape[1:3]}"
            )
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = images
        for i, count in enumerate(self.blocks):
            for j in range(count):
                layer = f"{i + 1}_{j + 1}"
                x = nn.Conv(
                    self.width * min(2**i, 8),
                    (3, 3),
                    padding=1,
                    name=f"conv{layer}",
                    **dtypes,
                )(x)
                x = relu(BatchNorm(name=f"bn{layer}")(x, train))
            x = nn.max_pool(x, (2, 2), (2, 2))
        x = adaptive_mean(x, BINS)
        # PyTorch flattens channel by channel.
        x = x.transpose(0, 3, 1, 2).reshape(len(x), -1)
        for name in ("linear1", "linear2"):
            x = relu(nn.Dense(self.feature_dim, name=name, **dtypes)(x))
            x = nn.Dropout(0.5, deterministic=not train)(x)
        return x.astype(self.param_dtype)

    def redraw(self, params: dict[str, Any], seed: int) -> dict[str, Any]:
        """Draws torchvision's initial values by ``normal_by_fan_out``."""
        return normal_by_fan_out(params, seed)
