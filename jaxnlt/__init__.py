"""JAX/Flax training of image classifiers from noisy, long-tailed labels.

The public names load on first use, so that importing the package loads nothing
heavy.
"""

import importlib
import sys
import types
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "DataInfo": "jaxnlt.method",
    "Method": "jaxnlt.method",
    "NoisyLabelClassifier": "jaxnlt.api.estimator",
    "Phase": "jaxnlt.method",
    "Result": "jaxnlt.api.result",
    "Selection": "jaxnlt.method",
    "Selector": "jaxnlt.method",
    "audit": "jaxnlt.auditing",
    "fit": "jaxnlt.api.fit",
    "load_config": "jaxnlt.command_line",
    "predict": "jaxnlt.predict",
    "run": "jaxnlt.train",
}

__all__ = ["__version__", *_PUBLIC]  # noqa: PLE0604 - names of a dict


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    raise AttributeError(f"module 'jaxnlt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})


class _Package(types.ModuleType):
    """The package, in which no module hides a public name.

    Python makes an imported module an attribute of its package:
    ``jaxnlt.predict`` would be the function before and the module after an
    import of ``jaxnlt.predict``.  So it is the function, always.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _PUBLIC or not isinstance(value, types.ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
