"""Plain training on the given labels, the yardstick of every table.

python -m jaxnlt.main --config=configs/erm.py
python -m jaxnlt.main --config=configs/erm.py:digits,loss=mixup
python -m jaxnlt.main --config=configs/erm.py:digits,loss=ldam_drw
python -m jaxnlt.main --config=configs/erm.py:digits,second=crt
python -m jaxnlt.main --config=configs/erm.py:digits,sampling=class_balanced
python -m jaxnlt.main --config=configs/erm.py:digits,view=strong
python -m jaxnlt.main --config=configs/erm.py:digits,num_nets=2
python -m jaxnlt.main --config=configs/erm.py:cifar10,loss=ldam,schedule=paper

Papers of the losses: jaxnlt/losses/robust.py.
"""

from typing import Any

import ml_collections

from jaxnlt.config import base, fields
from jaxnlt.config.base import Key
from jaxnlt.methods.erm import Options
from jaxnlt.runtime.errors import UserError, one_of

SCHEDULES = ("family", "paper")


def get_config(arg: str | None = None) -> ml_collections.ConfigDict:
    """The configuration of one benchmark; see ``:help`` for the keys."""
    keys = base.parse(
        arg,
        loss=Key(
            str,
            None,
            "ce mixup focal balanced_softmax logit_adjustment ldam gce sce "
            "elr nce_rce ... (config.erm.loss lists all); ldam_drw is ldam "
            "with second=drw; elr of features, else ce",
        ),
        view=Key(str, "weak", "weak or strong augmentation"),
        num_nets=Key(int, 1, "networks that vote"),
        sampling=Key(str, "instance", "instance, square_root, class_balanced"),
        second=Key(str, "none", "second phase: none, drw, crt or tau_norm"),
        schedule=Key(
            str,
            "family",
            "family: as methods that it is compared with; paper, on CIFAR: 200 "
            "epochs and drops, of mixup for mixup, of LDAM for all others",
        ),
    )
    one_of("schedule", keys["schedule"], SCHEDULES)
    config = base.base(keys)
    config.method = "erm"
    # Plain training takes the batches of the other methods' warm-up.
    config.batch_size = config.warmup_batch_size
    # A perceptron memorises features within few epochs; elr keeps it from it.
    usual = "elr" if config.model.name == "mlp" else "ce"
    loss: Any = usual if keys["loss"] is None else keys["loss"]
    second = keys["second"]
    if loss == "ldam_drw":
        loss, second = "ldam", "drw"
    paper = keys["schedule"] == "paper"
    if paper:
        _set_schedule(config, loss)
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
        lr_rise=5.0 if paper and loss != "mixup" else 0.0,
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
    return base.finish(
        config, keys, boundaries=boundaries, durations=("erm.lr_rise",)
    )


def _set_schedule(config: ml_collections.ConfigDict, loss: str) -> None:
    """Epochs and step sizes of the losses' papers on CIFAR.

    Mixup: Zhang et al. 2018, section 3.2.  LDAM: Cao et al. 2019, section 4,
    which work on long tails shares (``papers/dividemix_rolt.md`` section 4);
    the papers of the robust losses have shorter ones, each another.
    """
    if not config.benchmark.startswith("cifar"):
        raise UserError(
            f"schedule: paper is for CIFAR, not for {config.benchmark}; leave "
            "it out"
        )
    config.epochs = 200
    config.optimizer.learning_rate = 0.1
    if loss == "mixup":
        config.optimizer.drops = (100, 150)
        config.optimizer.weight_decay = 1e-4
    else:
        config.optimizer.drops = (160, 180)
        config.optimizer.drop_factor = 0.01
        config.optimizer.weight_decay = 2e-4
