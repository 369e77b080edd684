"""A last phase of the family: balanced training on the trusted labels.

Kang et al., "Decoupling Representation and Classifier for Long-Tailed
Recognition", ICLR 2020, re-train the classifier on classes drawn evenly; here
on the labels that the method's selector trusts, on top of the networks that the
semi-supervised epochs leave.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from jaxnlt import method as base
from jaxnlt.config.family import SemiOptions
from jaxnlt.data import sampling
from jaxnlt.method import (
    Batch,
    Division,
    LossResult,
    Net,
    Phase,
    PyTree,
    Selection,
    no_draws,
)
from jaxnlt.runtime.errors import UserError

NAME = "retrain"
#: Top-level names of the parameters that all heads share.
BODY = ("backbone", "bottleneck")


def phases(method: base.Method, semi: Phase) -> tuple[Phase, ...]:
    """The last phase, if ``retrain_epochs`` asks for one.

    Args:
      method: of the family.
      semi: its semi-supervised phase, whose selector decides here too.

    Returns:
      The phase alone, or nothing.
    """
    options: SemiOptions = method.options
    if not options.retrain_epochs:
        return ()
    heads, whole = method.vote, options.retrain_part == "all"
    trained = (*heads, *BODY) if whole else heads

    def balanced(
        selection: Selection, rng: np.random.Generator
    ) -> dict[str, np.ndarray]:
        rows = sampling.resampled(
            selection.labelled,
            method.data.labels,
            sampling.EXPONENTS["class_balanced"],
            method.config.batch_size,
            rng,
        )
        return {"x": rows}

    found = replace(
        semi,
        name=NAME,
        remembers=semi.name,
        loss=partial(heads_loss, heads, whole),
        streams=balanced,
        views={"x": ("weak",)},
        draws=no_draws,
        peer="none",
        rate=options.retrain_rate,
        # Heads that do not vote have no gradient and are left alone.
        trainable=lambda path: path[0] in trained,
    )
    return (found,)


def begun(method: base.Method, epoch: int) -> bool:
    """Whether an epoch is of the last phase.

    Args:
      method: of the family.
      epoch: from 0.
    """
    last = method.options.retrain_epochs
    return bool(last) and epoch >= method.config.epochs - last


def check(method: base.Method) -> None:
    """Refuses a last phase that leaves no semi-supervised epoch.

    Raises:
      UserError: naming the field.
    """
    options, epochs = method.options, method.config.epochs
    if options.retrain_epochs and begun(method, options.warmup):
        raise UserError(
            f"config.{method.group}.retrain_epochs: must be below "
            f"{epochs - options.warmup}, the number of epochs after the "
            f"warm-up, is {options.retrain_epochs}"
        )


def heads_loss(
    heads: tuple[str, ...],
    whole: bool,
    net: Net,
    params: PyTree,
    batch: Batch,
    draws: Any,
    division: Division,
    carry: PyTree,
) -> LossResult:
    r"""Cross-entropy of the given labels, summed over the heads.

    .. math:: \sum_h \frac{1}{B} \sum_i -\log \mathrm{softmax}(z_h)_{i y_i}

    Classes are drawn evenly, so that a balanced head has no prior to add.

    Args:
      heads: that are trained.
      whole: whether the backbone is too; else its statistics stay as they are.
      net: see ``method.Loss``, as all that follow.
      params: of the network.
      batch: its stream ``x`` has one view.
      draws: not used.
      division: not used.
      carry: handed on.

    Source: Kang et al. 2020, section 4.2 (cRT).
    """
    (images,) = batch.x.views
    run = net if whole else net.frozen
    out = run(params, images, heads)
    terms: dict[str, jax.Array] = {
        f"loss_{head}": jnp.mean(
            losses.cross_entropy(out[head], batch.x.labels)
        )
        for head in heads
    }
    total = sum(terms.values(), jnp.zeros(()))
    return LossResult(total, terms, carry)
