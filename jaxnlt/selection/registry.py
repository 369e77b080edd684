"""Selectors by name: any two-network method can take another method's.

`--config.selector=sfa` under configs/dasc.py trains as DaSC does on samples
that SFA selects; the fields that SFA's selector reads then stand in
`config.sfa`, with the values that configs/sfa.py gives them on the same
benchmark.
"""

import importlib
from typing import Any, NamedTuple

from jaxnlt.runtime.errors import UserError, one_of


class Entry(NamedTuple):
    """Where a selector is defined and what it reads.

    Attributes:
      method: file in methods/ that it comes from.
      name: its class there.
      fields: what it reads of the options.
      config: file in configs/ that sets them, and its key to do so.
    """

    method: str
    name: str
    fields: tuple[str, ...]
    config: tuple[str, ...]


GMM = ("gmm_max_iter", "gmm_tol", "gmm_reg_covar")
SELECTORS = {
    "dividemix": Entry(
        "dividemix",
        "LossGMM",
        ("p_threshold", "average_losses", *GMM),
        ("dividemix",),
    ),
    "sfa": Entry(
        "sfa",
        "StochasticCentroids",
        (
            *("p_threshold", "phi", "base_confidence", "beta"),
            *("persist_moments", "sampled_classes", "draws"),
        ),
        ("sfa",),
    ),
    "rolt_plus": Entry(
        "rolt_plus",
        "CoDivide",
        ("p_threshold", "basis", "per_class", *GMM),
        ("rolt", "plus"),
    ),
    "tabasco": Entry(
        "tabasco",
        "TwoScores",
        (
            *("p_threshold", "confusable_cluster", "centre", "mean_batch"),
            *("spread_ratio", *GMM),
        ),
        ("tabasco",),
    ),
    "unicon": Entry(
        "unicon",
        "UniformSelection",
        ("jsd_log", "disagreement_limit", "cutoff_tau", "unfilled"),
        ("unicon",),
    ),
    "dacc": Entry(
        "dasc",
        "DaCC",
        (
            *("p_threshold", "phi", "eval_temperature", "feature_type"),
            *("contrast", "untrained_projector", "aligned_clean_prob"),
        ),
        ("dasc",),
    ),
}


def create(name: str, options: Any, heads: tuple[str, ...]):
    """Builds a selector for networks with certain heads.

    Args:
      name: of SELECTORS.
      options: holds the fields of its entry.
      heads: heads of the networks, 'features' aside, which all have.

    Returns:
      A methods.base.Selector.

    Raises:
      UserError: an unknown name, or the networks lack a head that it reads.
    """
    one_of("config.selector", name, SELECTORS)
    entry = SELECTORS[name]
    module = importlib.import_module(f"jaxnlt.methods.{entry.method}")
    selector = getattr(module, entry.name)(options, heads)
    lacking = set(selector.outputs) - {"features", *heads}
    if lacking:
        raise UserError(
            f"config.selector: {name} reads {', '.join(sorted(lacking))}, "
            f"which these networks lack; they have {', '.join(heads)}"
        )
    return selector
