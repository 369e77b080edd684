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


def carry():
    rows = np.random.default_rng(9).normal(size=(MEMORY, toy.DIM))
    rows = toy.unit(jnp.asarray(rows, jnp.float32))
    return dasc.ContrastMemory(rows, jnp.int32(3))


def valid(carry):
    return np.asarray(carry.rows)[MEMORY - int(carry.fill) :]


def views(seed, count):
    rng = np.random.default_rng(seed)
    return tuple(
        jnp.asarray(rng.normal(size=(SIZE, toy.FEATURES)), jnp.float32)
        for _ in range(count)
    )


OWN, PEER = toy.variables(3), toy.variables(4)


def streams():
    labels = jnp.asarray([0, 2])
    x = typed.stream(views(1, 3), labels, jnp.asarray([0.9, 0.6]))
    return x, typed.stream(views(2, 3), labels)


def semi_loss(method, **changes):
    """Loss, carry, terms and passes of a step two epochs into the stage."""
    x, u = streams()
    batch = typed.batch(jnp.float32(17), jnp.float32(1), x=x, u=u)
    draws = MixupDraws(jnp.float32(0.7), jnp.asarray([5, 3, 0, 7, 1, 2, 4, 6]))
    given = {
        "counts": jnp.asarray([4.0, 2, 1]),
        "num_labelled": jnp.float32(7),
        "num_unlabelled": jnp.float32(5),
    }
    division = typed.division(**(given | changes))
    net = base.Net(toy.apply, [], PEER)
    found = method.semi_loss(
        net, OWN["params"], batch, draws, division, carry()
    )
    return found.loss, found.carry, found.terms, net.batch_stats


def stacked():
    """The eight rows x1, x2, u1, u2 and their targets."""
    x, u = streams()
    net = base.Net(toy.apply, [], PEER)
    targets = make().targets(net, OWN["params"], x, u)
    images = jnp.concatenate([*x.views[:2], *u.views[:2]])
    return images, jnp.concatenate([targets[0]] * 2 + [targets[1]] * 2)


def project(images):
    return toy.apply(OWN, images, ("projection",), False)[0]["projection"]
