"""DaSC (Baik et al., ECCV 2024, arXiv 2407.16802).

    python -m jaxnlt.main --config=configs/dasc.py
    python -m jaxnlt.main --config=configs/dasc.py:cifar10,noise=sym,rate=0.6

Published, CIFAR-10, imb 0.1: 89.04 % at sym 0.4, 87.12 % at sym 0.6; compare
with ``as_released``.  Numbers: ``papers/dasc.md`` section 4; the meaning of
every field: ``Options`` of jaxnlt/methods/dasc.py.
"""

import dataclasses

import ml_collections

from jaxnlt.config import base, family, fields
from jaxnlt.methods.dasc import Options


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(arg)
    config = base.base(keys)
    config.method = "dasc"
    released = keys["as_released"]
    semi = family.semi_fields(config, Options, warmups=(30, 30))
    # SBCL takes the last two thirds of the warm-up: at least three epochs.
    warmup = max(3, semi.pop("warmup"))
    options = Options(
        **semi,
        warmup=warmup,
        contrast_start=warmup // 3,
        untrained_projector=released,
        aligned_clean_prob=not released,
        midl_label="arange" if released else "zero",
    )
    if family.is_short(config):
        options = dataclasses.replace(
            options, projection_dim=64, memory_size=256, lr_decay_epoch=32.0
        )
    else:
        config.optimizer.weight_decay = 1e-4
    config.dasc = fields.as_dict(options)
    return base.finish(
        config,
        keys,
        boundaries=("dasc.contrast_start", "dasc.warmup"),
        durations=("dasc.ramp", "dasc.lr_decay_epoch"),
    )
