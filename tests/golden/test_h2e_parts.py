"""H2E's pieces against the authors' code: penalty, weights, mixup, samplers.

Tolerances are those that were measured for the authors' code.
"""

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxnlt import losses
from jaxnlt.data import sampling
from jaxnlt.losses import mixmatch
from jaxnlt.methods import h2e
from jaxnlt.results import metrics
from tests.golden.cases import golden
from tests.golden.precision import PRECISIONS, precision
from tests.golden.test_h2e_losses import close, close_gradient, prefixes

# --- the identifier ---------------------------------------------------------


@PRECISIONS
@golden("h2e_irm")
def test_penalty(case, dtype):
    sets = [p for p in prefixes(case, "__value") if p.startswith("penalty_")]
    assert sets
    with precision(dtype):
        for prefix in sets:
            labels = jnp.asarray(case[f"{prefix}__labels"])
            value, grad = jax.value_and_grad(h2e.penalty)(
                jnp.asarray(case[f"{prefix}__logits"], dtype), labels
            )
            tolerance = 1e-4 if prefix.endswith("large") else 1e-5
            close(value, case[f"{prefix}__value"], tolerance)
            expected = case[f"{prefix}__grad_logits"]
            close_gradient(grad, expected, tolerance)


PARTS = ("fc_weight", "fc_bias", "tro")
ENVIRONMENTS = ("raw", "reverse", "balance")


class Identifier:
    """The authors' head, its penalty and their SGD, on the stored features."""

    def __init__(self, case, dtype):
        self.case, self.dtype = case, dtype
        prior = case["irm__class_freq"]
        self.prior = jnp.asarray(prior, dtype)
        self.tau = jnp.asarray(case["irm__tro_init"], dtype)
        self.start = {
            "fc_weight": jnp.asarray(case["irm__fc_weight"], dtype),
            "fc_bias": jnp.asarray(case["irm__fc_bias"], dtype),
            "tro": self.tau,
        }
        self.sgd = optax.chain(
            optax.add_decayed_weights(float(case["irm__weight_decay"])),
            optax.sgd(float(case["irm__lr"]), float(case["irm__momentum"])),
        )
        self.steps = len(
            [key for key in case.keys() if key.endswith("__raw__features")]
        )

    def output(self, params, features):
        logits = features @ params["fc_weight"].T + params["fc_bias"]
        return logits - losses.prior_adjustment(self.prior, params["tro"])

    def environments(self, step):
        for name in ENVIRONMENTS:
            stored = self.case.group(f"irm__step{step}__{name}__")
            yield (
                jnp.asarray(stored["features"], self.dtype),
                jnp.asarray(stored["labels"]),
            )

    def loss(self, params, step, trained=True):
        if not trained:
            params = params | {"tro": self.tau}
        penalties = [
            h2e.penalty(self.output(params, features), labels)
            for features, labels in self.environments(step)
        ]
        return sum(penalties) / len(penalties), penalties

    def train(self, trained=True):
        """Loss before each step and parameters after it."""
        params, state = self.start, self.sgd.init(self.start)
        for step in range(self.steps):
            (value, _), grads = jax.value_and_grad(self.loss, has_aux=True)(
                params, step, trained
            )
            updates, state = self.sgd.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            yield value, params


def close_params(params, case, prefix):
    for name in PARTS:
        if f"{prefix}__{name}" in case:
            expected = case[f"{prefix}__{name}"]
            close(params[name], expected, rtol=1e-4, atol=1e-5)


@PRECISIONS
@golden("h2e_irm")
def test_identifier_step(case, dtype):
    with precision(dtype):
        head = Identifier(case, dtype)
        adjustment = losses.prior_adjustment(head.prior, head.tau)
        close(adjustment, case["irm__adjustments_at_init"])
        features, _ = next(head.environments(0))
        close(
            head.output(head.start, features), case["irm__step0__raw__output"]
        )
        (value, penalties), grads = jax.value_and_grad(head.loss, has_aux=True)(
            head.start, 0
        )
        close(value, case["irm__step0__loss"], 1e-4)
        for name, got in zip(ENVIRONMENTS, penalties, strict=True):
            close(got, case[f"irm__step0__{name}__penalty"], 1e-4)
        for name in PARTS:
            close_gradient(grads[name], case[f"irm__step0__grad_{name}"])
        close_params(next(head.train())[1], case, "irm__after_step0")


