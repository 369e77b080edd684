"""H2E's comparison losses, values and gradients, against the authors' code.

Defaults are rtol 1e-5 and atol 1e-6, for gradients 1e-5 of the largest entry;
the files of the counts allow 5e-5, saturated logits and determinants more.
"""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from tests.golden.cases import golden
from tests.golden.precision import PRECISIONS, precision


def close(actual, expected, rtol=1e-5, atol=1e-6):
    actual = np.asarray(actual, np.float64)
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=atol)


def close_gradient(actual, expected, share=1e-5):
    largest = float(np.abs(expected).max(initial=0))
    close(actual, expected, rtol=0, atol=share * largest)


def prefixes(case, ending):
    """What stands before the ending in the names that have it."""
    return sorted(
        key.removesuffix(ending) for key in case.keys() if key.endswith(ending)
    )


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
def test_values_and_gradients(case, dtype=np.float64):
    sets = prefixes(case, "__CE__value")
    assert sets
    hp = {k: float(v) for k, v in case.group("hp_").items()}
    with precision(dtype):
        for inputs in sets:
            stored = case.group(f"{inputs}__")
            hp = hp | {"class_alpha": jnp.asarray(stored["focal_class_alpha"])}
            labels = jnp.asarray(stored["labels"])
            names = [
                key.removesuffix("__value")
                for key in stored
                if key.endswith("__value")
            ]

            @jax.jit  # all at once: one by one costs more to compile
            def everything(logits, names=names, y=labels, hp=hp):
                def mean(z, loss):
                    rows = loss(z, y, hp)
                    return rows.mean(), rows

                found = jax.value_and_grad(mean, has_aux=True)
                return {n: found(logits, loss_named(n)) for n in names}

            results = everything(jnp.asarray(stored["logits"], dtype))
            for name, ((value, rows), grad) in results.items():
                special = name == "DMILoss"
                shape = () if special else labels.shape
                assert rows.shape == shape and rows.dtype == dtype
                rtol = 2e-3 if special else 1e-5
                close(value, stored[f"{name}__value"], rtol)
                share = 1e-3 if inputs.startswith("extreme") else 1e-5
                share = 1e-2 if special else share
                expected = stored[f"{name}__grad_logits"]
                close_gradient(grad, expected, share)


@PRECISIONS
@golden("h2e_losses")
def test_losses_of_plain_training(case, dtype):
    """SCE and GCE without a floor under p, which changes little."""
    hp = {k: float(v) for k, v in case.group("hp_").items()}
    with precision(dtype):
        for inputs in prefixes(case, "__SCELoss__value"):
            logits = jnp.asarray(case[f"{inputs}__logits"], dtype)
            labels = jnp.asarray(case[f"{inputs}__labels"])
            classes = logits.shape[-1]
            floor = 1e-7
            value = losses.symmetric_cross_entropy(
                logits, labels, hp["alpha"], hp["beta"], np.log(1e-4)
            ).mean()
            gap = -hp["beta"] * np.log(1e-4) * classes * floor
            expected = case[f"{inputs}__SCELoss__value"]
            close(value, expected, atol=1e-6 + gap)
            value = losses.generalised_cross_entropy(logits, labels, hp["q"])
            gap = floor ** hp["q"] / hp["q"]
            expected = case[f"{inputs}__GeneralizedCrossEntropy__value"]
            close(value.mean(), expected, atol=1e-6 + gap)


@PRECISIONS
@golden("h2e_losses")
def test_coteaching(case, dtype):
    found = 0
    with precision(dtype):
        for key in case.keys():
            match = re.fullmatch(r"(\w+)__forget([\d.]+)__num_remember", key)
            if not match:
                continue
            found += 1
            prefix, forget = match[1], float(match[2])
            stored = key.removesuffix("num_remember")
            labels = jnp.asarray(case[f"{prefix}__labels"])
            logits = [
                jnp.asarray(case[f"{prefix}__logits_net{n}"], dtype)
                for n in (1, 2)
            ]
            kept = int(case[key])

            @jax.jit
            def everything(a, b, y=labels, r=forget, m=kept):
                # The release divides the mean by the number once more.
                values = [v / m for v in losses.coteaching(a, b, y, r)]
                return sum(values), values

            (_, values), grads = jax.value_and_grad(
                everything, (0, 1), has_aux=True
            )(*logits)
            for n, (value, grad) in enumerate(
                zip(values, grads, strict=True), 1
            ):
                close(value, case[f"{stored}loss_net{n}"])
                close_gradient(grad, case[f"{stored}grad_logits_net{n}"])
    assert found


