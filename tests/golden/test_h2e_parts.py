"""H2E's pieces against the authors' code: penalty, weights, mixup, samplers.

Tolerances are those that were measured for the authors' code.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses
from jaxnlt.data import sampling
from jaxnlt.losses import mixmatch
from jaxnlt.methods import h2e
from jaxnlt.results import metrics
from tests.golden.cases import golden
from tests.golden.precision import precision
from tests.golden.test_h2e_losses import close, close_gradient


@golden("h2e_irm")
def test_penalty(case, dtype):
    found = jax.jit(jax.value_and_grad(h2e.penalty))
    for prefix in case.prefixes("__value"):
        (logits,) = case.jnp(f"{prefix}__logits", dtype=dtype)
        value, grad = found(logits, jnp.asarray(case[f"{prefix}__labels"]))
        tolerance = 1e-4 if prefix.endswith("large") else 1e-5
        close(value, case[f"{prefix}__value"], tolerance)
        close_gradient(grad, case[f"{prefix}__grad_logits"], tolerance)


def frequencies(counts):
    return counts / counts.sum()


@golden("h2e_weights")
def test_instance_weights(case):
    labels, counts = case["labels"], case["class_counts"]
    prior, ones = frequencies(counts), np.ones(len(counts))
    exponents = {"tro1": ones, "tro0": 0 * ones}  # of the others: stored
    if counts.all():  # an empty class has no prior of 0 in training
        np.testing.assert_array_equal(losses.class_prior(counts), prior)
    logits = case["features"] @ case["fc_weight"].T + case["fc_bias"]
    close(logits, case["logits"])
    for name in case.prefixes("__adjustments"):
        exponent = exponents.get(name, case["tro_vector"])
        adjustment = losses.prior_adjustment(prior, exponent)
        close(adjustment, case[f"{name}__adjustments"])
        adjusted = case["logits"] - adjustment
        if name == "released_double_subtraction":
            adjusted = adjusted - losses.prior_adjustment(prior, ones)
        weights, flagged = h2e.instance_weights(adjusted, labels)
        close(weights, case[f"{name}__weights"], 1e-4)
        predicted = case[f"{name}__predicted_label"]
        np.testing.assert_array_equal(flagged, predicted != labels)
        assert flagged.sum() == int(case[f"{name}__num_flagged"])
        np.testing.assert_array_equal(weights == 0.01, flagged)
        # The confidences behind the map, up to its ends.
        sure = case[f"{name}__max_probability"][~flagged]
        share = (sure - sure.min()) / np.ptp(sure) if np.ptp(sure) else 0 * sure
        close(weights[~flagged], 0.5 + 0.5 * share, 1e-4)


@golden("h2e_weights")
def test_weights_at_the_edges(case):
    edges = [p for p in case.prefixes("__weights") if p.startswith("edge_")]
    assert edges
    for prefix in edges:
        stored = case.group(f"{prefix}__")
        logits, labels = stored["logits"], stored["labels"]
        weights, flagged = h2e.instance_weights(logits, labels)
        close(weights, stored["weights"], 1e-4)
        np.testing.assert_array_equal(flagged, stored["weights"] == 0.01)


def check_reversed(labels, classes, expected):
    """Proportional to the chance of the row in the reversed environment."""
    counts = np.bincount(labels, minlength=classes)
    chance = sampling.class_weights(counts, -1) / np.maximum(counts, 1)
    chance = chance[labels]
    close(chance / chance.sum(), expected / expected.sum(dtype=float))


@golden("h2e_weights")
def test_weights_of_the_reversed_sampler(case):
    classes = len(case["class_counts"])
    check_reversed(case["labels"], classes, case["reverse_instance_weight"])


# --- mixup ------------------------------------------------------------------


@golden("h2e_mixup")
def test_mixup(case, dtype):
    """Of one share for all rows, and of shares by the rows' scores."""
    labels, (images,) = case["labels"], case.jnp("images", dtype=dtype)
    for prefix in (*case.prefixes("__lam"), *case.prefixes("__scores")):
        stored = case.group(f"{prefix}__")
        partner = stored["perm"]
        if "lam" in stored:
            own = shares = float(stored["lam"])
        else:
            scores = jnp.asarray(stored["scores"], dtype)
            own, other = h2e.mixing_shares(scores, partner)
            close(own, stored["lam_a"])
            close(other, stored["lam_b"])
            shares = own[:, None, None, None]
        close(mixmatch.mixup(images, shares, partner), stored["mixed_images"])
        np.testing.assert_array_equal(labels, stored["labels_a"])
        np.testing.assert_array_equal(labels[partner], stored["labels_b"])

        @jax.jit
        @jax.value_and_grad
        def loss(z, other=labels[partner], own=own):
            return losses.mixup_cross_entropy(z, labels, other, own).mean()

        value, grad = loss(jnp.asarray(stored["logits"], dtype))
        close(value, stored["loss"])
        close_gradient(grad, stored["grad_logits"])