@PRECISIONS
@golden("h2e_irm")
def test_identifier_training(case, dtype):
    """The adjustment made anew in every step, and the one of the start."""
    with precision(dtype):
        head = Identifier(case, dtype)
        for i, (value, params) in enumerate(head.train()):
            close(value, case["irm_recomputed__losses"][i], 1e-4)
            close_params(params, case, f"irm_recomputed__after_step{i}")
        frozen = list(head.train(trained=False))
        for i, (value, _) in enumerate(frozen):
            close(value, case["irm_tro_frozen__losses"][i], 1e-4)
        close_params(frozen[-1][1], case, "irm_tro_frozen__after_last")


# --- weights ----------------------------------------------------------------

EXPONENTS = {
    "tro1": lambda case: np.ones(len(case["class_counts"])),
    "tro0": lambda case: np.zeros(len(case["class_counts"])),
    "trovec": lambda case: case["tro_vector"],
    "released_double_subtraction": lambda case: case["tro_vector"],
}


def frequencies(counts):
    return counts / counts.sum()


@golden("h2e_weights")
def test_instance_weights(case):
    variants = prefixes(case, "__adjustments")
    assert variants
    labels, counts = case["labels"], case["class_counts"]
    prior = frequencies(counts)
    if counts.all():  # an empty class has no prior of 0 in training
        np.testing.assert_array_equal(losses.class_prior(counts), prior)
    logits = case["features"] @ case["fc_weight"].T + case["fc_bias"]
    close(logits, case["logits"])
    for name in variants:
        adjustment = losses.prior_adjustment(prior, EXPONENTS[name](case))
        close(adjustment, case[f"{name}__adjustments"])
        adjusted = case["logits"] - adjustment
        if name == "released_double_subtraction":
            adjusted = adjusted - losses.prior_adjustment(
                prior, np.ones(len(prior))
            )
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
    edges = [p for p in prefixes(case, "__weights") if p.startswith("edge_")]
    assert edges
    for prefix in edges:
        stored = case.group(f"{prefix}__")
        weights, flagged = h2e.instance_weights(
            stored["logits"], stored["labels"]
        )
        close(weights, stored["weights"], 1e-4)
        np.testing.assert_array_equal(flagged, stored["weights"] == 0.01)


@golden("h2e_weights")
def test_weights_of_the_reversed_sampler(case):
    """Proportional to the chance of the row in the reversed environment."""
    expected = case["reverse_instance_weight"]
    labels = case["labels"]
    counts = np.bincount(labels, minlength=len(case["class_counts"]))
    chance = (sampling.class_weights(counts, -1) / np.maximum(counts, 1))[
        labels
    ]
    close(chance / chance.sum(), expected / expected.sum(dtype=float))


# --- mixup ------------------------------------------------------------------


def mixture(case, prefix, dtype, shares, coefficient):
    """Mixed images, loss and gradient of one stored batch."""
    stored = case.group(f"{prefix}__")
    labels, partner = case["labels"], stored["perm"]
    images = jnp.asarray(case["images"], dtype)
    mixed = mixmatch.mixup(images, shares, partner)
    close(mixed, stored["mixed_images"])
    np.testing.assert_array_equal(labels, stored["labels_a"])
    np.testing.assert_array_equal(labels[partner], stored["labels_b"])
    value, grad = jax.value_and_grad(
        lambda z: losses.mixup_cross_entropy(
            z, labels, labels[partner], coefficient
        ).mean()
    )(jnp.asarray(stored["logits"], dtype))
    close(value, stored["loss"])
    close_gradient(grad, stored["grad_logits"])


@PRECISIONS
@golden("h2e_mixup")
def test_mixup(case, dtype):
    plain = prefixes(case, "__lam")
    assert plain
    with precision(dtype):
        for prefix in plain:
            share = float(case[f"{prefix}__lam"])
            mixture(case, prefix, dtype, share, share)


