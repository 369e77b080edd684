"""What makes XLA fast on CPUs; nothing here changes other devices."""

import functools
import os

import jax

_OPTION = "xla_cpu_experimental_ynn_fusion_type"
#: XLA hands these to the library YNNPACK, but convolutions to Eigen, which is
#: up to twice as fast at them.  By default YNNPACK takes convolutions as well.
_TO_YNNPACK = "LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE"


def options() -> dict[str, str | bool | int | float] | None:
    """``compiler_options`` of ``jax.jit`` for programs with convolutions.

    Returns:
      None where the default is best: on other devices, where the installed XLA
      does not know the option, and where the user's ``XLA_FLAGS`` set it.
    """
    if _OPTION in os.environ.get("XLA_FLAGS", ""):
        return None
    if jax.default_backend() != "cpu" or not _known():
        return None
    return {_OPTION: _TO_YNNPACK}


@functools.cache
def _known() -> bool:
    """Whether the installed XLA takes the option."""
    program = jax.jit(lambda x: x, compiler_options={_OPTION: _TO_YNNPACK})
    try:
        program.lower(0).compile()
    except jax.errors.JaxRuntimeError:
        return False
    return True
