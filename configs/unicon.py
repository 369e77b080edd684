"""UNICON (Karim et al., CVPR 2022, arXiv 2203.14542).

    python -m jaxnlt.main --config=configs/unicon.py
    python -m jaxnlt.main --config=configs/unicon.py:cifar10,imb=1,rate=0.5

Numbers: papers/unicon.md section 1 of the project's notes.
"""

from jaxnlt import config as lib


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = lib.parse(arg)
    config = lib.base(arg)
    config.method = "unicon"
    small = config.benchmark == "digits"
    released = arg["as_released"]
    fields = lib.semi_fields(small)
    del fields["p_threshold"]  # the share decides, not a probability
    if not small:
        config.epochs = 351
        ten_classes = config.benchmark in ("cifar10", "cifar10n")
        fields["warmup"] = 10 if ten_classes else 30
        if released:  # the batches whose statistics train-mode scoring takes
            config.eval_batch_size = 100
    fields["lambda_u"] = 30.0
    fields["confidence_penalty"] = config.data.noise in (
        *("asym", "asym_block", "flip"),
    )
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
        "scoring_mode": "train" if released else "eval",
        # int(B / 2 share) as released, or a multiple of 8 in [B/2, 2 B].
        "unlabelled_batch": "exact" if released else "rounded",
        "contrast_weight": 0.025,
        "contrast_temperature": 0.05,
        "projection_dim": 64 if small else 128,
        # Half a cosine from learning_rate down to this; epochs after it rise.
        "min_learning_rate": 2e-4,
        "cosine_epochs": 40.0 if small else 280.0,
    }
    return lib.finish(
        config,
        arg,
        boundaries=("unicon.warmup",),
        durations=("unicon.ramp", "unicon.cosine_epochs"),
    )
