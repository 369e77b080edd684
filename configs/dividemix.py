"""DivideMix (Li et al., ICLR 2020, arXiv 2002.07394).

    python -m jaxnlt.main --config=configs/dividemix.py
    python -m jaxnlt.main --config=configs/dividemix.py:cifar10,imb=1,rate=0.5
    python -m jaxnlt.main --config=configs/dividemix.py:clothing1m \\
        --config.data.path=DIR --config.model.pretrained=resnet50.pth

Numbers: ``papers/dividemix_rolt.md`` section 1; those of WebVision are its
script for one GPU.
"""

from typing import Any

import ml_collections

from jaxnlt.config import base, family, fields
from jaxnlt.methods.dividemix import Options


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(arg)
    config = base.base(keys)
    config.method = "dividemix"
    released = keys["as_released"]
    values: dict[str, Any] = {}
    if not released:  # the release's default is 25 whatever the noise
        values["lambda_u"] = family.published_lambda_u(
            config.data, config.benchmark
        )
    if config.data.rate == 0.9 and config.data.imb == 1 and not released:
        values["p_threshold"] = 0.6  # issue 10
    values |= family.semi_fields(config, Options, 301, drops=(150,))
    if config.benchmark == "clothing1m":  # section 3.1
        values["confidence_penalty"] = True
    config.dividemix = fields.as_dict(Options(**values))
    return base.finish(
        config,
        keys,
        boundaries=("dividemix.warmup",),
        durations=("dividemix.ramp",),
    )
