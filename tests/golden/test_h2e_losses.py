"""H2E's comparison losses, values and gradients, against the authors' code.

Defaults are rtol 1e-5 and atol 1e-6, for gradients 1e-5 of the largest entry;
the files of the counts allow 5e-5, saturated logits and determinants more.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from tests.golden.cases import golden
from tests.golden.precision import precision


def close(actual, expected, rtol=1e-5, atol=1e-6):
    actual = np.asarray(actual, np.float64)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def close_gradient(actual, expected, share=1e-5):
    largest = float(np.abs(expected).max(initial=0))
    close(actual, expected, rtol=0, atol=share * largest)


def parameters(case):
    return {k: float(v) for k, v in case.group("hp_").items()}


# --- losses of one network --------------------------------------------------


def by_name(name, scale=False):
    """A loss of ``active_passive`` with the authors' parameters."""

    def loss(z, y, hp):
        # The release ignores alpha beside GCE, and both in GCE+NCE.
        alpha = 1.0 if name.startswith("gce") else hp["alpha"]
        beta = 1.0 if name == "gce_nce" else hp["beta"]
        values = losses.active_passive(
            name, z, y, (alpha, beta), hp["q"], hp["gamma"]
        )
        return hp["scale"] * values if scale else values

    return loss


def detached_focal(z, y, hp):
    return losses.focal(z, y, hp["gamma"], detached=True)


#: Loss in the file -> what is called; all but DMI give one value a row.
LOSSES = {
    "CE": by_name("ce"),
    "SCELoss": by_name("ce_rce"),
    "ReverseCrossEntropy": by_name("rce", scale=True),
    # The release multiplies by (C - 1) / 4, where its paper divides.
    "NormalizedReverseCrossEntropy": lambda z, y, hp: (
        by_name("rce", scale=True)(z, y, hp) * (z.shape[-1] - 1) / 4
    ),
    "NormalizedCrossEntropy": by_name("nce", scale=True),
    "NormalizedGeneralizedCrossEntropy": by_name("ngce", scale=True),
    "GeneralizedCrossEntropy": by_name("gce"),
    "MeanAbsoluteError": by_name("mae", scale=True),
    "NormalizedMeanAbsoluteError": by_name("nmae", scale=True),
    "NGCEandRCE_half_half": lambda z, y, hp: losses.active_passive(
        "ngce_rce", z, y, (0.5, 0.5), q=0.7
    ),
    "FocalLoss": detached_focal,
    "FocalLoss_gamma0": lambda z, y, hp: losses.focal(z, y, 0.0, True),
    "FocalLoss_class_alpha": lambda z, y, hp: (
        hp["class_alpha"][y] * detached_focal(z, y, hp)
    ),
    "FocalLoss_sum": lambda z, y, hp: len(y) * detached_focal(z, y, hp),
    "NormalizedFocalLoss": by_name("nfl", scale=True),
    "DMILoss": lambda z, y, hp: losses.dmi(z, y),
}


def loss_named(name):
    """Of LOSSES, or the sum of two as ``NCEandRCE``."""
    if name in LOSSES:
        return LOSSES[name]
    return by_name("_".join(name.split("and")).lower())


# In float64: of saturated rows float32 gradients are rounding errors, ours
# and the authors'.
@golden("h2e_losses")
def test_values_and_gradients(case):
    with precision(np.float64):
        for inputs in case.prefixes("__CE__value"):
            check_losses(inputs, case.group(f"{inputs}__"), parameters(case))


def check_losses(inputs, stored, hp):
    hp["class_alpha"] = jnp.asarray(stored["focal_class_alpha"])
    labels = jnp.asarray(stored["labels"])
    ending = "__value"
    names = [k.removesuffix(ending) for k in stored if k.endswith(ending)]

    @jax.jit  # all at once: one by one costs more to compile
    def everything(logits):
        def mean(z, loss):
            rows = loss(z, labels, hp)
            return rows.mean(), rows

        found = jax.value_and_grad(mean, has_aux=True)
        return {n: found(logits, loss_named(n)) for n in names}

    results = everything(jnp.asarray(stored["logits"], float))
    for name, ((value, rows), grad) in results.items():
        special = name == "DMILoss"
        assert rows.shape == (() if special else labels.shape)
        assert rows.dtype == float
        close(value, stored[f"{name}__value"], 2e-3 if special else 1e-5)
        share = 1e-3 if inputs.startswith("extreme") else 1e-5
        share = 1e-2 if special else share
        close_gradient(grad, stored[f"{name}__grad_logits"], share)


