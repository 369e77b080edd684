"""A multilayer perceptron for rows of features of a frozen encoder."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnlt.models.layers import BatchNorm, relu


class MLP(nn.Module):
    """Hidden layers of one width: linear, BatchNorm, ReLU.

    Attributes:
      width: outputs of every hidden layer.
      blocks: hidden layers of each stage; stages do not differ, their sum
        counts.
      dtype: of the layers and activations.
      param_dtype: of the parameters and of the features.
    """

    #: It reads rows [B, D], not images.
    reads_rows: ClassVar[bool] = True
    width: int = 256
    blocks: tuple[int, ...] = (2,)
    dtype: Any = jnp.float32
    param_dtype: Any = jnp.float32

    @property
    def feature_dim(self) -> int:
        """Length F of the features, the last hidden layer's."""
        return self.width

    @nn.compact
    def __call__(self, rows: jax.Array, train: bool) -> jax.Array:
        """The last hidden layer of standardised rows, [B, D] -> [B, F]."""
        dtypes = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        x = rows
        for i in range(1, sum(self.blocks) + 1):
            x = nn.Dense(self.width, name=f"linear{i}", **dtypes)(x)
            x = relu(BatchNorm(name=f"bn{i}")(x, train))
        return x.astype(self.param_dtype)
