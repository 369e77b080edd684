"""The compiled programs: one training step a phase, and inference."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh

from jaxnlt import augment, models, sharding, streaming
from jaxnlt.methods.base import Net, Phase

PyTree = Any


def init_state(initial: PyTree, carry: PyTree) -> dict:
    """Training state of one network; its tree never changes shape.

    Args:
      initial: `params` and `batch_stats`.
      carry: the method's device arrays.

    Returns:
      Dict of `params`, `batch_stats`, `opt_state` (momentum) and `carry`.
    """
    momentum = jax.tree.map(np.zeros_like, initial["params"])
    return {
        "params": initial["params"],
        "batch_stats": initial["batch_stats"],
        "opt_state": optax.TraceState(trace=momentum),
        "carry": carry,
    }


def variables(state: Mapping) -> dict:
    """The part of a training state that `Network.apply` takes."""
    return {name: state[name] for name in ("params", "batch_stats")}


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


def prepare(images, key, view: str, dataset, dtype, augmentations):
    """One augmented, standardised view of a batch of uint8 images.

    Args:
      images: uint8 [B, H, W, C].
      key: JAX key.
      view: 'weak', 'strong' or 'none'.
      dataset: `mean` and `std` in units of [0, 1].
      dtype: of the result.
      augmentations: names in augment.AUGMENTATIONS of the views.

    Returns:
      [B, H, W, C].
    """
    if view != "none":
        images = augment.AUGMENTATIONS[augmentations[view]](key, images)
    return augment.normalise(images, dataset.mean, dataset.std, dtype)


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
                    prepare(pixels, k, view, dataset, dtype, names), rowwise
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


class Inference:
    """Outputs of a network on any rows, in batches of one shape.

    Gathering is a program of its own, so that training and test images, of
    different number, share the compiled network.

    Args:
      network: the model.
      heads: what to compute.
      config: `eval_batch_size`, the model's dtype, names of augmentations.
      dataset: mean and standard deviation of its images.
      mesh: devices.
    """

    def __init__(self, network, heads, config, dataset, mesh: Mesh):
        self._mesh, devices = mesh, mesh.devices.size
        self.batch_size = -(-config.eval_batch_size // devices) * devices
        everywhere, rowwise = sharding.replicated(mesh), sharding.batched(mesh)
        dtype = models.DTYPES[config.model.dtype][1]

        def infer(parameters, images):
            images = augment.normalise(images, dataset.mean, dataset.std, dtype)
            return network.apply(parameters, images, heads, False)[0]

        def infer_view(parameters, images, key, view, train):
            names = config.augment.to_dict()
            images = prepare(images, key, view, dataset, dtype, names)
            apply = network.seeded(jax.random.fold_in(key, 1))
            return apply(parameters, images, heads, train)

        self._take = jax.jit(
            lambda images, index: images[index],
            in_shardings=(None, rowwise),
            out_shardings=rowwise,
        )
        self._infer = jax.jit(
            infer,
            in_shardings=(everywhere, rowwise),
            out_shardings=rowwise,
        )
        self._infer_view = jax.jit(
            infer_view,
            static_argnums=(3, 4),
            in_shardings=(everywhere, rowwise, everywhere),
            out_shardings=(rowwise, everywhere),
        )

    def _batches(self, images, rows: np.ndarray, view="none", key=None):
        """Images of every batch; the first rows fill the last one up."""
        batches = -(-len(rows) // self.batch_size)
        padded = np.resize(rows, (batches, self.batch_size)).astype(np.int32)
        if isinstance(images, streaming.Streamed):
            # The key's numbers seed the crops as well.
            seeds = () if key is None else jax.random.key_data(key).tolist()
            return images.infer(padded, view, seeds)
        return (
            self._take(images, sharding.rows(index, self._mesh))
            for index in padded
        )

    def __call__(self, state: Mapping, images, rows: np.ndarray) -> list:
        """Eval-mode outputs on the device, a dict a batch, for `collect`.

        Args:
          state: the network's `params` and `batch_stats`.
          images: what `streaming.hold` returned of N images.
          rows: int[n] which of them.

        Returns:
          List of dicts of [batch_size, ...] arrays.
        """
        return self.every([state], images, rows)[0]

    def every(
        self, states: Sequence[Mapping], images, rows: np.ndarray
    ) -> list[list]:
        """What a call returns, for each of several networks.

        Images that lie on disk are read once for all of them.

        Args:
          states: `params` and `batch_stats` of every network.
          images: as a call takes them.
          rows: int[n] which of them.

        Returns:
          A list of outputs for every network.
        """
        outputs: list[list] = [[] for _ in states]
        if not states:
            return outputs
        throttle = streaming.Throttle(images)
        for batch in self._batches(images, rows):
            for state, own in zip(states, outputs, strict=True):
                own.append(self._infer(variables(state), batch))
            throttle(outputs[-1][-1])
        return outputs

    def as_trained(
        self,
        state: Mapping,
        images,
        rows: np.ndarray,
        key: jax.Array,
        view: str,
        train: bool,
    ) -> tuple[list, Mapping]:
        """Outputs on a view of the images, in eval or in train mode.

        Args:
          state: the network's training state.
          images: what `streaming.hold` returned of N images.
          rows: int[n] which of them, in the order in which they are batched.
          key: JAX key of the view; every batch folds its number in.
          view: 'weak', 'strong' or 'none'.
          train: whether every batch is normalised by its own statistics, which
            move the running ones.

        Returns:
          Outputs as a plain call returns them, and the state after them.
        """
        outputs, throttle = [], streaming.Throttle(images)
        for i, batch in enumerate(self._batches(images, rows, view, key)):
            out, batch_stats = self._infer_view(
                *(variables(state), batch, jax.random.fold_in(key, i)),
                *(view, train),
            )
            outputs.append(throttle(out))
            if train:
                state = {**state, "batch_stats": batch_stats}
        return outputs, state


def collect(batches: list, size: int) -> dict[str, np.ndarray]:
    """Joins fetched outputs of `Inference` and drops the padding.

    Args:
      batches: list of dicts of NumPy arrays.
      size: how many rows were asked for.

    Returns:
      Dict of [size, ...] arrays.
    """
    return {
        name: np.concatenate([batch[name] for batch in batches])[:size]
        for name in batches[0]
    }
