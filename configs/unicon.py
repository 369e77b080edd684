"""UNICON (Karim et al., CVPR 2022, arXiv 2203.14542).

    python -m jaxnlt.main --config=configs/unicon.py
    python -m jaxnlt.main --config=configs/unicon.py:cifar10,imb=1,rate=0.5

Numbers: papers/unicon.md section 1 of the project's notes.
"""

from jaxnlt.config import base as config_lib
from jaxnlt.config import family


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = config_lib.parse(arg)
    config = config_lib.base(arg)
    config.method = "unicon"
    small = config.benchmark == "digits"
    released = arg["as_released"]
    fields = family.semi_fields(small)
    del fields["p_threshold"]  # the share decides, not a probability
    web = family.is_web(config)
    if released and not small and not web:
        # The batches whose statistics train-mode scoring takes.
        config.eval_batch_size = 100
    fields["lambda_u"] = 30.0
    fields["confidence_penalty"] = config.data.noise in (
        *("asym", "asym_block", "flip"),
    )
    fields |= family.semi_schedule(config, 351)
    pace = "exact" if released else "rounded"
    schedule = {
        # Half a cosine from learning_rate down to this; epochs after it rise.
        # 0 epochs leave the rate to optimizer.drops.
        "min_learning_rate": 2e-4,
        "cosine_epochs": 40.0 if small else 0.0 if web else 280.0,
        # Every so many epochs the last one is plain training on all labels,
        # at a rate of its own; 0 is never.
        "restart_every": 0.0,
        "restart_rate": 1e-3,
    }
    if config.benchmark == "clothing1m":
        # Without its two epochs a selection, each from the best validation.
        config.epochs, config.warmup_batch_size = 201, 128
        config.optimizer.learning_rate, config.optimizer.drops = 0.005, ()
        schedule |= {"min_learning_rate": 1e-5, "cosine_epochs": 100.0}
        fields["warmup"] = 0
    elif config.benchmark == "webvision":
        config.epochs, config.optimizer.drops = 121, (60,)
        config.batch_size, config.warmup_batch_size = 24, 96
        config.optimizer.weight_decay = 1e-4
        fields["warmup"], schedule["restart_every"] = 2, 25.0
    config.unicon = fields | {
        # The paper's disagreement reaches 1; the release takes natural
        # logarithms, whose mean can never exceed the limit of 0.7.
        "jsd_log": "e" if released else "2",
        "disagreement_limit": 0.7,
        "cutoff_tau": 5.0,
        # Places that small classes leave free; the release repeats sample 0.
        "unfilled": "repeat_index_0" if released else "none",
        # 'train' scores for the second network with the first one's batch
        # statistics, in the data's order; the release forgets to leave that
        # mode.
        # The scripts for large images do not.
        "scoring_mode": "train" if released and not web else "eval",
        # int(B / 2 share) as released, or a multiple of 8 in [B/2, 2 B]; or
        # B, the 'same', as the scripts for large images have it.
        "unlabelled_batch": "same" if web else pace,
        "contrast_weight": 0.025,
        "contrast_temperature": 0.05,
        "projection_dim": 64 if small else 128,
        **schedule,
    }
    config = config_lib.finish(
        config,
        arg,
        boundaries=("unicon.warmup",),
        durations=(
            *("unicon.ramp", "unicon.cosine_epochs", "unicon.restart_every"),
        ),
    )
    if config.unicon.restart_every:
        return family.with_recurring(config, arg, "unicon.restart_every")
    return config
