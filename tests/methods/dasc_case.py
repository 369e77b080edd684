"""A DaSC method on a network of matrices, and one step's arguments."""

import jax.numpy as jnp
import numpy as np

from configs import dasc as dasc_config
from jaxnlt import method as base
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import dasc
from tests import typed
from tests.methods import toy

LABELS = np.array([0, 0, 0, 1, 1, 2])
SIZE = 2  # rows of each stream
MEMORY = 6


def make(**options):
    config = dasc_config.get_config()
    config.batch_size = SIZE
    config.dasc.update(
        {
            "memory_size": MEMORY,
            "projection_dim": toy.DIM,
            "confidence_threshold": 0.8,
            **options,
        }
    )
    return dasc.Method(config, base.DataInfo(LABELS, toy.CLASSES))


def carry(fill=3):
    rows = np.random.default_rng(9).normal(size=(MEMORY, toy.DIM))
    return dasc.ContrastMemory(
        toy.unit(jnp.asarray(rows, jnp.float32)), jnp.int32(fill)
    )


def valid(carry):
    return np.asarray(carry.rows)[MEMORY - int(carry.fill) :]


def views(seed, count):
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.normal(size=(SIZE, toy.FEATURES)), jnp.float32)
        for _ in range(count)
    )


def semi_case(**changes):
    """Arguments of semi_loss behind net and params; nine epochs in."""
    labels = jnp.asarray([0, 2])
    batch = typed.batch(
        epoch=jnp.float32(17),
        step=jnp.float32(1),
        x=typed.stream(views(1, 3), labels, jnp.asarray([0.9, 0.6])),
        u=typed.stream(views(2, 3), labels),
    )
    draws = MixupDraws(jnp.float32(0.7), jnp.asarray([5, 3, 0, 7, 1, 2, 4, 6]))
    given = {
        "counts": jnp.asarray([4.0, 2, 1]),
        "num_labelled": jnp.float32(7),
        "num_unlabelled": jnp.float32(5),
    }
    return {
        "batch": batch,
        "draws": draws,
        "division": typed.division(**(given | changes)),
        "carry": carry(),
    }


OWN, PEER = toy.variables(3), toy.variables(4)


def semi_loss(method, **changes):
    net = base.Net(toy.apply, [], PEER)
    case = semi_case(**changes)
    found = method.semi_loss(net, OWN["params"], **case)
    return found.loss, found.carry, found.terms, net.batch_stats


def stacked():
    """The eight rows x1, x2, u1, u2 and their targets."""
    batch = semi_case()["batch"]
    x, u = batch.x, batch.u
    net = base.Net(toy.apply, [], PEER)
    targets = make().targets(net, OWN["params"], x, u)
    images = jnp.concatenate([*x.views[:2], *u.views[:2]])
    return images, jnp.concatenate([targets[0]] * 2 + [targets[1]] * 2)


def project(images):
    return toy.apply(OWN, images, ("projection",), False)[0]["projection"]
