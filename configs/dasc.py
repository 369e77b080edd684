"""DaSC (Baik et al., ECCV 2024, arXiv 2407.16802).

    python -m jaxnlt.main --config=configs/dasc.py
    python -m jaxnlt.main --config=configs/dasc.py:cifar10,noise=sym,rate=0.6

Published, CIFAR-10, imb 0.1: 89.04 % at sym 0.4, 87.12 % at sym 0.6; compare
with `as_released`.  Facts: papers/dasc.md of the project's notes; numbers
without a remark are those of the release's section 4 there.
"""

from jaxnlt.config import base as config_lib
from jaxnlt.config import family

# Fields of DivideMix's kin that DaSC, whose steps are its own, does not read.
NOT_OURS = (
    *("unlabelled_loss", "confidence_penalty", "peer"),
    *("warmup_samples", "pool_samples"),
)


def get_config(arg=None):
    """The configuration of one benchmark; see `:help` for the keys."""
    arg = config_lib.parse(arg)
    config = config_lib.base(arg)
    config.method = "dasc"
    small = config.benchmark == "digits"
    released = arg["as_released"]
    if not small:
        config.optimizer.weight_decay = 1e-4
    fields = family.semi_fields(small)
    fields |= family.semi_schedule(config, warmups=(30, 30))
    for name in NOT_OURS:
        del fields[name]
    # Three epochs at least, of which SBCL takes the last two.
    fields["warmup"] = max(3, fields["warmup"])
    config.dasc = fields | {
        # First epoch of SBCL, within the warm-up.
        "contrast_start": fields["warmup"] // 3,
        # DaCC.
        "phi": 1.005,
        "eval_temperature": 0.1,
        # 'project' clusters projections, 'default' pooled features.
        "feature_type": "project",
        # The release clusters projections even where nothing trained them: a
        # comparison stands where an assignment was meant (B3).
        "untrained_projector": released,
        # SBCL.
        "contrast": True,
        "contrast_weight": 0.5,
        "contrast_temperature": 0.1,
        "confidence_threshold": 0.9,
        "projection_dim": 64 if small else 128,
        # MIDL.
        "midl": True,
        "midl_weight": 0.3,
        "midl_temperature": 0.5,
        "memory_size": 256 if small else 1024,
        # InfoNCE wants label 0, the own key; the release numbers the rows (B2).
        "midl_label": "arange" if released else "zero",
        # The release reads another image's clean probability (B1).
        "aligned_clean_prob": not released,
        # Code: keys of the mixed batch; figure: of one image's two views (D1).
        "midl_key": "mixed_batch",
        # Code: all rows enter the memory; figure: 'low_confidence' ones (D2).
        "memory_rows": "all",
        # In the code, not among the paper's terms (D3).
        "prior_penalty": True,
        # In the code, not in the paper's text (D6).
        "memory_exchange": True,
        # /10 from this epoch on; off in the released command.
        "lr_decay": False,
        "lr_decay_epoch": 32.0 if small else 80.0,
    }
    return config_lib.finish(
        config,
        arg,
        boundaries=("dasc.contrast_start", "dasc.warmup"),
        durations=("dasc.ramp", "dasc.lr_decay_epoch"),
    )
