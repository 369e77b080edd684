"""The compiled training step of a phase."""

import functools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import ml_collections
import optax
from jax.sharding import Mesh

from jaxnlt import models
from jaxnlt.augment import table
from jaxnlt.data.streaming import InMemory
from jaxnlt.method import (
    Apply,
    Batch,
    Division,
    Net,
    Phase,
    PyTree,
    Stream,
    Time,
    Trainable,
    TrainState,
    sgd,
)
from jaxnlt.models import average
from jaxnlt.runtime import cpu, sharding

#: (state, peer, images, statistics, streams, division, time, learning_rate,
#: key) -> (state, terms); the state is donated.
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]


def trainable_mask(params: PyTree, trainable: Trainable) -> PyTree:
    """Tree of Python bools, true where a parameter is trained."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: trainable(tuple(key.key for key in path)), params
    )


def update(
    apply: Apply,
    phase: Phase,
    state: TrainState,
    peer: PyTree,
    batch: Batch,
    draws: Any,
    division: Division,
    learning_rate: jax.Array | float,
    momentum: float,
    weight_decay: float,
    teacher: PyTree = None,
) -> tuple[TrainState, dict[str, jax.Array]]:
    """One step of gradient descent on a phase's loss; see ``method.sgd``.

    Parameters that the phase does not train keep value and momentum.

    Args:
      apply: function of the network.
      phase: its loss, trainable parameters and weight decay.
      state: training state.
      peer: the other network's variables, or None.
      batch: images and labels of every stream.
      draws: every random number of the loss.
      division: what the loss receives of the selection.
      learning_rate: scalar step size.
      momentum: of the gradients.
      weight_decay: where the phase does not set its own.
      teacher: variables that guess for the network, or None.

    Returns:
      The new state, and the loss with its terms, all scalars.
    """

    def objective(params: PyTree) -> tuple[jax.Array, tuple[PyTree, Any]]:
        net = Net(apply, state.batch_stats, peer, teacher)
        result = phase.loss(net, params, batch, draws, division, state.carry)
        return result.loss, (net.batch_stats, result)

    (loss, (batch_stats, result)), grads = jax.value_and_grad(
        objective, has_aux=True
    )(state.params)
    if phase.weight_decay is not None:
        weight_decay = phase.weight_decay
    optimizer = sgd(learning_rate, momentum, weight_decay)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    moved = replace(
        state,
        params=optax.apply_updates(state.params, updates),
        batch_stats=batch_stats,
        opt_state=opt_state,
        carry=result.carry,
    )
    mask = trainable_mask(state.params, phase.trainable)
    keep = functools.partial(
        jax.tree.map, lambda on, new, old: new if on else old, mask
    )
    kept = replace(moved, params=keep(moved.params, state.params))
    kept = kept.with_momentum(keep(moved.momentum, state.momentum))
    return kept, {"loss": loss, **result.terms}


def make_step(
    network: models.Network,
    phase: Phase,
    config: ml_collections.ConfigDict,
    mesh: Mesh,
) -> Step:
    """Compiles a phase's training step.

    Args:
      network: the model.
      phase: what to train.
      config: the whole configuration.
      mesh: devices.

    Returns:
      ``(state, peer, images, statistics, streams, division, time,
      learning_rate, key) -> (state, terms)``.  The state is donated.
      ``streams`` are ``Stream``s before augmentation; ``images`` is the
      training set in memory from which they are gathered, None where they were
      read from disk; ``statistics`` standardise them.
    """
    everywhere, rowwise = sharding.replicated(mesh), sharding.batched(mesh)
    optimizer = config.optimizer
    dtype = models.DTYPES[config.model.dtype][1]
    names = config.augment.to_dict()

    def augmented(
        stream: Stream,
        images: InMemory,
        statistics: table.StatisticsArrays,
        views: tuple[str, ...],
        key: Any,
    ) -> Stream:
        raw = stream.views or (images.take(stream.index),) * len(views)
        keys = jax.random.split(key, len(views))
        made = tuple(
            jax.lax.with_sharding_constraint(
                table.prepare(pixels, own, view, statistics, dtype, names),
                rowwise,
            )
            for pixels, own, view in zip(raw, keys, views, strict=True)
        )
        return replace(stream, views=made)

    def step(
        state: TrainState,
        peer: PyTree,
        images: InMemory,
        statistics: table.StatisticsArrays,
        streams: dict[str, Stream],
        division: Division,
        time: Time,
        learning_rate: jax.Array,
        key: jax.Array,
    ) -> tuple[TrainState, dict[str, jax.Array]]:
        key = jax.random.fold_in(key, time.step)
        now = Time(time.epoch.astype(dtype), time.step.astype(dtype))
        made = {
            name: augmented(
                streams[name],
                images,
                statistics,
                phase.views[name],
                jax.random.fold_in(key, s + 1),
            )
            for s, name in enumerate(sorted(phase.views))
        }
        sizes = {name: len(stream.labels) for name, stream in made.items()}
        draws = phase.draws(jax.random.fold_in(key, 0), sizes)
        teacher = None
        if average.teaches(config.model, "guesses"):
            teacher = average.teacher(state.average, state.variables)
        return update(
            network.seeded(jax.random.fold_in(key, len(phase.views) + 1)),
            phase,
            state,
            peer,
            Batch(made, now),
            draws,
            division,
            learning_rate,
            optimizer.momentum,
            optimizer.weight_decay,
            teacher,
        )

    # The training set may be replicated or divided.
    in_shardings = (
        everywhere,
        everywhere,
        None,
        everywhere,
        rowwise,
        everywhere,
        everywhere,
        everywhere,
        everywhere,
    )
    return jax.jit(
        step,
        in_shardings=in_shardings,
        out_shardings=everywhere,
        donate_argnums=0,
        compiler_options=cpu.options(),
    )
