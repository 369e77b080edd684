"""The semi-supervised half of DivideMix and its kin, piece by piece.

Co-guess, refine, sharpen, mixup, the two loss terms and the ramp are separate
pure functions, free in batch size and rank, with every random number an
argument.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxnlt.losses import classification

Array = jax.Array


def mean_probs(logits: Sequence[Array]) -> Array:
    """Mean softmax over several predictions of the same rows.

    Args:
      logits: sequence of [B, C].

    Returns:
      [B, C] probabilities, without gradient.

    Source: DivideMix eq. 5 (co-guessing).
    """
    probs = jnp.stack([jax.nn.softmax(z) for z in logits])
    return jax.lax.stop_gradient(probs.mean(0))


def refine(labels: Array, probs: Array, weights: Array) -> Array:
    r"""Label refinement :math:`w\,e_y + (1 - w)\,p`.

    Args:
      labels: [B] given integer labels.
      probs: [B, C] guessed probabilities.
      weights: [B] probability that the given label is right.

    Returns:
      [B, C] probabilities.

    Source: DivideMix eq. 3.
    """
    one_hot = jax.nn.one_hot(labels, probs.shape[-1], dtype=probs.dtype)
    weights = weights.astype(probs.dtype)[:, None]
    return weights * one_hot + (1 - weights) * probs


def sharpen(probs: Array, temperature: float) -> Array:
    r"""Sharpening :math:`p_c^{1/T} / \sum_k p_k^{1/T}`.

    Args:
      probs: [B, C] probabilities.
      temperature: T in (0, 1].

    Returns:
      [B, C] probabilities.

    Source: DivideMix eq. 4.
    """
    powered = probs ** (1 / temperature)
    return powered / powered.sum(-1, keepdims=True)


def mixup(values: Array, coefficient: Array, permutation: Array) -> Array:
    r"""Mixup :math:`l\,v + (1 - l)\,v_\pi` along the first axis.

    Args:
      values: [n, ...] images or targets.
      coefficient: scalar l.
      permutation: [n] partner of every row.

    Returns:
      [n, ...] in the dtype of `values`.

    Source: Zhang et al. 2018, eq. 1; one coefficient for the whole batch.
    """
    own = jnp.asarray(coefficient, values.dtype)
    return own * values + (1 - own) * values[permutation]


def mixup_draws(key: Array, alpha: float, rows: int, folded: bool = True):
    """Draws the coefficient and the partners of one mixup.

    Args:
      key: JAX key.
      alpha: parameter of the symmetric Beta distribution.
      rows: rows to be mixed.
      folded: whether the coefficient is max(l, 1 - l), so that a row stays
        nearer to itself than to its partner.

    Returns:
      Dict of `coefficient` (scalar) and `permutation` int[rows].
    """
    key_l, key_p = jax.random.split(key)
    coefficient = jax.random.beta(key_l, alpha, alpha)
    if folded:
        coefficient = jnp.maximum(coefficient, 1 - coefficient)
    permutation = jax.random.permutation(key_p, rows)
    return {"coefficient": coefficient, "permutation": permutation}


def ramp(epoch: Array, start: float, length: float) -> Array:
    """Linear ramp from 0 at epoch `start` to 1 at `start + length`.

    Args:
      epoch: scalar time in epochs, fractional within an epoch.
      start: epoch at which the ramp leaves 0.
      length: epochs until it reaches 1.

    Returns:
      Scalar in [0, 1].

    Source: DivideMix, linear_rampup.
    """
    return jnp.clip((epoch - start) / length, 0, 1)


def terms(logits: Array, targets: Array, num_labelled: int, prior=0.0):
    """The two loss terms of a mixed batch.

    Args:
      logits: [n, C], the labelled rows first.
      targets: [n, C] probabilities.
      num_labelled: how many rows come from the labelled side.
      prior: [C] log prior added to the logits, 0 for a plain head.

    Returns:
      Mean cross-entropy of the labelled rows and mean squared error, over
      rows and classes, of the others.

    Source: DivideMix eq. 9 and 10; SFA and DaSC add the prior.
    """
    logits = logits + prior
    labelled = classification.cross_entropy(
        logits[:num_labelled], targets[:num_labelled]
    )
    unlabelled = classification.brier(
        logits[num_labelled:], targets[num_labelled:]
    )
    return jnp.mean(labelled), jnp.mean(unlabelled)


def two_view_targets(net, params, x, u, temperature: float):
    """Sharpened targets of both sides, each from its first two views.

    Unlabelled rows are guessed by both networks on both views, labelled rows
    refined by the trained network alone.  Train-mode passes run in the order
    u1, u2, x1, x2.

    Args:
      net: `methods.base.Net`.
      params: of the trained network.
      x: `views`, `labels`, `weights` of the labelled batch.
      u: `views` of the unlabelled batch.
      temperature: of the sharpening.

    Returns:
      [Bx, C] and [Bu, C] probabilities, without gradient.

    Source: DivideMix eq. 3-5.
    """
    head = ("logits",)
    own_u = [net.guess(params, view, head)["logits"] for view in u["views"][:2]]
    own_x = [net.guess(params, view, head)["logits"] for view in x["views"][:2]]
    peer_u = [net.peer(view, head)["logits"] for view in u["views"][:2]]
    guessed = mean_probs(own_u + peer_u)
    refined = refine(x["labels"], mean_probs(own_x), x["weights"])
    return sharpen(refined, temperature), sharpen(guessed, temperature)


def mixed_batch(x_views, u_views, targets_x, targets_u, draws):
    """Mixes two views of both sides across the whole batch.

    Args:
      x_views: two [Bx, ...] labelled views.
      u_views: two [Bu, ...] unlabelled views.
      targets_x: [Bx, C].
      targets_u: [Bu, C].
      draws: `coefficient` and `permutation` of 2 Bx + 2 Bu rows.

    Returns:
      Mixed images and targets, rows in the order x1, x2, u1, u2.

    Source: DivideMix, algorithm 1, MixMatch.
    """
    images = jnp.concatenate([*x_views, *u_views])
    targets = jnp.concatenate([targets_x, targets_x, targets_u, targets_u])
    mix = (draws["coefficient"], draws["permutation"])
    return mixup(images, *mix), mixup(targets, *mix)


def ramp_time(batch, selection, batch_size: int):
    """Time in epochs as the ramp of DivideMix's kin counts it.

    An epoch has `num_labelled // batch_size + 1` parts, one too many where the
    batch size divides.

    Args:
      batch: `epoch` and `step`.
      selection: `num_labelled`.
      batch_size: labelled rows a step.

    Returns:
      Scalar.
    """
    parts = selection["num_labelled"] // batch_size + 1
    return batch["epoch"] + batch["step"] / parts
