"""A selector whose verdicts the networks' vote confirms, or adds to."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from jaxnlt import method as base
from jaxnlt.config.family import SemiOptions
from jaxnlt.method import (
    DataInfo,
    Outputs,
    PyTree,
    Selection,
    Selector,
)
from jaxnlt.selection import agreement


def selector_of(method: base.Method) -> Selector:
    """The selector of a method of the family, with what agrees to it.

    Args:
      method: its ``trust_by`` and ``trust_floor`` say what does.

    Returns:
      The method's selector itself where nothing does.
    """
    selector: Selector = method.selector()
    options: SemiOptions = method.options
    if options.trust_by == "selector" and not options.trust_floor:
        return selector
    return Agreement(selector, method.vote, options)


class Agreement(Selector):
    """A selector's verdicts, and what the vote of all networks says of them.

    Weights and clean probabilities stay the selector's.

    Args:
      selector: whose verdicts they are.
      vote: heads that vote.
      options: who has to agree, and the floor.
    """

    def __init__(
        self,
        selector: Selector,
        vote: tuple[str, ...],
        options: SemiOptions,
    ):
        super().__init__(selector.options, selector.heads)
        self.selector, self.vote, self.family = selector, vote, options
        self.outputs = selector.outputs
        if options.trust_by != "selector":
            self.outputs = tuple(dict.fromkeys((*selector.outputs, *vote)))

    def init_memory(self) -> PyTree:
        return self.selector.init_memory()

    def select(
        self,
        outputs: Sequence[Outputs],
        k: int,
        data: DataInfo,
        memory: PyTree,
        epoch: int,
        rng: np.random.Generator,
    ) -> tuple[Selection, PyTree]:
        found, memory = self.selector.select(
            outputs, k, data, memory, epoch, rng
        )
        trusted = np.zeros(len(data.labels), bool)
        trusted[found.labelled] = True
        if self.family.trust_by != "selector":
            logits = [out[head] for out in outputs for head in self.vote]
            agrees = agreement.mean_prediction(logits) == data.labels
            trusted = agreement.combined(trusted, agrees, self.family.trust_by)
        belief = found.clean_probability
        trusted = agreement.filled(
            trusted,
            found.weights if belief is None else belief,
            data.labels,
            data.num_classes,
            self.family.trust_floor,
        )
        labelled = np.flatnonzero(trusted)
        chosen = replace(
            found,
            labelled=labelled,
            unlabelled=np.flatnonzero(~trusted),
            counts=np.bincount(
                data.labels[labelled], minlength=data.num_classes
            ),
        )
        return chosen, memory
