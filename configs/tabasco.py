"""TABASCO (Lu et al., ICCV 2023, arXiv 2208.09833).

    python -m jaxnlt.main --config=configs/tabasco.py
    python -m jaxnlt.main --config=configs/tabasco.py:cifar10,noise=sym,rate=0.6

Published, CIFAR-10, imb 0.1: 85.53 % at sym 0.4, 84.83 % at sym 0.6; compare
with ``as_released``.  Numbers: ``papers/dasc.md`` sections 4 and 8; the meaning
of every field: ``Options`` of jaxnlt/methods/tabasco.py.
"""

import ml_collections

from jaxnlt.config import base, family, fields
from jaxnlt.methods.tabasco import Options


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(arg)
    config = base.base(keys)
    config.method = "tabasco"
    values = family.semi_fields(config, Options)
    if keys["as_released"]:
        # The release's other, faster script averages samples, as the default.
        values["mean_batch"] = 64
    config.tabasco = fields.as_dict(Options(**values))
    return base.finish(
        config,
        keys,
        boundaries=("tabasco.warmup",),
        durations=("tabasco.ramp",),
    )
