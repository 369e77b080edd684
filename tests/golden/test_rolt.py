"""RoLT's centroids, label cleaning, soft labels, schedule; RoLT+'s division."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxnlt import losses, selection
from jaxnlt.data import imbalance, noise
from jaxnlt.methods import rolt
from tests import typed
from tests.golden import methods
from tests.golden.cases import golden
from tests.golden.precision import near
from tests.golden.scripted import loss_and_grads, spy

method = partial(methods.method, "rolt:cifar10,as_released")


def in_range(got, low, high):
    """Within what the seeds of the mixture's start span."""
    assert (got >= low - 2e-3).all() and (got <= high + 2e-3).all()


@golden("rolt_knn_centroids")
def test_centroids(case):
    features, labels = case["features"], case["labels"]
    classes = len(case["all_centroid_cl2ncs"])
    # Training takes cl2n only; the others are the same functions on other
    # rows.
    kinds = {
        "un": features.astype(np.float64),
        "l2n": selection.centred_unit(features, np.zeros_like(features[0])),
        "cl2n": selection.centred_unit(features),
    }
    masks = {"all": np.ones(len(labels), bool), "masked": case["mask"]}
    for name, mask in masks.items():
        centre = case[f"{name}_centroid_mean"]
        near(features.mean(0), centre)
        for kind, rows in kinds.items():
            means, _ = selection.class_means(rows, labels, classes, mask)
            expected = case[f"{name}_centroid_{kind}cs"]
            near(means, expected)
            scores = selection.nearest_scores(rows, means)
            expected = case[f"{name}_logits_{kind}_l2"]
            rtol = 1e-4 if kind == "un" else 0
            np.testing.assert_allclose(scores, expected, rtol, 1e-5)
            none = np.zeros(classes, bool)
            scores = rolt.scores(rows, means, none, "product")
            near(scores, case[f"{name}_logits_{kind}_cos"])
    # The release's table is too short where a class is absent; here its row
    # is there, and no sample is near it.
    expected = case["absent_class1_centroid_cl2ncs"]
    here = labels != 1
    found = rolt.nearest(features[here], labels[here], classes)
    assert np.isfinite(found.refined).all()
    assert (found.refined.argmax(1) != 1).all()
    rows = selection.centred_unit(features[here])
    everyone = np.ones(here.sum(), bool)
    means, _ = selection.class_means(rows, labels[here], classes, everyone)
    present = np.arange(classes) != 1
    near(means[present], expected)
    # NaN there where the mask empties a class; zeros here.
    expected = case["empty_mask_lastclass_centroid_cl2ncs"]
    mask = case["mask"] & (labels != classes - 1)
    rows = selection.centred_unit(features)
    means, _ = selection.class_means(rows, labels, classes, mask)
    near(means, np.nan_to_num(expected))


@golden("rolt_plus_select")
def test_co_divide(case, monkeypatch):
    labels = case["labels"]
    classes = case["logits"].shape[1]
    out = {"logits": case["logits"], "features": case["features"]}
    fitted = spy(monkeypatch, selection, "gmm_probability")
    for basis in ("loss", "dist"):
        for per_class in (True, False):
            made = methods.method(
                "rolt:cifar10,plus=True",
                labels,
                num_classes=classes,
                basis=basis,
                per_class=per_class,
            )
            selector, rng = made.semi.selector, np.random.default_rng(0)
            memory = selector.init_memory()
            chosen, _ = selector.select([out], 0, made.data, memory, 60, rng)
            if basis == "loss" and not per_class:
                values = fitted[-1][0][0]
                expected = case["loss_norm_global"]
                near(values, expected)
            name = f"{basis}_{'perclass' if per_class else 'global'}_prob"
            bounds = [case[f"{name}_{m}_over_seeds"] for m in ("min", "max")]
            in_range(chosen.clean_probability, *bounds)
            low, high = (bound > 0.5 for bound in bounds)
            picked = np.isin(np.arange(len(labels)), chosen.labelled)
            sure = low == high
            np.testing.assert_array_equal(picked[sure], low[sure])
    found = rolt.nearest(case["features"], labels, classes)
    first = case["dist_first_ncm_logits"]
    near(found.first, first)
    np.testing.assert_array_equal(found.mask, case["dist_mask"])
    near(found.centroids, case["dist_refined_centroids"])
    near(found.refined, case["dist_refined_ncm_logits"])