# --- samplers ---------------------------------------------------------------


@golden("h2e_samplers")
def test_class_aware_sampler(case):
    """What holds of the authors' stored sequences holds of ours."""
    for prefix in case.prefixes("__index_sequence_per_epoch"):
        labels = case[f"{prefix}__labels"]
        group = int(case[f"{prefix}__num_samples_cls"])
        stored = case[f"{prefix}__index_sequence_per_epoch"]
        length = int(case[f"{prefix}__epoch_length"])
        counts, rows = np.bincount(labels), np.arange(len(labels))
        assert length == len(counts) * counts.max()
        draws = [
            sampling.class_aware(rows, labels, group, 1, length, rng)
            for rng in map(np.random.default_rng, range(len(stored)))
        ]
        ours = np.concatenate(draws)
        for sequence in (*stored, *ours):
            groups = labels[sequence[: length // group * group]]
            groups = groups.reshape(-1, group)
            assert (groups == groups[:, :1]).all()
        totals = np.bincount(stored.reshape(-1), minlength=len(labels))
        expected = case[f"{prefix}__sample_counts_total"]
        np.testing.assert_array_equal(totals, expected)
        for sequence in ours:
            order = labels[sequence[::group]]
            whole = len(order) // len(counts) * len(counts)
            rounds = np.sort(order[:whole].reshape(-1, len(counts)), axis=1)
            assert (rounds == np.arange(len(counts))).all()
            times = np.bincount(sequence, minlength=len(labels))
            for c in range(len(counts)):
                assert np.ptp(times[labels == c]) <= 1


@golden("h2e_samplers")
def test_environments(case):
    for prefix in case.prefixes("__uniform_draw"):
        stored = case.group(f"{prefix}__")
        counts = stored["class_counts"]
        weights = sampling.class_weights(counts, -1.0)
        close(weights, stored["class_weight"])
        close(weights.sum(), stored["sum_weight"])
        close(weights / weights.sum(), stored["class_probability"])
        drawn = sampling.drawn_classes(weights, stored["uniform_draw"])
        np.testing.assert_array_equal(drawn, stored["sampled_class"])
        expected = stored["instance_weight_helper"]
        check_reversed(stored["instance_labels"], len(counts), expected)
    expected = case["env_balance__class_probability"]
    even = sampling.class_weights(np.arange(1, 1 + len(expected)), 0.0)
    close(even / even.sum(), expected)


# --- evaluation -------------------------------------------------------------


@golden("h2e_evaluation")
def test_evaluation(case):
    labels, counts = case["labels"], case["train_class_counts"]
    ones = np.ones(len(counts))
    adjustment = losses.prior_adjustment(frequencies(counts), ones)
    close(adjustment, case["adjustments"])
    scores = {"raw": case["logits"], "adjusted": case["logits"] - adjustment}
    size = int(case["batch_size"])
    for name, logits in scores.items():
        found = metrics.test_metrics(logits, labels, counts, "paper")
        expected = case[f"{name}__accuracy_percent"]
        close(100 * found["test_accuracy"], expected, 1e-6)
        with precision(np.float64):
            rows = losses.cross_entropy(jnp.asarray(logits, float), labels)
        starts = np.arange(size, len(rows), size)
        batches = [part.mean() for part in np.split(np.asarray(rows), starts)]
        close(np.mean(batches), case[f"{name}__loss_mean_over_batches"])
        shots = case.group(f"rolt_shot__{name}__")
        own = np.array(found["accuracy_per_class"], float)  # None is NaN
        tested = ~np.isnan(own)
        close(own[tested], shots["per_class"][tested], 1e-6)
        groups = {
            "many": counts > 100,
            "medium": (counts >= 20) & (counts <= 100),
            "few": counts < 20,
        }
        for group, members in groups.items():
            accuracy = found[f"accuracy_{group}"]
            if len(counts) == 10:  # 'paper' groups ten classes by their ids
                accuracy = own[members & tested].mean() if members.any() else 0
            close(accuracy or 0, shots[group], 1e-6)


@golden("h2e_evaluation")
def test_schedules(case):
    for name in case.prefixes("__lr_per_epoch"):
        expected = case[f"{name}__lr_per_epoch"]
        first, epochs = float(expected[0]), len(expected)
        if name.startswith("schedule_cosine"):
            first = float(case[f"{name}__base_lr"])
            rates = [h2e.cosine_rate(first, e, epochs) for e in range(epochs)]
        else:
            rates = [h2e.step_rate(first, e) for e in range(epochs)]
        close(rates, expected, 1e-6, 0)
