"""The compiled programs: one training step a phase, and inference."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from jaxnlt import models
from jaxnlt.augment import table
from jaxnlt.method import Net, Phase
from jaxnlt.runtime import sharding

PyTree = Any


def trainable_mask(params: PyTree, trainable: Callable) -> PyTree:
    """Tree of Python bools, true where a parameter is trained."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: trainable(tuple(key.key for key in path)), params
    )


def update(
    apply: Callable,
    phase: Phase,
    optimizer: Mapping[str, float],
    state: dict,
    peer: PyTree,
    batch: Mapping,
    draws: Mapping,
    selection: Mapping,
    learning_rate,
) -> tuple[dict, dict]:
    r"""One step of SGD with PyTorch's semantics on a phase's loss.

    .. math:: g \leftarrow \nabla L + \lambda p,\quad
       v \leftarrow \mu v + g,\quad p \leftarrow p - \eta v

    Parameters that the phase does not train keep value and momentum.

    Args:
      apply: (variables, images, heads, train) -> (outputs, batch_stats).
      phase: its loss, trainable parameters and weight decay.
      optimizer: `momentum` and `weight_decay`.
      state: training state as `init_state` makes it.
      peer: the other network's variables, or None.
      batch: views, labels and weights of every stream.
      draws: every random number of the loss.
      selection: class counts and what else the selector hands on.
      learning_rate: scalar step size.

    Returns:
      The new state and the loss with its terms, all scalars.

    Source: papers/smr.md section 6.
    """
    params = state["params"]

    def objective(params):
        net = Net(apply, state["batch_stats"], peer)
        loss, carry, terms = phase.loss(
            net, params, batch, draws, selection, state["carry"]
        )
        return loss, (net.batch_stats, carry, terms)

    (loss, (batch_stats, carry, terms)), grads = jax.value_and_grad(
        objective, has_aux=True
    )(params)
    weight_decay = phase.weight_decay
    if weight_decay is None:
        weight_decay = optimizer["weight_decay"]
    decay = optax.add_decayed_weights(weight_decay)
    grads, _ = decay.update(grads, decay.init(params), params)
    trace = optax.trace(decay=optimizer["momentum"])
    updates, opt_state = trace.update(grads, state["opt_state"], params)

    mask = trainable_mask(params, phase.trainable)
    moved = jax.tree.map(
        lambda p, u: p - jnp.asarray(learning_rate, p.dtype) * u,
        params,
        updates,
    )
    keep = partial(jax.tree.map, lambda on, new, old: new if on else old, mask)
    new_state = {
        "params": keep(moved, params),
        "batch_stats": batch_stats,
        "opt_state": optax.TraceState(
            trace=keep(opt_state.trace, state["opt_state"].trace)
        ),
        "carry": carry,
    }
    return new_state, {"loss": loss, **terms}


def make_step(network, phase: Phase, config, dataset, mesh: Mesh) -> Callable:
    """Compiles a phase's training step.

    Args:
      network: the model.
      phase: what to train.
      config: the whole configuration.
      dataset: mean and standard deviation of its images.
      mesh: devices.

    Returns:
      (state, peer, images, rows, selection, moment, key) -> (state, terms).
      The state is donated.  `rows[stream]` holds `index`, `labels`, `weights`
      of one batch, `moment` the scalars `epoch`, `step`, `learning_rate`.
      Where `images` is None they are streamed: `rows[stream]["pixels"]` holds
      uint8 [B, H, W, C] for every view.
    """
    everywhere, rowwise = sharding.replicated(mesh), sharding.batched(mesh)
    optimizer = config.optimizer.to_dict()
    dtype = models.DTYPES[config.model.dtype][1]
    names = config.augment.to_dict()

    def step(state, peer, images, rows, selection, moment, key):
        key = jax.random.fold_in(key, moment["step"])
        batch: dict[str, Any] = {
            "epoch": moment["epoch"].astype(dtype),
            "step": moment["step"].astype(dtype),
        }
        for s, stream in enumerate(sorted(phase.views)):
            given = dict(rows[stream])
            streamed = given.pop("pixels", None)
            count = len(phase.views[stream])
            raw = streamed or (images[given["index"]],) * count
            keys = jax.random.split(jax.random.fold_in(key, s + 1), count)
            views = tuple(
                jax.lax.with_sharding_constraint(
                    table.prepare(pixels, k, view, dataset, dtype, names),
                    rowwise,
                )
                for pixels, k, view in zip(
                    *(raw, keys, phase.views[stream]), strict=True
                )
            )
            batch[stream] = {**given, "views": views}
        sizes = {name: len(batch[name]["labels"]) for name in phase.views}
        draws = phase.draws(jax.random.fold_in(key, 0), sizes)
        return update(
            network.seeded(jax.random.fold_in(key, len(phase.views) + 1)),
            phase,
            optimizer,
            state,
            peer,
            batch,
            draws,
            selection,
            moment["learning_rate"],
        )

    in_shardings = (
        *(everywhere, everywhere, None),  # images may be divided, or not
        rowwise,
        *(everywhere, everywhere, everywhere),
    )
    return jax.jit(
        step,
        in_shardings=in_shardings,
        out_shardings=everywhere,
        donate_argnums=0,
    )
