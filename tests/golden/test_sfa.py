"""SFA's selection, losses, ensemble, data and schedules."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt import losses, selection
from jaxnlt.data import load, noise
from jaxnlt.losses import mixmatch
from jaxnlt.methods import sfa
from jaxnlt.results import metrics
from tests import typed
from tests.data import fakes
from tests.golden.cases import Case, golden
from tests.golden.methods import labels_of, method
from tests.golden.scripted import loss_and_grads, spy

GMM = 2e-3  # responsibilities move between seeds and versions
equal = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)


class Stored:
    """A generator whose standard normal draws are stored ones."""

    def __init__(self, draws):
        self.draws = draws

    def standard_normal(self, shape):
        assert self.draws.shape == shape
        return self.draws


def check_mixture(probability, case, prefix):
    low = case[f"{prefix}prob_min_over_seeds"] - GMM
    high = case[f"{prefix}prob_max_over_seeds"] + GMM
    assert ((low <= probability) & (probability <= high)).all()


def check_decisions(chosen, case, prefix):
    """Where all seeds of the authors agree."""
    low = case[f"{prefix}prob_min_over_seeds"]
    high = case[f"{prefix}prob_max_over_seeds"]
    sure = (low - GMM > 0.5) | (high + GMM < 0.5)
    assert sure.any()
    selected = np.isin(np.arange(len(low)), chosen.labelled)
    expected = case[f"{prefix}prob_clean"] > 0.5
    np.testing.assert_array_equal(selected[sure], expected[sure])
    if f"{prefix}clean_count_per_class" in case:
        np.testing.assert_array_equal(
            case[f"{prefix}pred_clean"][sure], expected[sure]
        )
        apart = np.abs(chosen.counts - case[f"{prefix}clean_count_per_class"])
        assert apart.sum() <= (~sure).sum()


def check_selection(case, chosen_method, outputs, epoch, eps, memory, prefix):
    """One selection of SFA, piece by piece and whole."""
    selector, info = chosen_method.semi.selector, chosen_method.data
    confident = selector.confident(outputs["balanced"], info, epoch - 1)
    np.testing.assert_array_equal(confident, case[f"{prefix}mask"])
    probs = selection.softmax(outputs["balanced"])
    own = probs[np.arange(len(info.labels)), info.labels]
    equal(own, case[f"{prefix}balanced_conf"])

    rows = selection.centred_unit(outputs["features"])
    mean = case[f"{prefix}feat_mean"]
    equal(rows, selection.centred_unit(outputs["features"], mean))
    moments, counts = selector.moments(rows, confident, info, memory)
    equal(moments.first, case[f"{prefix}ema_new"], atol=1e-6)
    equal(moments.second, case[f"{prefix}ema_sq_new"], atol=1e-6)
    spread = sfa.deviation(moments)
    equal(spread, case[f"{prefix}std"], rtol=0, atol=1e-4)

    sampled = np.ones(info.num_classes, bool)
    if f"{prefix}class_is_sampled" in case:
        sampled = counts > sfa.MANY
        np.testing.assert_array_equal(
            sampled, case[f"{prefix}class_is_sampled"]
        )
    used = sfa.sample_centroids(moments, eps, sampled)
    equal(used, case[f"{prefix}centroids_used"], rtol=0, atol=2e-4)
    expected = case[f"{prefix}neg_sq_dist"]
    scores = selection.nearest_scores(rows, used)
    equal(scores, expected, atol=5e-4 if "persist" in prefix else 1e-5)
    check_mixture(selector.clean_probability(expected, info), case, prefix)

    chosen, kept = selector.select(
        [outputs], 0, info, memory, epoch - 1, Stored(eps[None])
    )
    check_mixture(chosen.clean_probability, case, prefix)
    check_decisions(chosen, case, prefix)
    np.testing.assert_array_equal(kept.first, moments.first)
    np.testing.assert_array_equal(kept.second, moments.second)


def outputs_of(case, epoch):
    return {
        "features": case[f"e{epoch}_features"],
        "balanced": case[f"e{epoch}_balanced_logits"],
    }


def remembered(case, prefix):
    first, second = case[f"{prefix}ema_in"], case[f"{prefix}ema_sq_in"]
    return sfa.Moments(first, second, np.ones(len(first), bool))


def selecting(case, **options):
    fields = {
        "phi": float(case["phi"]),
        "beta": float(case["beta"]),
        "p_threshold": float(case["p_threshold"]),
        "sampled_classes": "over_300",
    }
    classes = int(case["num_class"])
    options = fields | options
    return method("sfa:cifar10", case["labels"], (), classes, **options)


@golden("sfa_select")
@pytest.mark.parametrize("variant", ["persist", "released"])
def test_selection(case, variant):
    chosen = selecting(case, persist_moments=variant == "persist")
    for e, epoch in enumerate(case["epochs"]):
        outputs, eps = outputs_of(case, e), case[f"e{e}_eps"]
        threshold = selection.growing_threshold(
            int(epoch), int(case["num_class"]), float(case["phi"])
        )
        equal(threshold, case[f"e{e}_threshold"], rtol=1e-12)
        prefix, memory = f"e{e}_", chosen.semi.selector.init_memory()
        if f"{prefix}mask" not in case:
            prefix = f"e{e}_{variant}_"
            # The release is handed the same arrays, and they are zeros.
            memory = remembered(case, f"e{e}_persist_")
        check_selection(case, chosen, outputs, int(epoch), eps, memory, prefix)


@golden("sfa_select")
def test_carried_moments(case):
    """Three epochs in a row, the memory of each handed to the next."""
    chosen = selecting(case)
    selector, info = chosen.semi.selector, chosen.data
    memory = selector.init_memory()
    for e, epoch in enumerate(case["epochs"]):
        if f"e{e}_persist_ema_in" in case:
            equal(memory.first, case[f"e{e}_persist_ema_in"], atol=1e-6)
            expected = case[f"e{e}_persist_ema_sq_in"]
            equal(memory.second, expected, atol=1e-6)
        noise_stored = Stored(case[f"e{e}_eps"][None])
        _, memory = selector.select(
            [outputs_of(case, e)], 0, info, memory, int(epoch) - 1, noise_stored
        )


@golden("sfa_select")
def test_several_draws(case, monkeypatch):
    eps, e = case["multi_eps"], len(case["epochs"]) - 1
    chosen = selecting(case, draws=len(eps))
    selector, info = chosen.semi.selector, chosen.data
    memory = remembered(case, f"e{e}_persist_")
    seen = spy(monkeypatch, selector, "clean_probability")
    epoch = int(case["epochs"][e]) - 1
    result, _ = selector.select(
        [outputs_of(case, e)], 0, info, memory, epoch, Stored(eps)
    )
    # Each of the draws may be off by a single draw's tolerance.
    expected = case["multi_neg_sq_dist_sum"]
    equal(seen[0][0][0], expected, atol=5e-4 * len(eps))
    probability = selector.clean_probability(expected, info)
    equal(probability, case["multi_prob_clean"], rtol=0, atol=GMM)
    sure = np.abs(probability - 0.5) > GMM
    selected = np.isin(np.arange(len(sure)), result.labelled)
    expected = case["multi_pred_clean"]
    np.testing.assert_array_equal(selected[sure], expected[sure])


@golden("sfa_select")
def test_webvision_selection(case):
    chosen = selecting(
        case, beta=0.9, base_confidence=0.02, sampled_classes="all"
    )
    outputs = outputs_of(case, len(case["epochs"]) - 1)
    for name in ("first", "later"):
        prefix = f"web_{name}_"
        epoch = int(case[f"{prefix}epoch"])
        memory = chosen.semi.selector.init_memory()
        if epoch > int(case["web_warm_up"]) + 1:
            memory = remembered(case, prefix)
        eps = case["web_eps"]
        check_selection(case, chosen, outputs, epoch, eps, memory, prefix)


def by_edge(cases):
    """One case for each edge of a file."""
    return [
        Case(c.file, c.name, {k: c.peek(k) for k in c.keys()} | {"edge": edge})
        for c in cases
        for edge in c.prefixes("_labels")
    ]


@golden("sfa_select_edge", keep=by_edge)
@pytest.mark.parametrize("persist", [True, False])
def test_degenerate_selection(case, persist, caplog):
    edge = case["edge"]
    labels, num_classes = case[f"{edge}_labels"], int(case["num_class"])
    chosen = method(
        "sfa:cifar10",
        labels,
        num_classes=num_classes,
        phi=float(case["phi"]),
        persist_moments=persist,
        sampled_classes="over_300",
    )
    selector, info = chosen.semi.selector, chosen.data
    outputs = {
        "features": case[f"{edge}_features"],
        "balanced": case[f"{edge}_balanced_logits"],
    }
    epoch, memory = int(case["warm_up"]), selector.init_memory()
    for later in range(2):
        eps = np.zeros((1, num_classes, outputs["features"].shape[1]))
        result, memory = selector.select(
            [outputs], 0, info, memory, epoch + later, Stored(eps)
        )
        clean = result.clean_probability
        assert ((clean >= 0) & (clean <= 1)).all()
        assert all(np.isfinite(values).all() for values in memory)
    counts = np.bincount(labels, minlength=num_classes)
    confident = selector.confident(outputs["balanced"], info, epoch)
    sure = np.bincount(labels[confident], minlength=num_classes)
    about = {int(record.args[0]) for record in caplog.records}
    if edge == "class_absent":
        (gone,) = np.flatnonzero(counts == 0)
        assert about == {gone} and not memory.known[gone]
    elif edge == "no_confident_sample_in_class":
        assert about == set(np.flatnonzero((sure == 0) & (counts > 0)))
        assert memory.known.all()
    elif edge == "single_sample_class":
        (single,) = np.flatnonzero(counts == 1)
        assert single in about and clean[labels == single] == 1
    else:
        assert edge == "identical_samples_class"
        expected = case[f"{edge}_prob_clean"]
        last = labels == labels.max()
        equal(clean[last], expected[last], rtol=0, atol=GMM)
        selected = np.isin(np.arange(len(labels)), result.labelled)
        np.testing.assert_array_equal(
            selected[last], case[f"{edge}_pred_clean"][last]
        )
        assert int(labels.max()) in about


# Losses ----------------------------------------------------------------------


@golden("sfa_balanced_loss")
def test_balanced_loss(case):
    counts, emptied = case["class_counts"], case["zero_count_class_counts"]
    x, u, targets_x, targets_u = case.jnp(
        "logits_x", "logits_u", "targets_x", "targets_u"
    )
    targets = jnp.concatenate([targets_x, targets_u])

    @partial(jax.value_and_grad, has_aux=True)
    def hard(logits):
        rows = losses.balanced_softmax(logits, case["labels_x"], counts)
        return rows.mean(), rows

    @partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
    def both(x, u, counts):
        z, prior = jnp.concatenate([x, u]), losses.log_prior(counts)
        terms = mixmatch.terms(z, targets, len(x), prior)
        return terms.ce + 3 * terms.mse, terms

    (value, rows), grad = jax.jit(hard)(x)
    equal(rows, case["hard_loss_per_sample_f64"])
    equal(value, case["hard_loss_f64"])
    equal(grad, case["hard_grad_f64"])
    both = jax.jit(both)
    (_, terms), grads = both(x, u, counts)
    equal(terms.ce, case["semi_Lx_f64"])
    equal(terms.mse, case["semi_Lu_f64"])
    equal(terms.ce, case["soft_loss_webvision_f64"])
    equal(grads[0], case["semi_grad_x_f64"])
    equal(grads[1], case["semi_grad_u_times3_f64"])
    # The authors' loss is infinite where a class is empty; ours counts one.
    (_, clipped), _ = both(x, u, emptied)
    assert np.isfinite(clipped).all()
    (_, terms), _ = both(x, u, np.maximum(emptied, 1))
    equal(clipped, terms)


@golden("sfa_balanced_loss")
def test_warmup_loss(case):
    warmup = method("sfa:cifar10", labels_of(case["class_counts"])).phase(0)
    x = typed.stream((None,), case["labels_x"])
    logits = case.jnp("logits_x", "warmup_logits2")
    params = dict(zip(("logits", "balanced"), logits, strict=True))
    (total, terms), grads = loss_and_grads(warmup.loss, params, x)
    equal(terms["loss_ce"], case["warmup_ce"])
    equal(terms["loss_balanced_ce"], case["warmup_balanced"])
    equal(total, case["warmup_total"])
    equal(grads["logits"], case["warmup_grad1"])
    equal(grads["balanced"], case["warmup_grad2"])


# Evaluation and data ---------------------------------------------------------


@golden("sfa_test_ensemble")
def test_ensemble(case):
    heads = {"logits": "standard", "balanced": "balanced"}
    outputs = [
        {head: case[f"logits_net{n}_{name}"] for head, name in heads.items()}
        for n in (1, 2)
    ]
    targets = case["targets"]
    num_classes = outputs[0]["logits"].shape[1]
    made = method("sfa:cifar10", targets, num_classes=num_classes)
    scores = made.predict(outputs, None)
    np.testing.assert_array_equal(scores.argmax(-1), case["predictions"])
    got = metrics.test_metrics(scores, targets, np.ones(num_classes))
    equal(100 * got["test_accuracy"], case["accuracy_percent"])
    per_class = np.round(100 * np.array(got["accuracy_per_class"]), 2)
    equal(per_class, case["per_class_accuracy_percent"])


@golden("sfa_data")
@pytest.mark.parametrize("mode, kind", [("imb", "joint"), ("sym", "sym_excl")])
def test_noisy_set(case, mode, kind, tmp_path):
    """The whole of load, on 1x1 images in the order of the vector."""
    labels = case["small_targets"]
    classes = int(labels.max()) + 1
    images = np.zeros((len(labels), 1, 1, 3), np.uint8)
    path = tmp_path / "small.npz"
    np.savez(
        path,
        train_images=images,
        train_labels=labels,
        test_images=images[:classes],
        test_labels=np.arange(classes),
    )
    rate = float(case["small_noise_ratio"])
    built = load.dataset(
        fakes.config(
            "npz",
            seed=int(case["seed"]),
            data_seed=int(case["seed"]),
            path=path,
            imb=float(case["small_imb_factor"]),
            n_max=len(labels) // classes,
            noise=kind,
            rate=rate,
        )
    )
    kept = case[f"{mode}_selected_index"]
    order = np.argsort(kept)
    np.testing.assert_array_equal(built.train.ids, kept[order])
    clean, noisy = case[f"{mode}_clean"], case[f"{mode}_noisy"]
    np.testing.assert_array_equal(built.train.true_labels, clean[order])
    np.testing.assert_array_equal(built.train.labels, noisy[order])
    np.testing.assert_array_equal(
        built.true_counts, case[f"{mode}_counts_clean"]
    )
    np.testing.assert_array_equal(
        built.given_counts, case[f"{mode}_counts_noisy"]
    )
    changed = built.train.labels != built.train.true_labels
    assert changed.sum() == int(rate * len(kept))


@golden("sfa_data")
def test_joint_transition(case):
    rate = float(case["small_noise_ratio"])
    tables = [(rate, case["imb_counts_clean"], case["imb_transition"])]
    for key, matrix in case.group("imb_transition_c").items():
        classes, _, factor, rate = key.split("_")
        counts = case[f"counts_c{classes}_exp_{factor}"]
        tables.append((float(rate.removeprefix("r")), counts, matrix))
    for rate, counts, matrix in tables:
        got = noise.transition("joint", rate, len(counts), counts=counts)
        whole = (1 - rate) * np.eye(len(counts)) + rate * got
        equal(whole, matrix, rtol=1e-12, atol=1e-15)


@golden("sfa_data")
def test_schedules(case):
    for name, arg in (("cifar", "cifar10"), ("webvision", "webvision")):
        made = method(f"sfa:{arg}", range(10))
        (table,) = case.group(f"lr_{name}_epoch1_to_").values()
        assert made.config.epochs == len(table)
        rates = [made.learning_rate(e) for e in range(len(table))]
        equal(rates, table, rtol=1e-12)
        if name == "cifar":
            assert made.phase(29).name == "warmup"
            assert made.phase(30).name == "semi"
    for classes, start, key in (
        (10, 31, "threshold_c10_epoch31_to_"),
        (50, 1, "threshold_webvision_epoch1_to_"),
    ):
        (table,) = case.group(key).values()
        got = [
            selection.growing_threshold(start + i, classes, made.options.phi)
            for i in range(len(table))
        ]
        equal(got, table, rtol=1e-12)