@golden("rolt_label_cleaning")
def test_label_cleaning(case, monkeypatch):
    """All calls in order; each variant's soft labels and batch loss.

    Samples whose side depends on the mixture's start take the stored side
    before labels are made of it, so that everything is always compared.
    """
    labels, rows = case["noisy_labels"], case["batch_index"]
    classes = case["logits"].shape[2]
    eye = np.eye(classes)
    monkeypatch.setattr(losses, "cosines", lambda features, kernel: features)
    own, sides = rolt.own_class_probability, {}
    found = spy(monkeypatch, rolt, "nearest")

    def settled(ncm, labels, num_classes):
        """The stored side where the seeds do not agree."""
        clean = own(ncm, labels, num_classes)
        if not found or ncm is not found[-1][1].refined:
            return clean  # of the scores before refinement
        sure = ~sides["ambiguous"]
        np.testing.assert_array_equal(clean[sure] > 0.5, sides["clean"][sure])
        return np.where(sure, clean, sides["clean"])

    monkeypatch.setattr(rolt, "own_class_probability", settled)
    variants = {p.partition("_e")[0] for p in case.prefixes("_soft_label")}
    calls = case["epochs"], case["features"], case["logits"]
    for variant in sorted(variants):
        loss = variant.removesuffix("_drw")
        fields = {"drw": variant != loss, "loss": loss}
        made = method(labels, num_classes=classes, **fields)
        selector = made.train.selector
        memory = selector.init_memory()
        for e, features, logits in zip(*calls, strict=True):
            if loss == "ldam":  # the head gives cosines times the length
                length = np.linalg.norm(features, axis=1, keepdims=True)
                logits = logits * length
            out = {"features": features, "logits": logits}
            sides |= case.group(f"e{e}_mask_")
            chosen, memory = selector.select(
                [out], 0, made.data, memory, int(e) - 1, None
            )
            refined = found[-1][1].refined
            expected = case[f"e{e}_refined_ncm_logits"]
            near(refined, expected)
            trusted = np.isin(np.arange(len(labels)), chosen.labelled)
            for name in ("erm", "ncm"):
                stored = case[f"e{e}_ensemble_{name}_logits"]
                near(getattr(memory, name), stored, atol=1e-4)
                guess = getattr(memory, name).argmax(1)
                np.testing.assert_array_equal(guess, case[f"e{e}_{name}_pred"])
            np.testing.assert_array_equal(trusted, sides["clean"])

            tag = f"{variant}_e{e}_"
            per_sample, shares = chosen.per_sample, chosen.shared.shares
            uniform = np.where(
                per_sample.soft[:, None], 1 / classes, eye[labels]
            )
            soft = (
                shares[0] * eye[per_sample.first]
                + shares[1] * eye[per_sample.second]
                + shares[2] * eye[labels]
                + shares[3:].sum() * uniform
            )
            near(soft, case[tag + "soft_label"], atol=1e-7)
            counts = case[tag + "current_label_counts"]
            np.testing.assert_array_equal(chosen.counts, counts)
            if variant != loss and int(e) > made.options.drw_start:
                expected = case[f"{variant}_drw_class_weights_from_161"]
                weights = chosen.shared.class_weights
                near(weights, expected, rtol=1e-6, atol=0)
            x = typed.stream(
                (None,),
                jnp.asarray(labels[rows]),
                per_sample=jax.tree.map(lambda v: v[rows], per_sample),
            )
            division = typed.division(
                chosen.counts, shared=jax.tree.map(jnp.asarray, chosen.shared)
            )
            ldam = loss == "ldam"
            head = "features" if ldam else "logits"
            kind = "batch_cosine_logits" if ldam else "batch_logits"
            params = {"logits": {"kernel": jnp.zeros((1, 1))}}
            params[head] = jnp.asarray(case[kind])
            (value, _), grads = loss_and_grads(made.loss, params, x, division)
            near(value, case[tag + "batch_loss"], rtol=1e-5, atol=0)
            near(grads[head], case[tag + "batch_grad"], rtol=1e-5)


@golden("rolt_ldam_drw")
def test_learning_rate(case):
    made, expected = method(range(3)), case["lr_epoch1_to_200"]
    rates = [made.learning_rate(e) for e in range(len(expected))]
    near(rates, expected, rtol=1e-12, atol=0)
    at_first = made.learning_rate(-1)
    near(at_first, case["lr_at_construction"], rtol=1e-7, atol=0)


@golden("rolt_data")
def test_subset_and_noise(case):
    """The noise of the published runs."""
    targets, seed = case["targets"], int(case["seed"])
    classes, rate = targets.max() + 1, float(case["noise_ratio"])
    sizes = imbalance.class_counts(
        np.bincount(targets).max(), classes, float(case["imb_factor"])
    )
    modes = {"sym": "sym_excl", "imb": "joint", "new": "joint_any"}
    for mode, kind in modes.items():
        arrays = case.group(f"{mode}_")
        rng = np.random.RandomState(seed)
        kept, _ = imbalance.draw_subset(targets, sizes, rng)
        rows = np.concatenate(kept)
        clean = targets[rows]
        counts = np.bincount(clean, minlength=classes)
        noisy = noise.draw(kind, clean, classes, rate, seed, rng)
        for name, found in (
            ("selected_index", rows),
            ("clean", clean),
            ("counts_clean", counts),
            ("noisy", noisy),
            ("counts_noisy", np.bincount(noisy, minlength=classes)),
        ):
            np.testing.assert_array_equal(found, arrays[name], name)
        if mode == "sym":
            continue  # its matrix: test_data.py
        share = rate
        if mode == "new":
            share = noise.redrawn_share(rate, counts)
            near(share, arrays["touched_fraction"], rtol=1e-12, atol=0)
        drawn = noise.transition(kind, rate, classes, counts=counts)
        expected = (1 - share) * np.eye(classes) + share * drawn
        near(expected, arrays["transition"], atol=1e-12)
