"""UNICON (Karim et al., CVPR 2022, arXiv 2203.14542).

    python -m jaxnlt.main --config=configs/unicon.py
    python -m jaxnlt.main --config=configs/unicon.py:cifar10,imb=1,rate=0.5

Numbers: ``papers/unicon.md`` section 1; the meaning of every field: ``Options``
of jaxnlt/methods/unicon.py.
"""

from typing import Any

import ml_collections

from jaxnlt.config import base, family, fields
from jaxnlt.methods.unicon import Options


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(arg)
    config = base.base(keys)
    config.method = "unicon"
    released, benchmark = keys["as_released"], config.benchmark
    small, web = family.is_short(config), family.is_web(config)
    values: dict[str, Any] = {}
    if released:
        values |= {
            "jsd_log": "e",
            "unfilled": "repeat_index_0",
            "unlabelled_batch": "exact",
        }
    if released and benchmark != "webvision":  # section 4
        values["last_batch"] = "dropped"
    if released and not web:
        values["scoring_mode"] = "train"
        if not small:  # the batches whose statistics train-mode scoring takes
            config.eval_batch_size = 100
    values |= family.semi_fields(config, Options, 351)
    if small:
        values |= {"projection_dim": 64, "cosine_epochs": 40.0}
    if config.augment.strong == "flip_autoaugment":  # section 9
        config.augment.strong = "flip_autoaugment_imagenet"
    if web:
        values |= {"unlabelled_batch": "same", "cosine_epochs": 0.0}
    if benchmark == "clothing1m":
        config.epochs, config.warmup_batch_size = 201, 128
        config.optimizer.learning_rate, config.optimizer.drops = 0.005, ()
        values |= {
            "warmup": 0,
            "min_learning_rate": 1e-5,
            "cosine_epochs": 100.0,
            "passes": 2,
            "added_pass": 101.0,
            "keep": "best",
        }
    elif benchmark == "webvision":
        config.epochs, config.optimizer.drops = 121, (60,)
        config.batch_size, config.warmup_batch_size = 24, 96
        config.optimizer.weight_decay = 1e-4
        values |= {"warmup": 2, "restart_every": 25.0}
    config.unicon = fields.as_dict(Options(**values))
    config = base.finish(
        config,
        keys,
        boundaries=("unicon.warmup",),
        durations=(
            "unicon.ramp",
            "unicon.cosine_epochs",
            "unicon.added_pass",
            "unicon.restart_every",
        ),
    )
    if config.unicon.restart_every:
        return family.with_recurring(config, keys, "unicon.restart_every")
    return config
