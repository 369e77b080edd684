"""Makes a cleaned copy of a run's training data: ``python -m jaxnlt.clean``."""

from jaxnlt.clean.command import main

__all__ = ["main"]
