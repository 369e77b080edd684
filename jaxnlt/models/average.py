"""The average of a network's weights over the epochs of a training."""

from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

PyTree = Any


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Average:
    """The running average of a network.

    Attributes:
      params: averaged parameters.
      batch_stats: averaged statistics of the normalisation layers.
      epochs: int32 scalar, averaged so far; of 0 the arrays count nothing.
    """

    params: PyTree
    batch_stats: PyTree
    epochs: Any

    @property
    def variables(self) -> dict[str, PyTree]:
        """What ``Network.apply`` takes."""
        return {"params": self.params, "batch_stats": self.batch_stats}


#: What averaged networks can do for those that are trained.
Task = Literal["guesses", "selection"]


def teaches(model: ml_collections.ConfigDict, task: Task) -> bool:
    """Whether the averaged networks do a task, by ``config.model``."""
    return model.ema_teaches in (task, "both")


def empty(variables: PyTree) -> Average:
    """The average of no epoch.

    Args:
      variables: ``params`` and ``batch_stats`` of a network, host arrays.
    """
    zeros = jax.tree.map(lambda a: np.zeros(a.shape, a.dtype), variables)
    return Average(zeros["params"], zeros["batch_stats"], np.int32(0))


def teacher(average: Average, variables: PyTree) -> PyTree:
    """The averaged network; the network itself before its first epoch.

    Args:
      average: of n epochs.
      variables: the network's ``params`` and ``batch_stats``.

    Returns:
      A tree as ``variables``.

    Source: Tarvainen and Valpola 2017, section 2 (mean teacher), there of
    steps, here of epochs.
    """
    made = average.epochs > 0
    return jax.tree.map(
        lambda mean, own: jnp.where(made, mean, own),
        average.variables,
        variables,
    )


def moved(average: Average, variables: PyTree, decay: float) -> Average:
    r"""The average after one more epoch.

    .. math:: d_n = \min(d, \tfrac{n}{n + 1}),\quad
       a \leftarrow d_n a + (1 - d_n)\,w

    which is the plain mean of the first epochs, so that the weights of the
    start count no more than any other, until n is :math:`d / (1 - d)`.

    Args:
      average: a, of n epochs.
      variables: w, the network's ``params`` and ``batch_stats``.
      decay: d.

    Source: Polyak and Juditsky 1992; Tarvainen and Valpola 2017, section 2.
    """
    n = average.epochs

    def mean(old: jax.Array, new: jax.Array) -> jax.Array:
        count = n.astype(new.dtype)
        keep = jnp.minimum(jnp.asarray(decay, new.dtype), count / (count + 1))
        return keep * old + (1 - keep) * new

    made = jax.tree.map(mean, average.variables, variables)
    return Average(made["params"], made["batch_stats"], n + 1)
