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

from jaxnlt.config import base as config_lib


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = config_lib.parse(
        arg,
        loss=(
            str,
            "ce",
            "ce mixup focal balanced_softmax logit_adjustment ldam gce sce "
            "nce_rce elr; ldam_drw is ldam with second=drw",
        ),
        view=(str, "weak", "weak or strong augmentation"),
        num_nets=(int, 1, "networks that vote"),
        sampling=(str, "instance", "instance, square_root, class_balanced"),
        second=(str, "none", "second phase: none, drw, crt or tau_norm"),
    )
    config = config_lib.base(arg)
    config.method = "erm"
    loss, second = arg["loss"], arg["second"]
    if loss == "ldam_drw":
        loss, second = "ldam", "drw"
    many = config.benchmark == "cifar100"
    start = round(0.8 * config.epochs)
    if second == "tau_norm":
        start = config.epochs - 1  # a batch that is not trained on
    config.erm = {
        "loss": loss,
        "view": arg["view"],
        "num_nets": arg["num_nets"],
        "sampling": arg["sampling"],
        # Deferred re-weighting, classifier re-training, tau-normalisation; the
        # first epoch of it, by LDAM-DRW's 160 of 200.
        "second": second,
        "second_start": start if second != "none" else 0,
        # Beta(alpha, alpha) of mixup; 1 is its paper's choice for CIFAR.
        "mixup_alpha": 1.0,
        "focal_gamma": 2.0,
        # tau of logit adjustment; 1 is its paper's choice without tuning.
        "adjustment": 1.0,
        # LDAM-DRW's settings, which RoLT takes over.
        "ldam_margin": 0.5,
        "ldam_scale": 30.0,
        "drw_beta": 0.9999,
        "gce_q": 0.7,
        # Symmetric CE: its paper's settings for CIFAR-10 and CIFAR-100.
        "sce_forward": 6.0 if many else 0.1,
        "sce_backward": 0.1 if many else 1.0,
        "sce_log_zero": -4.0,
        # NCE+RCE: its paper's weights of the active and the passive loss.
        "apl_active": 10.0 if many else 1.0,
        "apl_passive": 0.1 if many else 1.0,
        # ELR: its paper's settings for CIFAR-10 and CIFAR-100.
        "elr_weight": 7.0 if many else 3.0,
        "elr_momentum": 0.9 if many else 0.7,
        # tau-normalisation; 0 leaves the classifier but for its bias.
        "tau": 1.0,
    }
    boundaries = ("erm.second_start",) if second != "none" else ()
    return config_lib.finish(config, arg, boundaries)
