"""A classifier: a backbone and the heads that read its features."""

from typing import Any, Protocol

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxnlt import losses
from jaxnlt.models.layers import BatchNorm, l2_normalise, relu

#: The heads that a network can hold.
HEADS = (
    "features",
    "logits",
    "balanced",
    "projection",
    "prototypes",
    "embedding",
    "identifier",
)


class Backbone(Protocol):
    """A Linen module that turns images [B, H, W, C] into features [B, F].

    It may have ``drops = True``, where dropout in train mode draws from the rng
    named 'dropout'; ``redraw(params, seed) -> params`` for initial values of
    its own, ``redraw_heads`` likewise for those of the heads; and
    ``reads_rows = True``, where it takes rows [B, D] in place of images.
    """

    @property
    def feature_dim(self) -> int:
        """Length F of the feature."""

    def __call__(self, images: jax.Array, train: bool) -> jax.Array:
        """Computes the features [B, F]."""


class Projector(nn.Module):
    """Unit rows ``l2norm(out(relu(bn(hidden(x)))))``.

    The hidden layer is four times as wide as the output.

    Source: ``papers/dasc.md`` section 3.
    """

    dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Projects onto the unit sphere: [B, F] -> [B, dim]."""
        linear = {"dtype": self.dtype, "param_dtype": self.dtype}
        x = nn.Dense(4 * self.dim, name="hidden", **linear)(x)
        x = relu(BatchNorm(name="bn")(x, train))
        x = nn.Dense(self.dim, name="out", **linear)(x)
        return l2_normalise(x)


class Embedding(nn.Module):
    """Rows ``bn(linear(x))``, not normalised.

    Source: ``papers/unicon.md`` section 2.
    """

    dim: int
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Embeds features: [B, F] -> [B, dim]."""
        x = nn.Dense(
            self.dim, name="linear", dtype=self.dtype, param_dtype=self.dtype
        )(x)
        return BatchNorm(name="bn")(x, train)


class Identifier(nn.Module):
    r"""A linear classifier minus a log prior with trainable exponents.

    .. math:: f W + b - \ln(\pi^\tau + 10^{-12})

    Source: ``papers/h2e.md`` section 3.

    Attributes:
      prior: C class frequencies pi.
      dtype: of the result and of all parameters.
    """

    prior: tuple[float, ...]
    dtype: Any

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Prior-adjusted logits: [B, F] -> [B, C]."""
        classes = len(self.prior)
        linear = {"dtype": self.dtype, "param_dtype": self.dtype}
        ones = nn.initializers.ones
        exponents = self.param("exponents", ones, (classes,), self.dtype)
        logits = nn.Dense(classes, name="linear", **linear)(x)
        prior = jnp.asarray(self.prior, self.dtype)
        return logits - losses.prior_adjustment(prior, jnp.asarray(exponents))


class Classifier(nn.Module):
    """Backbone, optional bottleneck, and heads that run only when named.

    Heads are computed in the dtype of the parameters also if the backbone runs
    in bfloat16: they are cheap, and contrastive losses divide by small
    temperatures.

    Source: ``papers/dasc.md`` section 3; ``papers/sfa.md`` section 2.1;
    ``papers/unicon.md`` section 2; ``papers/h2e.md`` section 3.

    Attributes:
      backbone: images -> pooled features.
      num_classes: C.
      held: the heads that have parameters here.
      has_bottleneck: a Linear(F -> F) without activation follows the pooling.
      projection_dim: length of projection, prototypes and embedding.
      dtype: of the heads and of all parameters.
      prior: C class frequencies of the head 'identifier'.
    """

    backbone: Backbone
    num_classes: int
    held: tuple[str, ...]
    has_bottleneck: bool
    projection_dim: int
    dtype: Any
    prior: tuple[float, ...] = ()

    def setup(self) -> None:
        """Makes the held heads; attributes name the parameters' paths."""
        if self.has_bottleneck:
            self.bottleneck = self._linear(self.backbone.feature_dim)
        if "logits" in self.held:
            self.logits = self._linear(self.num_classes)
        if "balanced" in self.held:
            self.balanced = self._linear(self.num_classes)
        if "projection" in self.held:
            self.projector = Projector(self.projection_dim, self.dtype)
        if "prototypes" in self.held:
            self.prototype_projector = Projector(
                self.projection_dim, self.dtype
            )
        if "embedding" in self.held:
            self.embedding = Embedding(self.projection_dim, self.dtype)
        if "identifier" in self.held:
            self.identifier = Identifier(self.prior, self.dtype)

    def __call__(
        self, images: jax.Array | None, heads: tuple[str, ...], train: bool
    ) -> dict[str, jax.Array]:
        """Runs the named heads, and the backbone where one of them needs it.

        Args:
          images: [B, H, W, C], normalised; None where only 'prototypes' is
            named.
          heads: of ``HEADS``.
          train: BatchNorm uses the batch and moves its running statistics.

        Returns:
          The named heads' outputs: 'features' [B, F] (after the bottleneck),
          'logits', 'balanced' and 'identifier' [B, C], 'projection' [B, D] and
          'prototypes' [C, D] with unit rows, 'embedding' [B, D].

        Raises:
          ValueError: a named head needs images and they are missing.
        """
        outputs = {}
        if set(heads) - {"prototypes"}:
            if images is None:
                raise ValueError(f"heads={heads} need images")
            features = self.backbone(images, train)
            if self.has_bottleneck:
                features = self.bottleneck(features)
            if "features" in heads:
                outputs["features"] = features
            if "logits" in heads:
                outputs["logits"] = self.logits(features)
            if "balanced" in heads:
                outputs["balanced"] = self.balanced(features)
            if "projection" in heads:
                outputs["projection"] = self.projector(features, train)
            if "embedding" in heads:
                outputs["embedding"] = self.embedding(features, train)
            if "identifier" in heads:
                outputs["identifier"] = self.identifier(features)
        if "prototypes" in heads:
            # Row c is class c's weight vector; the gradient reaches it.
            kernel: jax.Array = self.logits.get_variable("params", "kernel")
            outputs["prototypes"] = self.prototype_projector(kernel.T, train)
        return outputs

    def _linear(self, features: int) -> nn.Dense:
        return nn.Dense(features, dtype=self.dtype, param_dtype=self.dtype)
