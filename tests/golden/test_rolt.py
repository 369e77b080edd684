"""RoLT's centroids, label cleaning, soft labels, schedule; RoLT+'s division."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import rolt as rolt_config
from jaxnlt import losses, selection
from jaxnlt import method as base
from jaxnlt.data import imbalance, noise
from jaxnlt.methods import rolt, rolt_plus
from tests import typed
from tests.golden.cases import golden
from tests.golden.scripted import spy

CLOSE = dict(rtol=0, atol=1e-5)


def config(arg="cifar10,as_released", **fields):
    made = rolt_config.get_config(arg)
    with made.unlocked():
        made.update_from_flattened_dict(fields)
    return made


def in_range(got, low, high):
    """Within what the seeds of the mixture's start span."""
    assert (got >= low - 2e-3).all() and (got <= high + 2e-3).all()


@golden("rolt_knn_centroids")
def test_centroids(case):
    features, labels = case["features"], case["labels"]
    classes = len(case["all_centroid_cl2ncs"])
    # Training takes cl2n only; the others are the same functions on other
    # rows.  The release's cos, a product over D, nothing here computes.
    kinds = {
        "un": features.astype(np.float64),
        "l2n": selection.centred_unit(features, np.zeros_like(features[0])),
        "cl2n": selection.centred_unit(features),
    }
    masks = {"all": np.ones(len(labels), bool), "masked": case["mask"]}
    for name, mask in masks.items():
        centre = case[f"{name}_centroid_mean"]
        np.testing.assert_allclose(features.mean(0), centre, **CLOSE)
        for kind, rows in kinds.items():
            means, _ = selection.class_means(rows, labels, classes, mask)
            expected = case[f"{name}_centroid_{kind}cs"]
            np.testing.assert_allclose(means, expected, **CLOSE)
            scores = selection.nearest_scores(rows, means)
            expected = case[f"{name}_logits_{kind}_l2"]
            rtol = 1e-4 if kind == "un" else 0
            np.testing.assert_allclose(scores, expected, rtol, 1e-5)
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
    np.testing.assert_allclose(means[present], expected, **CLOSE)
    # NaN there where the mask empties a class; zeros here.
    expected = case["empty_mask_lastclass_centroid_cl2ncs"]
    mask = case["mask"] & (labels != classes - 1)
    rows = selection.centred_unit(features)
    means, _ = selection.class_means(rows, labels, classes, mask)
    np.testing.assert_allclose(means, np.nan_to_num(expected), **CLOSE)


@golden("rolt_plus_select")
def test_co_divide(case, monkeypatch):
    labels = case["labels"]
    classes = case["logits"].shape[1]
    info = base.DataInfo(labels, classes)
    out = {"logits": case["logits"], "features": case["features"]}
    fitted = spy(monkeypatch, selection, "gmm_probability")
    for basis in ("loss", "dist"):
        for per_class in (True, False):
            made = config(
                "cifar10,plus=True",
                **{"rolt_plus.basis": basis, "rolt_plus.per_class": per_class},
            )
            selector = rolt_plus.Method(made, info).semi.selector
            chosen, _ = selector.select(
                [out], 0, info, (), 60, np.random.default_rng(0)
            )
            if basis == "loss" and not per_class:
                values = fitted[-1][0][0]
                expected = case["loss_norm_global"]
                np.testing.assert_allclose(values, expected, **CLOSE)
            name = f"{basis}_{'perclass' if per_class else 'global'}_prob"
            bounds = [case[f"{name}_{m}_over_seeds"] for m in ("min", "max")]
            in_range(chosen.clean_probability, *bounds)
            low, high = (bound > 0.5 for bound in bounds)
            picked = np.isin(np.arange(len(labels)), chosen.labelled)
            sure = low == high
            np.testing.assert_array_equal(picked[sure], low[sure])
    found = rolt.nearest(case["features"], labels, classes)
    first = case["dist_first_ncm_logits"]
    np.testing.assert_allclose(found.first, first, **CLOSE)
    np.testing.assert_array_equal(found.mask, case["dist_mask"])
    np.testing.assert_allclose(
        found.centroids, case["dist_refined_centroids"], **CLOSE
    )
    np.testing.assert_allclose(
        found.refined, case["dist_refined_ncm_logits"], **CLOSE
    )


def epochs_of(case):
    """Epochs of the calls, as the release counts them, with their arrays."""
    return zip(case["epochs"], case["features"], case["logits"], strict=True)


def scored(case, logits):
    """A network that gives stored logits, or cosines, as they are."""

    def apply(variables, images, heads, train):
        return dict.fromkeys(heads, variables["params"]["stored"]), {}

    params = {"stored": logits, "logits": {"kernel": jnp.zeros((1, 1))}}
    return base.Net(apply, {}, None), params


