"""Losses and targets against the numbers of the authors' functions."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.losses import mixmatch
from jaxnlt.methods import dasc
from tests.golden import tiny
from tests.golden.cases import golden
from tests.golden.precision import PRECISIONS, close, precision


def arrays(case, dtype, *names):
    return [jnp.asarray(case[name], dtype) for name in names]


@PRECISIONS
@golden("dasc_balanced_softmax")
def test_balanced_softmax(case, dtype):
    with precision(dtype):
        logits, soft = arrays(case, dtype, "logits", "soft_labels")
        hard, counts = jnp.asarray(case["labels"]), case["class_counts"]
        for kind, targets in (("hard", hard), ("soft", soft)):
            value, grad = value_and_grad(
                lambda z, t=targets: losses.balanced_softmax(
                    z, t, counts
                ).mean()
            )(logits)
            close(value, case[f"loss_{kind}_f64"], dtype)
            close(grad, case[f"grad_logits_{kind}_f64"], dtype, grad=True)


def value_and_grad(function, argnums=0, has_aux=False):
    """Compiled as a whole: one by one the operations compile for seconds."""
    return jax.jit(jax.value_and_grad(function, argnums, has_aux))


def contrast(features, targets, prototypes, temperature, mask):
    values = losses.class_balanced_contrastive(
        features, targets, prototypes, temperature
    )
    return losses.masked_mean(values, mask)


@PRECISIONS
@golden("dasc_sbcl_supervised")
def test_supervised_contrast(case, dtype):
    with precision(dtype):
        features, prototypes = arrays(case, dtype, "features", "prototypes")
        targets = jax.nn.one_hot(case["labels"], len(prototypes), dtype=dtype)
        mask = jnp.ones(len(features), bool)
        value, grads = value_and_grad(contrast, (0, 2))(
            features, targets, prototypes, float(case["temperature"]), mask
        )
        close(value, case["loss_f64"], dtype)
        close(grads[0], case["grad_features_f64"], dtype, grad=True)
        close(grads[1], case["grad_prototypes_f64"], dtype, grad=True)


@PRECISIONS
@golden("dasc_sbcl_semi")
def test_semi_contrast(case, dtype):
    with precision(dtype):
        features, targets, prototypes = arrays(
            case, dtype, "features", "targets", "prototypes"
        )
        # The stored targets are float32: so is the comparison.
        mask, _ = dasc.confidence(
            case["targets"].max(-1), np.float32(case["conf_threshold"])
        )
        np.testing.assert_array_equal(mask, case["conf_mask"])
        value, grads = value_and_grad(contrast, (0, 2))(
            features,
            targets,
            prototypes,
            float(case["temperature"]),
            jnp.asarray(mask),
        )
        close(value, case["loss_guarded_f64"], dtype)
        expected = case["grad_features_f64"], case["grad_prototypes_f64"]
        for grad, reference in zip(grads, expected, strict=True):
            if not mask.any():  # the authors divide 0 by 0
                reference = np.zeros_like(reference)
            close(grad, reference, dtype, grad=True)


@PRECISIONS
@golden("dasc_semi_losses")
def test_semi_losses(case, dtype):
    with precision(dtype):
        names = ("logits_x", "logits_u", "logits_x_bal", "logits_u_bal")
        inputs = arrays(case, dtype, *names)
        targets = jnp.concatenate(arrays(case, dtype, "targets_x", "targets_u"))
        prior = losses.log_prior(jnp.asarray(case["clean_counts"], dtype))
        num_x = len(case["logits_x"])

        def total(x, u, x_bal, u_bal):
            z, z_bal = jnp.concatenate([x, u]), jnp.concatenate([x_bal, u_bal])
            plain = mixmatch.terms(z, targets, num_x)
            balanced = mixmatch.terms(z_bal, targets, num_x, prior)
            penalty = losses.prior_penalty(z)
            value = plain[0] + 9.25 * plain[1] + penalty
            value += balanced[0] + 9.25 * balanced[1]
            return value, (*plain, *balanced, penalty)

        (value, terms), grads = value_and_grad(
            total, (0, 1, 2, 3), has_aux=True
        )(*inputs)
        for term, name in zip(
            terms, ("Lx", "Lu", "Lx_bal", "Lu_bal", "penalty"), strict=True
        ):
            close(term, case[f"{name}_f64"], dtype)
        close(value, case["total_lambda9.25_f64"], dtype)
        for grad, name in zip(grads, names, strict=True):
            close(grad, case[f"grad_{name}_f64"], dtype, grad=True)
        ramp = case["lambda_u"] * mixmatch.ramp(
            jnp.asarray(case["epochs"], dtype),
            float(case["warm_up"]),
            float(case["rampup_length"]),
        )
        close(ramp, case["lambda_ramp"], dtype)


@PRECISIONS
@golden("dasc_targets_mixup")
def test_targets_and_mixup(case, dtype):
    with precision(dtype):
        u = arrays(case, dtype, "logits_u_net1_head1", "logits_u_net2_head1")
        x = arrays(
            case,
            dtype,
            *(f"logits_x_net{n}_head{h}" for n in (1, 2) for h in (1, 2)),
        )
        guessed = mixmatch.mean_probs(u)
        weights = jnp.asarray(case["w_x"], dtype)
        refined = mixmatch.refine(
            case["labels_x"], mixmatch.mean_probs(x), weights
        )
        temperature = float(case["T"])
        targets_u = mixmatch.sharpen(guessed, temperature)
        targets_x = mixmatch.sharpen(refined, temperature)
        close(guessed, case["coguess_before_sharpen_f64"], dtype)
        close(refined, case["refined_before_sharpen_f64"], dtype)
        close(targets_u, case["targets_u_f64"], dtype)
        close(targets_x, case["targets_x_f64"], dtype)
        views = ("inputs_x1", "inputs_x2", "inputs_u1", "inputs_u2")
        inputs = jnp.concatenate(arrays(case, dtype, *views))
        targets = jnp.concatenate([targets_x, targets_x, targets_u, targets_u])
        mix = (float(case["mix_lambda"]), jnp.asarray(case["perm"]))
        close(mixmatch.mixup(inputs, *mix), case["mixed_input_f64"], dtype)
        close(mixmatch.mixup(targets, *mix), case["mixed_target_f64"], dtype)


def queue(memory, size, dtype):
    """Stored memory rows as a carry of fixed size."""
    memory = memory[-size:] if size else memory[:0]
    empty = np.zeros((size - len(memory), memory.shape[1]))
    whole = np.concatenate([empty, memory]).astype(dtype)
    return dasc.ContrastMemory(jnp.asarray(whole), jnp.int32(len(memory)))


def valid(carry):
    """The rows of a carry that count, oldest first."""
    return np.asarray(carry.rows)[len(carry.rows) - int(carry.fill) :]


@PRECISIONS
@golden("dasc_midl")
def test_instance_discrimination(case, dtype):
    sizes = dasc.Sizes(int(case["Bx"]), int(case["Bu"]))
    size_x, size_u = sizes
    memory_size = int(case["memory_size"])
    with precision(dtype):
        rows, keys = arrays(case, dtype, "q1", "q1_mixed")
        _, unsure = dasc.confidence(
            case["max_target"], np.float32(case["conf_threshold"])
        )
        first = np.r_[0:size_x, 2 * size_x : 2 * size_x + size_u]
        np.testing.assert_array_equal(unsure[first], case["mask"])
        carry = queue(case["memory_in"], memory_size, dtype)
        for label in ("zero", "arange"):
            method = tiny.method(
                np.arange(2),
                2,
                size_x,
                midl_label=label,
                midl_temperature=float(case["temperature"]),
            )
            value, grad = value_and_grad(
                lambda q, m=method: m.midl(q, jnp.asarray(unsure), carry, sizes)
            )(rows)
            if f"loss__{label}_f64" in case:
                close(value, case[f"loss__{label}_f64"], dtype)
                expected = case[f"grad_q1__{label}_f64"]
                close(grad, expected, dtype, grad=True)
            after = method.remember(carry, keys, jnp.asarray(unsure), sizes)
            close(valid(after), case["memory_out_f64"], dtype)


@golden("dasc_clean_weight_alignment")
def test_clean_weight_alignment(case):
    clean, index = case["clean_prob"], case["select_index"]
    for aligned, name in ((True, "w_aligned"), (False, "w_authors_misaligned")):
        weights = dasc.labelled_weights(clean, index, aligned)
        np.testing.assert_array_equal(weights[index], case[name])


@golden("dasc_dacc")
def test_dacc(case):
    num_classes = int(case["num_classes"])
    labels = case["noisy_labels"]
    method = tiny.method(
        labels,
        num_classes,
        1,
        phi=float(case["phi"]),
        eval_temperature=float(case["eval_temp"]),
        p_threshold=float(case["p_threshold"]),
        feature_type=str(case["feature_type"]),
    )
    selector = method.semi.selector
    outputs = {
        selector.feature_head: case["features"],
        "logits": case["logits_conventional"],
        "balanced": case["logits_balanced"],
    }
    epoch = int(case["epoch"])
    threshold = selection.growing_threshold(
        epoch, num_classes, float(case["phi"])
    )
    close(threshold, case["conf_threshold"], np.float64)
    scores = dasc.dacc_scores(
        case["features"],
        case["logits_conventional"],
        case["logits_balanced"],
        labels,
        threshold,
        float(case["eval_temp"]),
    )
    np.testing.assert_array_equal(scores.mask, case["confidence_mask"])
    for value, name in (
        (scores.weights, "weights"),
        (scores.centroids, "prototypes"),
        (scores.assignment, "assignment_prob"),
        (scores.losses, "normalized_loss"),
    ):
        np.testing.assert_allclose(
            value, case[f"{name}_f64"], rtol=1e-6, atol=1e-8
        )
    info = base.DataInfo(labels, num_classes)
    rng = np.random.default_rng(0)
    chosen, _ = selector.select([outputs], 0, info, {}, epoch, rng)
    np.testing.assert_allclose(
        chosen.clean_probability, case["clean_prob_f64"], atol=1e-3
    )
    np.testing.assert_array_equal(chosen.labelled, case["selected_index"])
    np.testing.assert_array_equal(chosen.counts, case["selected_per_class"])