@golden("h2e_losses")
def test_losses_of_plain_training(case, dtype):
    """SCE and GCE without a floor under p, which changes little."""
    hp, floor = parameters(case), 1e-7
    for inputs in case.prefixes("__SCELoss__value"):
        stored = case.group(f"{inputs}__")
        logits = jnp.asarray(stored["logits"], dtype)
        labels, classes = jnp.asarray(stored["labels"]), logits.shape[-1]
        value = losses.symmetric_cross_entropy(
            logits, labels, hp["alpha"], hp["beta"], np.log(1e-4)
        ).mean()
        gap = -hp["beta"] * np.log(1e-4) * classes * floor
        close(value, stored["SCELoss__value"], atol=1e-6 + gap)
        value = losses.generalised_cross_entropy(logits, labels, hp["q"])
        gap = floor ** hp["q"] / hp["q"]
        expected = stored["GeneralizedCrossEntropy__value"]
        close(value.mean(), expected, atol=1e-6 + gap)


@golden("h2e_losses")
def test_coteaching(case, dtype):
    for tag in case.prefixes("__num_remember"):
        prefix, _, forget = tag.partition("__forget")
        labels = jnp.asarray(case[f"{prefix}__labels"])
        names = (f"{prefix}__logits_net{n}" for n in (1, 2))
        logits = case.jnp(*names, dtype=dtype)
        kept = int(case[f"{tag}__num_remember"])

        @jax.jit
        @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
        def everything(a, b, y=labels, rate=float(forget), kept=kept):
            # The release divides the mean by the number once more.
            values = [v / kept for v in losses.coteaching(a, b, y, rate)]
            return sum(values), values

        (_, values), grads = everything(*logits)
        for n, value, grad in zip((1, 2), values, grads, strict=True):
            close(value, case[f"{tag}__loss_net{n}"])
            close_gradient(grad, case[f"{tag}__grad_logits_net{n}"])


# --- losses that know the counts --------------------------------------------


def variants(case, prefix):
    """Counts of the intended variant and of the release's slip."""
    counts = case[f"{prefix}__class_counts"]
    # The release assigns them sorted by the labels as strings.
    slipped = counts[sorted(range(len(counts)), key=str)]
    stored = case[f"{prefix}__counts_in_released_order"]
    np.testing.assert_array_equal(slipped, stored)
    return {"class_order": counts, "released": slipped}


@jax.jit
@functools.partial(jax.value_and_grad, has_aux=True)
def balanced(logits, labels, counts):
    values = losses.balanced_softmax(logits, labels, counts)
    return values.sum(), values


@golden("h2e_losses_lt")
def test_balanced_softmax(case, dtype):
    for prefix in case.prefixes("__bsoftmax__logits"):
        logits = jnp.asarray(case[f"{prefix}__bsoftmax__logits"], dtype)
        labels = jnp.asarray(case[f"{prefix}__labels"])
        for name, counts in variants(case, prefix).items():
            stored = case.group(f"{prefix}__bsoftmax_{name}__")
            (_, values), grad = balanced(logits, labels, counts)
            close(values, stored["per_sample"], 5e-5)
            close_gradient(grad, stored["grad_of_sum"], 5e-5)


@jax.jit
@jax.value_and_grad
def margin_loss(cosines, labels, margins, weights, scale):
    values = losses.ldam(cosines, labels, margins, scale)
    return losses.weighted_mean(values, weights[labels])


@golden("h2e_losses_lt")
def test_ldam(case, dtype):
    for prefix in case.prefixes("__ldam__total_epoch"):
        (cosines,) = case.jnp(f"{prefix}__cosine_logits", dtype=dtype)
        labels = jnp.asarray(case[f"{prefix}__labels"])
        setting = case.group(f"{prefix}__ldam__")
        scale, largest = float(setting["s"]), float(setting["max_m"])
        deferred = int(0.8 * int(setting["total_epoch"]))
        for name, counts in variants(case, prefix).items():
            stored = case.group(f"{prefix}__ldam_{name}__")
            margins = losses.ldam_margins(counts, largest)
            close(margins, stored["margins"], 5e-5)
            for i, epoch in enumerate(setting["epochs"]):
                beta = 0.9999 if epoch >= deferred else 0.0
                weights = losses.effective_weights(counts, beta)
                close(weights, stored["class_weights_per_epoch"][i], 5e-5)
                value, grad = margin_loss(
                    cosines, labels, margins, weights, scale
                )
                close(value, stored["loss_per_epoch"][i], 5e-5)
                close_gradient(grad, stored["grad_per_epoch"][i], 5e-5)


@golden("h2e_losses_lt")
def test_cosine_classifier(case, dtype):
    for prefix in case.prefixes("cosine_classifier__output"):
        stored = f"{prefix}cosine_classifier__"
        names = (f"{stored}features", f"{stored}weight")
        inputs = case.jnp(*names, dtype=dtype)
        close(losses.cosines(*inputs), case[f"{stored}output"], 5e-5)
