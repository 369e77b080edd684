"""RoLT and RoLT+ (Wei et al., arXiv 2108.11569).

    python -m jaxnlt.main --config=configs/rolt.py
    python -m jaxnlt.main --config=configs/rolt.py:digits,loss=ldam
    python -m jaxnlt.main --config=configs/rolt.py:cifar10,plus=True

Numbers: ``papers/dividemix_rolt.md`` sections 4 and 6.
"""

from collections.abc import Mapping
from typing import Any

import ml_collections

from jaxnlt.config import base, family, fields
from jaxnlt.config.base import Key
from jaxnlt.methods import rolt, rolt_plus


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(
        arg,
        plus=Key(bool, False, "RoLT+: DivideMix that selects as RoLT does"),
        loss=Key(str, "ce", "loss of RoLT: ce or ldam"),
        drw=Key(bool, True, "deferred re-weighting of RoLT's classes"),
    )
    config = base.base(keys)
    return (_plus if keys["plus"] else _single)(config, keys)


def _single(
    config: ml_collections.ConfigDict, keys: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    config.method = "rolt"
    # Plain training takes the batches of the other methods' warm-up.
    config.batch_size = config.warmup_batch_size
    released = keys["as_released"]
    values: dict[str, Any] = {"soft_start": 16, "drw_start": 32, "lr_rise": 1.0}
    if not family.is_short(config):
        values = {}
        config.epochs = 200
        config.optimizer.learning_rate = 0.1
        config.optimizer.weight_decay = 2e-4
        config.optimizer.drops = (159, 179)
        config.optimizer.drop_factor = 0.01
    if config.benchmark.startswith("cifar"):  # the paper's network
        config.model.name = "resnet32"
        if released and config.benchmark.startswith("cifar100"):  # section 4
            config.data.statistics = "cifar10"
    options = rolt.Options(
        loss=keys["loss"],
        drw=keys["drw"],
        ensembling="compounding" if released else "standard",
        clean_on="augmented" if released else "eval",
        last_batch="dropped" if released else "filled",
        **values,
    )
    config.rolt = fields.as_dict(options)
    return base.finish(
        config,
        keys,
        boundaries=("rolt.soft_start", "rolt.drw_start"),
        durations=("rolt.lr_rise",),
    )


def _plus(
    config: ml_collections.ConfigDict, keys: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    config.method = "rolt_plus"
    warmups = (10, 30) if config.data.imb == 1 else (50, 50)
    values = family.semi_fields(config, rolt_plus.Options, 300, (150,), warmups)
    config.rolt_plus = fields.as_dict(rolt_plus.Options(**values))
    return base.finish(
        config,
        keys,
        boundaries=("rolt_plus.warmup",),
        durations=("rolt_plus.ramp", "rolt_plus.drw_start"),
    )
