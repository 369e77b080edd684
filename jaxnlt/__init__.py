"""JAX/Flax training of image classifiers from noisy, long-tailed labels.

The public names load on first use, so that importing the package loads nothing
heavy.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "DataInfo": "jaxnlt.method",
    "Method": "jaxnlt.method",
    "Phase": "jaxnlt.method",
    "Selection": "jaxnlt.method",
    "Selector": "jaxnlt.method",
    "audit": "jaxnlt.auditing",
    "load_config": "jaxnlt.command_line",
    "run": "jaxnlt.train",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - names of a dict


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'jaxnlt' has no attribute {name!r}")