# --- losses that know the counts --------------------------------------------


def in_string_order(counts):
    """Counts as the release assigns them: sorted by the labels as strings."""
    return counts[sorted(range(len(counts)), key=str)]


def variants(case, prefix):
    """Counts of the intended variant and of the release's slip."""
    counts = case[f"{prefix}__class_counts"]
    slipped = in_string_order(counts)
    stored = case[f"{prefix}__counts_in_released_order"]
    np.testing.assert_array_equal(slipped, stored)
    return {"class_order": counts, "released": slipped}


@jax.jit
@functools.partial(jax.value_and_grad, has_aux=True)
def balanced(logits, labels, counts):
    values = losses.balanced_softmax(logits, labels, counts)
    return values.sum(), values


@PRECISIONS
@golden("h2e_losses_lt")
def test_balanced_softmax(case, dtype):
    sets = prefixes(case, "__bsoftmax__logits")
    assert sets
    with precision(dtype):
        for prefix in sets:
            logits = jnp.asarray(case[f"{prefix}__bsoftmax__logits"], dtype)
            labels = jnp.asarray(case[f"{prefix}__labels"])
            for name, counts in variants(case, prefix).items():
                stored = f"{prefix}__bsoftmax_{name}"
                (_, values), grad = balanced(logits, labels, counts)
                close(values, case[f"{stored}__per_sample"], 5e-5)
                expected = case[f"{stored}__grad_of_sum"]
                close_gradient(grad, expected, 5e-5)


@jax.jit
@jax.value_and_grad
def margin_loss(cosines, labels, margins, weights, scale):
    values = losses.ldam(cosines, labels, margins, scale)
    return losses.weighted_mean(values, weights[labels])


@PRECISIONS
@golden("h2e_losses_lt")
def test_ldam(case, dtype):
    sets = prefixes(case, "__ldam__total_epoch")
    assert sets
    with precision(dtype):
        for prefix in sets:
            cosines = jnp.asarray(case[f"{prefix}__cosine_logits"], dtype)
            labels = jnp.asarray(case[f"{prefix}__labels"])
            setting = case.group(f"{prefix}__ldam__")
            deferred = int(0.8 * int(setting["total_epoch"]))
            for name, counts in variants(case, prefix).items():
                stored = case.group(f"{prefix}__ldam_{name}__")
                margins = losses.ldam_margins(counts, float(setting["max_m"]))
                close(margins, stored["margins"], 5e-5)
                for i, epoch in enumerate(setting["epochs"]):
                    beta = 0.9999 if epoch >= deferred else 0.0
                    weights = losses.effective_weights(counts, beta)
                    expected = stored["class_weights_per_epoch"][i]
                    close(weights, expected, 5e-5)
                    value, grad = margin_loss(
                        cosines, labels, margins, weights, float(setting["s"])
                    )
                    close(value, stored["loss_per_epoch"][i], 5e-5)
                    expected = stored["grad_per_epoch"][i]
                    close_gradient(grad, expected, 5e-5)


@PRECISIONS
@golden("h2e_losses_lt")
def test_cosine_classifier(case, dtype):
    sets = prefixes(case, "cosine_classifier__output")
    assert sets
    with precision(dtype):
        for prefix in sets:
            stored = case.group(f"{prefix}cosine_classifier__")
            inputs = [
                jnp.asarray(stored[name], dtype)
                for name in ("features", "weight")
            ]
            close(losses.cosines(*inputs), stored["output"], 5e-5)
