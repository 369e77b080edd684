"""SFA (Li et al., IJCAI 2023, doi 10.24963/ijcai.2023/434).

    python -m jaxnlt.main --config=configs/sfa.py
    python -m jaxnlt.main --config=configs/sfa.py:cifar10,noise=sym,rate=0.6

CIFAR-10, imb 0.1, as TABASCO and DaSC report it: 86.81 % at sym 0.4, 82.89 %
at sym 0.6.  Numbers: ``papers/sfa.md`` section 4; the meaning of every field:
``Options`` of jaxnlt/methods/sfa.py.
"""

from typing import Any

import ml_collections

from jaxnlt.config import base, family, fields
from jaxnlt.methods.sfa import Options


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(arg)
    config = base.base(keys)
    config.method = "sfa"
    released = keys["as_released"]
    values: dict[str, Any] = {"persist_moments": not released}
    values |= family.semi_fields(config, Options, 200, (150,), (30, 30))
    if config.benchmark == "webvision":
        config.epochs, config.optimizer.drops = 100, (49,)  # from 1: 50
        # Its script trains both networks at once, and selects at the end of
        # epochs, section 6.
        values |= {
            "peer": "epoch_start",
            "base_confidence": 0.02,
            "beta": 0.9,
            "first_exponent": 0,
            "fresh_selections": 2,
        }
    elif released:
        values["sampled_classes"] = "over_300"
    config.sfa = fields.as_dict(Options(**values))
    return base.finish(
        config,
        keys,
        boundaries=("sfa.warmup",),
        durations=("sfa.ramp",),
    )
