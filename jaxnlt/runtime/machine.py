"""The machine of a run: with the config and the data it decides every bit."""

import dataclasses
import os
import platform
from collections.abc import Mapping
from typing import Any

import jax


@dataclasses.dataclass(frozen=True)
class Machine:
    """On what a process trains.

    Attributes:
      device: kind and number of the devices.
      cores: that the process may use; on a CPU, XLA rounds by their number.
      jax: its version.
    """

    device: str
    cores: int
    jax: str

    def changes(self, earlier: Mapping[str, Any]) -> str:
        """What rounds otherwise here than there.

        Args:
          earlier: the fields of another machine; some may be missing.

        Returns:
          Such as ``cores: 2 before, 1 now``, or ''.  On other devices than
          CPUs the number of cores moves no figure.
        """
        rounding = dataclasses.asdict(self)
        if jax.default_backend() != "cpu":
            del rounding["cores"]
        return ", ".join(
            f"{name}: {earlier[name]} before, {value} now"
            for name, value in rounding.items()
            if name in earlier and earlier[name] != value
        )


def here(devices: int) -> Machine:
    """The machine of this process.

    Args:
      devices: how many the run uses.
    """
    device = jax.devices()[0]
    kind = device.device_kind
    if device.platform == "cpu":
        kind = f"CPU {platform.machine()}"
    named = kind if devices == 1 else f"{devices} x {kind}"
    return Machine(named, cores(), jax.__version__)


def cores() -> int:
    """The number of cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
