"""SMR (Zhang et al., Mathematics 2024, 12(15), 2389).

    python -m jaxnlt.main --config=configs/smr.py
    python -m jaxnlt.main --config=configs/smr.py:cifar10,imb=1,rate=0.5

Numbers: ``papers/smr.md`` section 2; the meaning of every field: ``Options`` of
jaxnlt/methods/smr.py.
"""

from typing import Any

import ml_collections

from jaxnlt.config import base, family, fields
from jaxnlt.methods.smr import Options

PERIODS = {"animal10n": 15.0, "clothing1m": 10.0, "webvision": 15.0}


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(arg)
    config = base.base(keys)
    config.method = "smr"
    released, benchmark = keys["as_released"], config.benchmark
    values: dict[str, Any] = {"spare_last_epoch": not released}
    if not released:  # the release's default is 25 whatever the noise
        values["lambda_u"] = family.published_lambda_u(config.data, benchmark)
    values |= family.semi_fields(config, Options, 301, drops=(150,))
    if family.is_short(config):
        values["period"] = 4.0
    elif family.is_web(config):  # no paper has other sets: a tenth, ours
        values["period"] = PERIODS.get(benchmark, config.epochs / 10)
    else:
        config.batch_size, config.warmup_batch_size = 128, 256
    if benchmark == "webvision":
        config.epochs, config.optimizer.drops = 121, (40, 80)
        config.data.transform = "webvision_smr"
    elif benchmark == "animal10n" and released:
        values["animal10n_lr"] = "released"
    elif benchmark == "clothing1m" and released:
        values["recalibrate_on"] = "pool"
    if benchmark in ("clothing1m", "webvision"):
        values["spare_first_epoch"] = False
    config.smr = fields.as_dict(Options(**values))
    config = base.finish(
        config,
        keys,
        boundaries=("smr.warmup",),
        durations=("smr.ramp", "smr.period"),
    )
    return family.with_recurring(config, keys, "smr.period")
