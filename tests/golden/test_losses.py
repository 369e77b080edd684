"""Losses and targets against the numbers of the authors' functions."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt.losses import mixmatch
from jaxnlt.methods import dasc
from tests.golden.cases import golden
from tests.golden.methods import method
from tests.golden.precision import close, near


def value_and_grad(function, argnums=0, has_aux=False):
    """Compiled as a whole: one by one the operations compile for seconds."""
    return jax.jit(jax.value_and_grad(function, argnums, has_aux))


@golden("dasc_balanced_softmax")
def test_balanced_softmax(case, dtype):
    logits, soft = case.jnp("logits", "soft_labels", dtype=dtype)
    counts = case["class_counts"]
    loss = value_and_grad(
        lambda z, targets: losses.balanced_softmax(z, targets, counts).mean()
    )
    for kind, targets in (("hard", case["labels"]), ("soft", soft)):
        value, grad = loss(logits, targets)
        close(value, case[f"loss_{kind}_f64"], dtype)
        close(grad, case[f"grad_logits_{kind}_f64"], dtype, grad=True)


def contrast(features, targets, prototypes, temperature, mask):
    values = losses.class_balanced_contrastive(
        features, targets, prototypes, temperature
    )
    return losses.masked_mean(values, mask)


@golden("dasc_sbcl_supervised")
def test_supervised_contrast(case, dtype):
    features, prototypes = case.jnp("features", "prototypes", dtype=dtype)
    targets = jax.nn.one_hot(case["labels"], len(prototypes), dtype=dtype)
    mask, temperature = jnp.ones(len(features), bool), case["temperature"]
    inputs = (features, targets, prototypes, float(temperature), mask)
    value, grads = value_and_grad(contrast, (0, 2))(*inputs)
    close(value, case["loss_f64"], dtype)
    close(grads[0], case["grad_features_f64"], dtype, grad=True)
    close(grads[1], case["grad_prototypes_f64"], dtype, grad=True)


@golden("dasc_sbcl_semi")
def test_semi_contrast(case, dtype):
    inputs = case.jnp("features", "targets", "prototypes", dtype=dtype)
    # The stored targets are float32: so is the comparison.
    threshold = np.float32(case["conf_threshold"])
    mask, _ = dasc.confidence(case["targets"].max(-1), threshold)
    np.testing.assert_array_equal(mask, case["conf_mask"])
    temperature = float(case["temperature"])
    found = value_and_grad(contrast, (0, 2))
    value, grads = found(*inputs, temperature, jnp.asarray(mask))
    close(value, case["loss_guarded_f64"], dtype)
    expected = case["grad_features_f64"], case["grad_prototypes_f64"]
    for grad, reference in zip(grads, expected, strict=True):
        if not mask.any():  # the authors divide 0 by 0
            reference = np.zeros_like(reference)
        close(grad, reference, dtype, grad=True)


@golden("dasc_semi_losses")
def test_semi_losses(case, dtype):
    names = ("logits_x", "logits_u", "logits_x_bal", "logits_u_bal")
    inputs = case.jnp(*names, dtype=dtype)
    targets = jnp.concatenate(case.jnp("targets_x", "targets_u", dtype=dtype))
    counts, epochs = case.jnp("clean_counts", "epochs", dtype=dtype)
    prior, num_x = losses.log_prior(counts), len(inputs[0])

    def total(x, u, x_bal, u_bal):
        z, z_bal = jnp.concatenate([x, u]), jnp.concatenate([x_bal, u_bal])
        plain = mixmatch.terms(z, targets, num_x)
        balanced = mixmatch.terms(z_bal, targets, num_x, prior)
        penalty = losses.prior_penalty(z)
        value = plain[0] + 9.25 * plain[1] + penalty
        value += balanced[0] + 9.25 * balanced[1]
        return value, (*plain, *balanced, penalty)

    found = value_and_grad(total, (0, 1, 2, 3), has_aux=True)
    (value, terms), grads = found(*inputs)
    stored = ("Lx", "Lu", "Lx_bal", "Lu_bal", "penalty")
    for term, name in zip(terms, stored, strict=True):
        close(term, case[f"{name}_f64"], dtype)
    close(value, case["total_lambda9.25_f64"], dtype)
    for grad, name in zip(grads, names, strict=True):
        close(grad, case[f"grad_{name}_f64"], dtype, grad=True)
    start, length = float(case["warm_up"]), float(case["rampup_length"])
    ramp = mixmatch.ramp(epochs, start, length)
    close(case["lambda_u"] * ramp, case["lambda_ramp"], dtype)


@golden("dasc_targets_mixup")
def test_targets_and_mixup(case, dtype):
    names = (f"logits_u_net{n}_head1" for n in (1, 2))
    u = case.jnp(*names, dtype=dtype)
    names = (f"logits_x_net{n}_head{h}" for n in (1, 2) for h in (1, 2))
    x = case.jnp(*names, dtype=dtype)
    (weights,) = case.jnp("w_x", dtype=dtype)
    guessed = mixmatch.mean_probs(u)
    own = mixmatch.mean_probs(x)
    refined = mixmatch.refine(case["labels_x"], own, weights)
    temperature = float(case["T"])
    targets_u = mixmatch.sharpen(guessed, temperature)
    targets_x = mixmatch.sharpen(refined, temperature)
    close(guessed, case["coguess_before_sharpen_f64"], dtype)
    close(refined, case["refined_before_sharpen_f64"], dtype)
    close(targets_u, case["targets_u_f64"], dtype)
    close(targets_x, case["targets_x_f64"], dtype)
    views = ("inputs_x1", "inputs_x2", "inputs_u1", "inputs_u2")
    inputs = jnp.concatenate(case.jnp(*views, dtype=dtype))
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


@golden("dasc_midl")
def test_instance_discrimination(case, dtype):
    sizes = dasc.Sizes(int(case["Bx"]), int(case["Bu"]))
    size_x, size_u = sizes
    rows, keys = case.jnp("q1", "q1_mixed", dtype=dtype)
    threshold = np.float32(case["conf_threshold"])
    _, unsure = dasc.confidence(case["max_target"], threshold)
    first = np.r_[0:size_x, 2 * size_x : 2 * size_x + size_u]
    np.testing.assert_array_equal(unsure[first], case["mask"])
    unsure = jnp.asarray(unsure)
    carry = queue(case["memory_in"], int(case["memory_size"]), dtype)
    for label in ("zero", "arange"):
        made = method(
            "dasc:",
            range(2),
            {"batch_size": size_x},
            midl_label=label,
            midl_temperature=float(case["temperature"]),
        )
        if f"loss__{label}_f64" in case:
            loss = value_and_grad(
                lambda q, m=made: m.midl(q, unsure, carry, sizes)
            )
            value, grad = loss(rows)
            close(value, case[f"loss__{label}_f64"], dtype)
            close(grad, case[f"grad_q1__{label}_f64"], dtype, grad=True)
        after = made.remember(carry, keys, unsure, sizes)
        close(valid(after), case["memory_out_f64"], dtype)


@golden("dasc_clean_weight_alignment")
def test_clean_weight_alignment(case):
    clean, index = case["clean_prob"], case["select_index"]
    for aligned, name in ((True, "w_aligned"), (False, "w_authors_misaligned")):
        weights = dasc.labelled_weights(clean, index, aligned)
        np.testing.assert_array_equal(weights[index], case[name])


@golden("dasc_dacc")
def test_dacc(case):
    classes, labels = int(case["num_classes"]), case["noisy_labels"]
    phi, temperature = float(case["phi"]), float(case["eval_temp"])
    made = method(
        "dasc:",
        labels,
        num_classes=classes,
        phi=phi,
        eval_temperature=temperature,
        p_threshold=float(case["p_threshold"]),
        feature_type=str(case["feature_type"]),
    )
    selector, epoch = made.semi.selector, int(case["epoch"])
    outputs = {
        selector.feature_head: case["features"],
        "logits": case["logits_conventional"],
        "balanced": case["logits_balanced"],
    }
    threshold = selection.growing_threshold(epoch, classes, phi)
    close(threshold, case["conf_threshold"], np.float64)
    scores = dasc.dacc_scores(*outputs.values(), labels, threshold, temperature)
    np.testing.assert_array_equal(scores.mask, case["confidence_mask"])
    everyone = np.ones_like(scores.mask)
    unit = selection.normalise(case["features"])
    for value, name in (
        (
            dasc.centroid_weights(outputs["logits"], everyone, temperature),
            "weights",
        ),
        (scores.centroids, "prototypes"),
        (selection.softmax(unit @ scores.centroids.T), "assignment_prob"),
        (scores.losses, "normalized_loss"),
    ):
        expected = case[f"{name}_f64"]
        np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-8)
    rng = np.random.default_rng(0)
    chosen, _ = selector.select([outputs], 0, made.data, {}, epoch, rng)
    near(chosen.clean_probability, case["clean_prob_f64"], atol=1e-3)
    np.testing.assert_array_equal(chosen.labelled, case["selected_index"])
    np.testing.assert_array_equal(chosen.counts, case["selected_per_class"])