@golden("rolt_label_cleaning")
def test_label_cleaning(case, monkeypatch):
    """All calls in order; each variant's soft labels and batch loss.

    Samples whose side depends on the mixture's start take the stored side
    before labels are made of it, so that everything is always compared.
    """
    labels, rows = case["noisy_labels"], case["batch_index"]
    classes = case["logits"].shape[2]
    info = base.DataInfo(labels, classes)
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
    variants = {
        key.partition("_e")[0] for key in case.keys() if "_soft_label" in key
    }
    assert variants
    for variant in sorted(variants):
        loss = variant.removesuffix("_drw")
        fields = {"rolt.drw": variant != loss, "rolt.loss": loss}
        method = rolt.Method(config(**fields), info)
        selector = method.train.selector
        memory = selector.init_memory()
        for e, features, logits in epochs_of(case):
            if loss == "ldam":  # the head gives cosines times the length
                length = np.linalg.norm(features, axis=1, keepdims=True)
                logits = logits * length
            out = {"features": features, "logits": logits}
            sides |= case.group(f"e{e}_mask_")
            chosen, memory = selector.select(
                [out], 0, info, memory, int(e) - 1, None
            )
            refined = found[-1][1].refined
            expected = case[f"e{e}_refined_ncm_logits"]
            np.testing.assert_allclose(refined, expected, **CLOSE)
            trusted = np.isin(np.arange(len(labels)), chosen.labelled)
            for name in ("erm", "ncm"):
                stored = case[f"e{e}_ensemble_{name}_logits"]
                np.testing.assert_allclose(
                    getattr(memory, name), stored, rtol=0, atol=1e-4
                )
                guess = getattr(memory, name).argmax(1)
                np.testing.assert_array_equal(guess, case[f"e{e}_{name}_pred"])
            np.testing.assert_array_equal(trusted, sides["clean"])

            tag = f"{variant}_e{e}_"
            per_sample, shares = chosen.per_sample, chosen.shared.shares
            eye = np.eye(classes)
            uniform = np.where(
                per_sample.soft[:, None], 1 / classes, eye[labels]
            )
            soft = (
                shares[0] * eye[per_sample.first]
                + shares[1] * eye[per_sample.second]
                + shares[2] * eye[labels]
                + shares[3:].sum() * uniform
            )
            expected = case[tag + "soft_label"]
            np.testing.assert_allclose(soft, expected, atol=1e-7)
            counts = case[tag + "current_label_counts"]
            np.testing.assert_array_equal(chosen.counts, counts)
            if variant != loss and int(e) > method.options.drw_start:
                np.testing.assert_allclose(
                    chosen.shared.class_weights,
                    case[f"{variant}_drw_class_weights_from_161"],
                    rtol=1e-6,
                )
            kind = "batch_cosine_logits" if loss == "ldam" else "batch_logits"
            x = typed.stream(
                (None,),
                jnp.asarray(labels[rows]),
                per_sample=jax.tree.map(lambda v: v[rows], per_sample),
            )
            division = typed.division(
                chosen.counts, shared=jax.tree.map(jnp.asarray, chosen.shared)
            )

            def objective(z, method=method, x=x, division=division):
                net, params = scored(case, z)
                batch = typed.batch(x=x)
                return method.loss(net, params, batch, (), division, ()).loss

            value, grad = jax.value_and_grad(objective)(jnp.asarray(case[kind]))
            np.testing.assert_allclose(
                value, case[tag + "batch_loss"], rtol=1e-5
            )
            np.testing.assert_allclose(
                grad, case[tag + "batch_grad"], rtol=1e-5, atol=1e-5
            )


@golden("rolt_ldam_drw")
def test_learning_rate(case):
    info = base.DataInfo(np.arange(3), 3)
    method = rolt.Method(config(), info)
    expected = case["lr_epoch1_to_200"]
    rates = [method.learning_rate(e) for e in range(len(expected))]
    np.testing.assert_allclose(rates, expected, rtol=1e-12)
    at_first = method.learning_rate(-1)
    np.testing.assert_allclose(at_first, case["lr_at_construction"])


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
        np.testing.assert_array_equal(rows, arrays["selected_index"])
        clean = targets[rows]
        np.testing.assert_array_equal(clean, arrays["clean"])
        counts = np.bincount(clean, minlength=classes)
        np.testing.assert_array_equal(counts, arrays["counts_clean"])
        noisy = noise.draw(kind, clean, classes, rate, seed, rng)
        np.testing.assert_array_equal(noisy, arrays["noisy"])
        noisy_counts = np.bincount(noisy, minlength=classes)
        np.testing.assert_array_equal(noisy_counts, arrays["counts_noisy"])
        if mode == "sym":
            continue  # its matrix: test_data.py
        share = rate
        if mode == "new":
            share = noise.redrawn_share(rate, counts)
            touched = arrays["touched_fraction"]
            np.testing.assert_allclose(share, touched, rtol=1e-12)
        drawn = noise.transition(kind, rate, classes, counts=counts)
        expected = (1 - share) * np.eye(classes) + share * drawn
        matrix = arrays["transition"]
        np.testing.assert_allclose(expected, matrix, atol=1e-12)
