"""RoLT and RoLT+ (Wei et al., arXiv 2108.11569).

    python -m jaxnlt.main --config=configs/rolt.py
    python -m jaxnlt.main --config=configs/rolt.py:digits,loss=ldam
    python -m jaxnlt.main --config=configs/rolt.py:cifar10,plus=True

Numbers: papers/dividemix_rolt.md sections 4 and 6 of the project's notes.
"""

from jaxnlt.config import base as config_lib
from jaxnlt.config import family


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = config_lib.parse(
        arg,
        plus=(bool, False, "RoLT+: DivideMix that selects as RoLT does"),
        loss=(str, "ce", "loss of RoLT: ce or ldam"),
        drw=(bool, True, "deferred re-weighting of RoLT's classes"),
    )
    config = config_lib.base(arg)
    return (_plus if arg["plus"] else _single)(config, arg)


def _single(config, arg):
    config.method = "rolt"
    small = config.benchmark == "digits"
    if not small:
        config.epochs = 200
        config.optimizer.learning_rate = 0.1
        config.optimizer.weight_decay = 2e-4
        config.optimizer.drops = (159, 179)
        config.optimizer.drop_factor = 0.01
    if config.benchmark.startswith("cifar"):  # the paper's network
        config.model.name = "resnet32"
    config.rolt = {
        "loss": arg["loss"],
        # First epoch with soft labels, and with deferred re-weighting.
        "soft_start": 16 if small else 80,
        "drw": arg["drw"],
        "drw_start": 32 if small else 160,
        "drw_beta": 0.9999,
        "ldam_margin": 0.5,
        "ldam_scale": 30.0,
        # Epochs over which the learning rate rises.
        "lr_rise": 1.0 if small else 5.0,
        "ensemble_decay": 0.6,
        # The release divides the running mean by its correction over and over.
        "ensembling": "compounding" if arg["as_released"] else "standard",
        # Images that cleaning looks at; the release's loader augments them.
        "clean_on": "augmented" if arg["as_released"] else "eval",
        # 'ncm' votes by the centroids of the epoch's start.
        "vote_by": "logits",
    }
    return config_lib.finish(
        config,
        arg,
        boundaries=("rolt.soft_start", "rolt.drw_start"),
        durations=("rolt.lr_rise",),
    )


def _plus(config, arg):
    config.method = "rolt_plus"
    small = config.benchmark == "digits"
    fields = family.semi_fields(small) | family.gmm_fields()
    del fields["average_losses"]
    warmups = (10, 30) if config.data.imb == 1 else (50, 50)
    fields |= family.semi_schedule(config, 300, (150,), warmups)
    config.rolt_plus = fields | {
        # What the mixtures are fitted on: 'loss' or 'dist'ance.
        "basis": "dist",
        # One mixture a given class, or one for all.
        "per_class": True,
        # First epoch whose labelled rows weigh by class; 0 is never, as in the
        # release's default.  Its better run: 200, with a warm-up of 100.
        "drw_start": 0.0,
        "drw_beta": 0.9999,
    }
    return config_lib.finish(
        config,
        arg,
        boundaries=("rolt_plus.warmup",),
        durations=("rolt_plus.ramp", "rolt_plus.drw_start"),
    )
