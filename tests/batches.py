"""What a loss receives, without a data set."""

import jax.numpy as jnp

from jaxnlt import method as base


def stream(views, labels=(), weights=(), per_sample=()):
    """A stream of given views; labels and weights where the loss reads them."""
    return base.Stream(
        index=jnp.arange(len(labels)),
        labels=jnp.asarray(labels),
        weights=jnp.asarray(weights),
        per_sample=per_sample,
        views=tuple(views),
    )


def batch(x, u=None, epoch=0, step=0):
    streams = {"x": x} if u is None else {"x": x, "u": u}
    return base.Batch(streams, base.Time(epoch, step))


def division(counts=(), labelled=1.0, unlabelled=1.0, shared=()):
    return base.Division(jnp.asarray(counts), labelled, unlabelled, shared)
