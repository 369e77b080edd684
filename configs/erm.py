"""Plain training on the given labels, the yardstick of every table.

python -m jaxnlt.main --config=configs/erm.py
python -m jaxnlt.main --config=configs/erm.py:digits,loss=mixup
python -m jaxnlt.main --config=configs/erm.py:digits,view=strong
python -m jaxnlt.main --config=configs/erm.py:digits,num_nets=2
"""

from jaxnlt import config as lib


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = lib.parse(
        arg,
        loss=(str, "ce", "ce or mixup"),
        view=(str, "weak", "weak or strong augmentation"),
        num_nets=(int, 1, "networks that vote"),
    )
    config = lib.base(arg)
    config.method = "erm"
    config.erm = {
        "loss": arg["loss"],
        "view": arg["view"],
        "num_nets": arg["num_nets"],
        # Beta(alpha, alpha) of mixup; 1 is its paper's choice for CIFAR.
        "mixup_alpha": 1.0,
    }
    return lib.finish(config, arg)
