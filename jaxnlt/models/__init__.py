"""Networks and their heads; the only folder that uses Flax."""

from jaxnlt.models.heads import HEADS
from jaxnlt.models.network import (
    BACKBONES,
    DTYPES,
    Network,
    build,
    register,
    sizes,
)

__all__ = [
    "BACKBONES",
    "DTYPES",
    "HEADS",
    "Network",
    "build",
    "register",
    "sizes",
]
