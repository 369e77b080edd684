"""H2E's comparison losses, values and gradients, against the authors' code.

Tolerances are those that were measured for the authors' code.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from jaxnlt.losses import robust
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


def sum_of(first, second):
    """The authors' alpha and beta, as `combined` takes them."""
    names = {"MAE": "mae", "RCE": "rce", "NCE": "nce", "NFL": "nfl"}
    names |= {"GCE": "gce", "NGCE": "ngce"}

    def loss(logits, labels, hp, weights):
        # The release ignores alpha beside GCE, and both in GCE+NCE.
        alpha = 1.0 if first == "GCE" else hp["alpha"]
        beta = 1.0 if (first, second) == ("GCE", "NCE") else hp["beta"]
        name = f"{names[first]}_{names[second]}"
        return robust.active_passive(
            name, logits, labels, (alpha, beta), hp["q"], hp["gamma"]
        )

    return loss


def scaled(loss):
    return lambda z, y, hp, weights: hp["scale"] * loss(z, y)


#: Loss in the file -> what is called; all but the sum give one value a row.
LOSSES = {
    "CE": lambda z, y, hp, weights: losses.cross_entropy(z, y),
    "SCELoss": lambda z, y, hp, weights: robust.active_passive(
        "ce_rce", z, y, (hp["alpha"], hp["beta"])
    ),
    "ReverseCrossEntropy": scaled(robust.reverse_cross_entropy),
    "NormalizedReverseCrossEntropy": scaled(
        # The release multiplies by (C - 1) / 4 in place of dividing.
        lambda z, y: (
            robust.reverse_cross_entropy(z, y) * ((z.shape[-1] - 1) / 4)
        )
    ),
    "NormalizedCrossEntropy": scaled(robust.normalised_cross_entropy),
    "NormalizedGeneralizedCrossEntropy": lambda z, y, hp, weights: (
        hp["scale"] * robust.normalised_generalised_cross_entropy(z, y, hp["q"])
    ),
    "GeneralizedCrossEntropy": lambda z, y, hp, weights: (
        robust.generalised_cross_entropy(z, y, hp["q"], robust.FLOOR)
    ),
    "MeanAbsoluteError": scaled(robust.mean_absolute_error),
    "NormalizedMeanAbsoluteError": scaled(
        lambda z, y: robust.active_passive("nmae", z, y)
    ),
    "NGCEandRCE_half_half": lambda z, y, hp, weights: robust.active_passive(
        "ngce_rce", z, y, (0.5, 0.5), q=0.7
    ),
    "FocalLoss": lambda z, y, hp, weights: robust.focal(
        z, y, hp["gamma"], detached=True
    ),
    "FocalLoss_gamma0": lambda z, y, hp, weights: robust.focal(
        z, y, 0.0, detached=True
    ),
    "FocalLoss_class_alpha": lambda z, y, hp, weights: (
        jnp.asarray(weights, z.dtype)[y]
        * robust.focal(z, y, hp["gamma"], detached=True)
    ),
    "FocalLoss_sum": lambda z, y, hp, weights: (
        len(y) * robust.focal(z, y, hp["gamma"], detached=True)
    ),
    "NormalizedFocalLoss": lambda z, y, hp, weights: (
        hp["scale"] * robust.normalised_focal(z, y, hp["gamma"])
    ),
    "DMILoss": lambda z, y, hp, weights: robust.dmi(z, y),
}


def loss_named(name):
    if "and" in name and name not in LOSSES:
        return sum_of(*name.split("and"))
    return LOSSES[name]


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
            labels = jnp.asarray(stored["labels"])
            weights = stored["focal_class_alpha"]
            names = [
                key.removesuffix("__value")
                for key in stored
                if key.endswith("__value")
            ]

            @jax.jit  # all at once: one by one costs more to compile
            def everything(logits, names=names, y=labels, w=weights):
                def mean(z, loss):
                    rows = loss(z, y, hp, w)
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
    """SCE and GCE of `erm` have no floor under p, which changes little."""
    hp = {k: float(v) for k, v in case.group("hp_").items()}
    with precision(dtype):
        for inputs in prefixes(case, "__SCELoss__value"):
            logits = jnp.asarray(case[f"{inputs}__logits"], dtype)
            labels = jnp.asarray(case[f"{inputs}__labels"])
            classes = logits.shape[-1]
            value = losses.symmetric_cross_entropy(
                logits,
                labels,
                hp["alpha"],
                hp["beta"],
                robust.LOG_ZERO,
            ).mean()
            floor = robust.FLOOR
            gap = -hp["beta"] * robust.LOG_ZERO * classes * floor
            expected = case[f"{inputs}__SCELoss__value"]
            close(value, expected, atol=1e-6 + gap)
            value = robust.generalised_cross_entropy(
                logits, labels, hp["q"]
            ).mean()
            gap = floor ** hp["q"] / hp["q"]
            expected = case[f"{inputs}__GeneralizedCrossEntropy__value"]
            close(value, expected, atol=1e-6 + gap)


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
            values = robust.coteaching(
                *logits, labels, forget, as_released=True
            )
            for n, value in enumerate(values, 1):
                close(value, case[f"{stored}loss_net{n}"])
            grads = jax.grad(
                lambda a, b, y=labels, r=forget: sum(
                    robust.coteaching(a, b, y, r, as_released=True)
                ),
                (0, 1),
            )(*logits)
            for n, grad in enumerate(grads, 1):
                close_gradient(grad, case[f"{stored}grad_logits_net{n}"])
            # Without the slip it is the mean of the exchanged rows.
            means = robust.coteaching(*logits, labels, forget)
            for mean, value in zip(means, values, strict=True):
                close(mean, float(value) * int(case[key]))
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
                value = losses.balanced_softmax(logits, labels, counts)
                close(value, case[f"{stored}__per_sample"], 5e-5)
                grad = jax.grad(
                    lambda z, y=labels, n=counts: losses.balanced_softmax(
                        z, y, n
                    ).sum()
                )(logits)
                expected = case[f"{stored}__grad_of_sum"]
                close_gradient(grad, expected, 5e-5)


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
                    value, grad = jax.value_and_grad(
                        lambda z, m=margins, w=weights, y=labels, s=setting: (
                            losses.weighted_mean(
                                losses.ldam(z, y, m, float(s["s"])),
                                jnp.asarray(w)[y],
                            )
                        )
                    )(cosines)
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
