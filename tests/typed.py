"""Batches and divisions as a training step receives them, with defaults."""

from jaxnlt import method as base
from jaxnlt import step


def stream(views=(), labels=None, weights=None, index=None, per_sample=()):
    """One stream of a batch."""
    return base.Stream(index, labels, weights, per_sample, tuple(views))


def batch(epoch=0, step=0, **streams):
    """Streams by name, at a time."""
    return base.Batch(streams, base.Time(epoch, step))


def division(counts=None, num_labelled=1, num_unlabelled=1, shared=()):
    """What a loss receives of a selection."""
    return base.Division(counts, num_labelled, num_unlabelled, shared)


def update(apply, phase, optimizer, state, peer, batch, draws, division, rate):
    """``step.update`` with momentum and weight decay of a dict."""
    return step.update(
        apply,
        phase,
        state,
        peer,
        batch,
        draws,
        division,
        rate,
        optimizer["momentum"],
        optimizer["weight_decay"],
    )
