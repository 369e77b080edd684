"""What the audit sees of a run: the vote after its epochs."""

from collections.abc import Container, Mapping, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from jaxnlt.auditing import statistics
from jaxnlt.data import streaming
from jaxnlt.data.records import HELD_OUT
from jaxnlt.infer import Batches, vote
from jaxnlt.method import Memory, Outputs, Phase, TrainState
from jaxnlt.models import average
from jaxnlt.trainer import Trainer

#: Outputs of every network, on the devices or fetched.
_B = TypeVar("_B")


def counted(
    trainer: Trainer, epoch: int, phase: Phase, known: Container[str]
) -> bool:
    """Whether the vote after an epoch counts in the audit.

    That of the second half does, before it wherever it costs nothing, and
    always of methods that infer the training set for nothing else.

    Args:
      trainer: of the run.
      epoch: just trained.
      phase: its phase; networks that are not evaluated do not vote.
      known: the sets that were inferred for others, see ``inferred``.
    """
    epochs = trainer.config.epochs
    late = epoch >= epochs // 2
    selecting = any(
        phase.selector and phase.selector.outputs
        for phase in trainer.method.phases()
    )
    wanted = late or not selecting or "train" in known
    return epoch + 1 == epochs or (phase.evaluated and wanted)


def inferred(
    trainer: Trainer,
    tests: Mapping[str, _B],
    pooled: Sequence[_B],
    following: Phase,
) -> dict[str, _B]:
    """What is known of ``dataset.audited`` as it was inferred for others.

    Args:
      trainer: of the run.
      tests: outputs of every network on test sets, by name.
      pooled: what ``infer_pools`` returned for the next epoch.
      following: the phase of the next epoch.
    """
    known = {}
    whole = following.pool is None and following.pool_view == "none"
    # Selectors see what votes unless it is an average that does not select.
    model = trainer.config.model
    same = not model.ema or average.teaches(model, "selection")
    if pooled and whole and same:
        known["train"] = pooled[0]
    if HELD_OUT in trainer.dataset.audited and "test" in tests:
        known[HELD_OUT] = tests["test"]
    return known


def infer_audited(
    trainer: Trainer,
    states: Sequence[TrainState],
    known: Container[str] = (),
) -> dict[str, list[Batches]]:
    """Device outputs of what votes, on each of ``dataset.audited``.

    Args:
      trainer: of the run.
      states: the networks.
      known: the sets that are left out.
    """
    infer = {"train": trainer.infer_train, HELD_OUT: trainer.infer_test}
    return {
        name: infer[name](states)
        for name in trainer.dataset.audited
        if name not in known
    }


def observe(
    trainer: Trainer,
    memory: Memory,
    outputs: Mapping[str, Sequence[Sequence[Outputs]]],
) -> Memory:
    """Adds the vote of an epoch to the statistics of the audit.

    Args:
      trainer: of the run.
      memory: host memory; not changed.
      outputs: fetched, of the sets that are audited.

    Returns:
      The new memory.
    """
    sums = dict(memory.audit)
    for name, batches in outputs.items():
        size = len(trainer.dataset.audited[name])
        votes = vote(trainer.method, batches, size, memory)
        sums[name] = statistics.added(sums[name], votes.scores)
    return replace(memory, audit=sums)


def readable(trainer: Trainer) -> dict[str, np.ndarray | None]:
    """Which images of ``dataset.audited`` ``infer_audited`` could read.

    To be called before ``streaming.count_bad`` forgets.

    Args:
      trainer: of the run.

    Returns:
      Of each set bool [N], or None where all could.
    """
    images = {"train": trainer.images, HELD_OUT: trainer.test_images["test"]}
    return {
        name: streaming.readable(images[name])
        for name in trainer.dataset.audited
    }