@PRECISIONS
@golden("h2e_mixup")
def test_weighted_mixup(case, dtype):
    weighted = prefixes(case, "__scores")
    assert weighted
    with precision(dtype):
        for prefix in weighted:
            scores = jnp.asarray(case[f"{prefix}__scores"], dtype)
            own, other = h2e.mixing_shares(scores, case[f"{prefix}__perm"])
            close(own, case[f"{prefix}__lam_a"])
            close(other, case[f"{prefix}__lam_b"])
            mixture(case, prefix, dtype, own[:, None, None, None], own)


# --- samplers ---------------------------------------------------------------


@golden("h2e_samplers")
def test_class_aware_sampler(case):
    """What holds of the authors' stored sequences holds of ours."""
    for prefix in prefixes(case, "__index_sequence_per_epoch"):
        labels = case[f"{prefix}__labels"]
        group = int(case[f"{prefix}__num_samples_cls"])
        stored = case[f"{prefix}__index_sequence_per_epoch"]
        length = int(case[f"{prefix}__epoch_length"])
        counts = np.bincount(labels)
        assert length == len(counts) * counts.max()
        ours = np.concatenate(
            [
                sampling.class_aware(
                    np.arange(len(labels)),
                    labels,
                    group,
                    1,
                    length,
                    np.random.default_rng(seed),
                )
                for seed in range(len(stored))
            ]
        )
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
            np.testing.assert_array_equal(
                rounds, np.broadcast_to(np.arange(len(counts)), rounds.shape)
            )
            times = np.bincount(sequence, minlength=len(labels))
            for c in range(len(counts)):
                assert np.ptp(times[labels == c]) <= 1


@golden("h2e_samplers")
def test_environments(case):
    for prefix in prefixes(case, "__uniform_draw"):
        stored = case.group(f"{prefix}__")
        counts = stored["class_counts"]
        weights = sampling.class_weights(counts, -1.0)
        close(weights, stored["class_weight"])
        close(weights.sum(), stored["sum_weight"])
        close(weights / weights.sum(), stored["class_probability"])
        drawn = sampling.drawn_classes(weights, stored["uniform_draw"])
        np.testing.assert_array_equal(drawn, stored["sampled_class"])
        labels = stored["instance_labels"]
        expected = stored["instance_weight_helper"]
        own = np.bincount(labels, minlength=len(counts))
        chance = (sampling.class_weights(own, -1) / np.maximum(own, 1))[labels]
        close(chance / chance.sum(), expected / expected.sum(dtype=float))
    expected = case["env_balance__class_probability"]
    even = sampling.class_weights(np.arange(1, 1 + len(expected)), 0.0)
    close(even / even.sum(), expected)


# --- evaluation -------------------------------------------------------------


@golden("h2e_evaluation")
def test_evaluation(case):
    labels, counts = case["labels"], case["train_class_counts"]
    adjustment = losses.prior_adjustment(
        frequencies(counts), np.ones(len(counts))
    )
    close(adjustment, case["adjustments"])
    scores = {"raw": case["logits"], "adjusted": case["logits"] - adjustment}
    size = int(case["batch_size"])
    for name, logits in scores.items():
        found = metrics.test_metrics(logits, labels, counts, "paper")
        expected = case[f"{name}__accuracy_percent"]
        close(100 * found["test_accuracy"], expected, 1e-6)
        with precision(np.float64):
            rows = np.asarray(
                losses.cross_entropy(
                    jnp.asarray(logits, np.float64), jnp.asarray(labels)
                )
            )
        batches = [
            np.mean(rows[i : i + size]) for i in range(0, len(rows), size)
        ]
        expected = case[f"{name}__loss_mean_over_batches"]
        close(np.mean(batches), expected)
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
    names = prefixes(case, "__lr_per_epoch")
    assert names
    for name in names:
        expected = case[f"{name}__lr_per_epoch"]
        first, epochs = float(expected[0]), len(expected)
        if name.startswith("schedule_cosine"):
            first = float(case[f"{name}__base_lr"])
            rates = [h2e.cosine_rate(first, e, epochs) for e in range(epochs)]
        else:
            rates = [h2e.step_rate(first, e) for e in range(epochs)]
        close(rates, expected, 1e-6, 0)
