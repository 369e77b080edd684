"""Batches and divisions as a training step receives them.

Golden files and hand-made cases are written as plain dicts; here they become
the types of ``jaxnlt.method``.
"""

from jaxnlt import method as base
from jaxnlt import step
from jaxnlt.losses import mixmatch
from jaxnlt.methods import dividemix, h2e, rolt, unicon

#: Names of further arrays -> the type that holds them.
PER_SAMPLE = {
    ("first", "second", "soft"): rolt.Guesses,
    ("scores",): h2e.Scores,
}
SHARED = {
    ("class_weights", "shares"): rolt.Shares,
    ("share",): unicon.Selected,
}


def stream(views=(), labels=None, weights=None, index=None, per_sample=()):
    """One stream of a batch."""
    return base.Stream(index, labels, weights, per_sample, tuple(views))


def batch(epoch=0, step=0, **streams):
    """Streams by name, at a time."""
    return base.Batch(streams, base.Time(epoch, step))


def division(counts=None, num_labelled=1, num_unlabelled=1, shared=()):
    """What a loss receives of a selection."""
    return base.Division(counts, num_labelled, num_unlabelled, shared)


def typed(kinds, values, known):
    """Values beside the known names, in the type that has their names."""
    rest = {name: v for name, v in values.items() if name not in known}
    return kinds[tuple(sorted(rest))](**rest) if rest else ()


def as_stream(values):
    if not isinstance(values, dict):
        return values
    known = ("views", "labels", "weights", "index")
    fields = {name: values[name] for name in known if name in values}
    return stream(**fields, per_sample=typed(PER_SAMPLE, values, known))


def as_batch(values):
    if not isinstance(values, dict):
        return values
    streams = {
        name: as_stream(value)
        for name, value in values.items()
        if name not in ("epoch", "step")
    }
    return batch(values.get("epoch", 0), values.get("step", 0), **streams)


def as_draws(values):
    if isinstance(values, dict):
        return mixmatch.MixupDraws(**values) if values else ()
    return values


def as_division(values):
    if not isinstance(values, dict):
        return values
    known = ("counts", "num_labelled", "num_unlabelled")
    fields = {name: values[name] for name in known if name in values}
    return division(**fields, shared=typed(SHARED, values, known))


def update(apply, phase, optimizer, state, peer, batch, draws, division, rate):
    """``step.update`` with momentum and weight decay of a dict."""
    return step.update(
        apply,
        phase,
        state,
        peer,
        as_batch(batch),
        as_draws(draws),
        as_division(division),
        rate,
        optimizer["momentum"],
        optimizer["weight_decay"],
    )


def loss(function, net, params, batch, draws, division, carry):
    """A loss, the carry after it and its terms."""
    found = function(
        net,
        params,
        as_batch(batch),
        as_draws(draws),
        as_division(division),
        carry,
    )
    return found.loss, found.carry, found.terms


def two_view_targets(net, params, x, u, temperature):
    """DivideMix's targets of both sides."""
    return dividemix.two_view_targets(
        net, params, as_stream(x), as_stream(u), temperature
    )


def mixed_batch(x_views, u_views, targets_x, targets_u, draws):
    """Mixed images and targets."""
    mixed = mixmatch.mixed_batch(
        x_views,
        u_views,
        mixmatch.Targets(targets_x, targets_u),
        as_draws(draws),
    )
    return mixed.images, mixed.targets
