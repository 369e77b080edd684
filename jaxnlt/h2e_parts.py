"""H2E's bookkeeping: when its phases are, its score files, its states."""

import csv
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import models, samplers, semi
from jaxnlt.errors import UserError
from jaxnlt.models.preact_resnet import PreActResNet

STEPS = ("base", "identify", "robust")
# Rows of a class that follow one another where base is resampled.
GROUP = 8


class Span(NamedTuple):
    """The epochs of one phase in one round.

    Attributes:
      step: of STEPS.
      round: from 1.
      first: its first epoch.
      end: the epoch after its last.
    """

    step: str
    round: int
    first: int
    end: int


def schedule(rounds: int, starts: Mapping, epochs: int) -> tuple[Span, ...]:
    """The phases of all rounds, in order.

    Args:
      rounds: 0 is base training alone.
      starts: `round1`, `round2` ..., each with the first epoch of `base` (not
        in round 1), `identify` and `robust`.
      epochs: of the whole run; the last phase lasts until then.

    Returns:
      Spans that follow one another without a gap.

    Raises:
      UserError: the starts of other rounds, or not in order.
    """
    wanted = {f"round{r}": set(STEPS) for r in range(1, rounds + 1)}
    if rounds > 0:
        wanted["round1"] = {"identify", "robust"}
    if wanted != {name: set(part) for name, part in starts.items()}:
        raise UserError(
            f"config.h2e.rounds: is {rounds}, but config.h2e.starts holds "
            "those of other rounds; rounds= after the benchmark sets both"
        )
    begun = [("base", 1, 0)]
    for number in range(1, rounds + 1):
        part = starts[f"round{number}"]
        if number > 1:
            begun.append(("base", number, part["base"]))
        begun.append(("identify", number, part["identify"]))
        begun.append(("robust", number, part["robust"]))
    for (_, _, before), (name, number, first) in itertools.pairwise(begun):
        if first <= before:
            raise UserError(
                f"config.h2e.starts.round{number}.{name}: must be after "
                f"{before}, the start of the phase before, is {first}"
            )
    last = begun[-1][-1]
    ends = [*(first for *_, first in begun[1:]), max(epochs, last + 1)]
    return tuple(
        Span(*fields, end) for fields, end in zip(begun, ends, strict=True)
    )


def read_scores(path: str, ids: np.ndarray) -> np.ndarray:
    """Clean probabilities of the training images, of a run's labels.csv.

    Args:
      path: the file.
      ids: [N] of the images, in the order wanted.

    Returns:
      float64[N] of at least 0.

    Raises:
      UserError: not such a file, or its images are not these.
    """
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from None
    key = "index" if np.asarray(ids).dtype.kind in "iu" else "path"
    for column in (key, "clean_probability"):
        if not rows or rows[0].get(column) is None:
            raise UserError(f"{path}: has no column {column}")
    scores: dict[str, float] = {}
    for row in rows:
        name, text = row[key], row["clean_probability"]
        if name in scores:
            raise UserError(f"{path}: {name} stands there twice")
        try:
            scores[name] = float(text)
        except (TypeError, ValueError):
            scores[name] = math.nan
        if not 0 <= scores[name] < math.inf:
            raise UserError(
                f"{path}: the clean_probability of {name} must be a number of "
                f"at least 0, is {text!r}"
            )
    wanted = [str(name) for name in ids]
    for name in wanted:
        if name not in scores:
            raise UserError(f"{path}: lacks the training image {name}")
    foreign = set(scores) - set(wanted)
    if foreign:
        raise UserError(
            f"{path}: {min(foreign)} is not an image of this training set"
        )
    return np.array([scores[name] for name in wanted])


def ramp_since(
    epoch: jax.Array, firsts: Sequence[int], start: float, length: float
) -> jax.Array:
    """Share of a term that grows anew in every round.

    Args:
      epoch: scalar, counted from the run's first.
      firsts: first epochs of the phase that has the term, the earliest of them
        not after `epoch`.
      start: epochs of the phase before the term.
      length: epochs of its linear rise; 0 is a jump.

    Returns:
      Scalar in [0, 1].
    """
    began = jnp.asarray(firsts, epoch.dtype)
    past = epoch - jnp.max(jnp.where(began <= epoch, began, began[0]))
    if length:
        return semi.ramp(past, start, length)
    return (past >= start).astype(epoch.dtype)


def last_block(model) -> tuple[str, str]:
    """Path of the last residual block, the part of the backbone robust trains.

    Args:
      model: config.model.

    Returns:
      First two parts of the path of its parameters.

    Source: papers/h2e.md section 5.
    """
    _, blocks = models.sizes(model)
    return "backbone", f"stage{len(blocks)}_block{blocks[-1]}"


def check_block(model) -> None:
    """Refuses a network without the block that robust would train.

    Raises:
      UserError: the network of config.model has no residual stages.
    """
    _, block = last_block(model)
    if not issubclass(models.BACKBONES[model.name][0], PreActResNet):
        raise UserError(
            f"config.h2e.freeze: {model.name} has no {block} to train alone; "
            "--config.h2e.freeze=False trains the whole network"
        )


def at_rest(state: dict) -> dict:
    """The training state without momentum."""
    still = jax.tree.map(jnp.zeros_like, state["opt_state"].trace)
    return state | {"opt_state": state["opt_state"]._replace(trace=still)}


def with_identifier(state: dict) -> dict:
    """The state whose identifier is the classifier, exponents 1, no momentum.

    Source: papers/h2e.md section 3.
    """
    params = state["params"]
    head = {
        # Copies, for a step gives every array away once.
        "linear": jax.tree.map(jnp.copy, params["logits"]),
        "exponents": jnp.ones_like(params["identifier"]["exponents"]),
    }
    return at_rest(state) | {"params": params | {"identifier": head}}


def class_aware(labels: np.ndarray, batch_size: int) -> Callable:
    """Stream of base training where it is resampled: C max n_c rows an epoch.

    Args:
      labels: int[N] classes of all samples.
      batch_size: rows a step.

    Returns:
      A function of the selection and a numpy Generator, as `Phase.streams`.

    Source: papers/h2e.md sections 2 and 10.
    """

    def rows_of(selection, rng):
        rows = selection.labelled
        counts = np.bincount(labels[rows])
        total = int(counts.max()) * np.count_nonzero(counts)
        steps = int(-(-total // batch_size))
        return {
            "x": samplers.class_aware(
                *(rows, labels, GROUP, steps, batch_size, rng)
            )
        }

    return rows_of
