"""Our own recipe: DaSC, with strong views in the warm-up and a last phase.

The last quarter of the epochs trains the whole networks on the labels that are
trusted, classes drawn evenly, with a tenth of the step size.

    python -m jaxnlt.main --config=configs/best.py
    python -m jaxnlt.main --config=configs/best.py:cifar10,noise=sym,rate=0.6

Of no paper.  What was tried, on which data, and with which figures:
docs/results.md; every piece is a field that the other two-network methods have
as well: docs/methods.md.
"""

import pathlib

import ml_collections

from jaxnlt import command_line
from jaxnlt.config import base
from jaxnlt.runtime.errors import UserError


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys.

    Raises:
      UserError: ``as_released``, which is of papers.
    """
    keys = base.parse(arg)
    if keys["as_released"]:
        raise UserError("as_released: best is of no paper; leave it out")
    beside = pathlib.Path(__file__).with_name("dasc.py")
    config = command_line.load_config(str(beside), arg)
    if keys["smoke"]:
        config.epochs += 1  # of the phase that DaSC does not have
    config.dasc.warmup_view = "strong"
    config.dasc.retrain_epochs = max(1, round(config.epochs / 4))
    config.dasc.retrain_part = "all"
    return config
