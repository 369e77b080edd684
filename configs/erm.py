"""Plain training on the given labels, the yardstick of every table.

python -m jaxnlt.main --config=configs/erm.py
python -m jaxnlt.main --config=configs/erm.py:digits,loss=mixup
python -m jaxnlt.main --config=configs/erm.py:digits,loss=ldam_drw
python -m jaxnlt.main --config=configs/erm.py:digits,second=crt
python -m jaxnlt.main --config=configs/erm.py:digits,sampling=class_balanced
python -m jaxnlt.main --config=configs/erm.py:digits,view=strong
python -m jaxnlt.main --config=configs/erm.py:digits,num_nets=2

Papers of the losses: jaxnlt/losses/robust.py.
"""

import ml_collections

from jaxnlt.config import base, fields
from jaxnlt.config.base import Key
from jaxnlt.methods.erm import Options


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(
        arg,
        loss=Key(
            str,
            "ce",
            "ce mixup focal balanced_softmax logit_adjustment ldam gce sce "
            "elr nce_rce ... (config.erm.loss lists all); ldam_drw is ldam "
            "with second=drw",
        ),
        view=Key(str, "weak", "weak or strong augmentation"),
        num_nets=Key(int, 1, "networks that vote"),
        sampling=Key(str, "instance", "instance, square_root, class_balanced"),
        second=Key(str, "none", "second phase: none, drw, crt or tau_norm"),
    )
    config = base.base(keys)
    config.method = "erm"
    # Plain training takes the batches of the other methods' warm-up.
    config.batch_size = config.warmup_batch_size
    loss, second = keys["loss"], keys["second"]
    if loss == "ldam_drw":
        loss, second = "ldam", "drw"
    many = config.benchmark == "cifar100"
    start = round(0.8 * config.epochs)  # LDAM-DRW's 160 of 200
    if second == "tau_norm":
        start = config.epochs - 1  # a batch that is not trained on
    options = Options(
        loss=loss,
        view=keys["view"],
        num_nets=keys["num_nets"],
        sampling=keys["sampling"],
        second=second,
        second_start=start if second != "none" else 0,
        focal_gamma=0.5 if loss.startswith("nfl") else 2.0,
        # The papers' settings for CIFAR-10 and CIFAR-100.
        sce_forward=6.0 if many else 0.1,
        sce_backward=0.1 if many else 1.0,
        apl_active=10.0 if many else 1.0,
        apl_passive=0.1 if many else 1.0,
        elr_weight=7.0 if many else 3.0,
        elr_momentum=0.9 if many else 0.7,
    )
    config.erm = fields.as_dict(options)
    boundaries = ("erm.second_start",) if second != "none" else ()
    return base.finish(config, keys, boundaries=boundaries)
