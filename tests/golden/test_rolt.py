"""RoLT's centroids, label cleaning, soft labels, schedule; RoLT+'s division."""

import jax
import jax.numpy as jnp
import numpy as np

from configs import rolt as rolt_config
from jaxnlt import centroids, robust_losses
from jaxnlt.data import longtail, noise
from jaxnlt.methods import base, rolt, rolt_plus

from .cases import golden

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
    rows = centroids.centred_unit(features)
    masks = {"all": np.ones(len(labels), bool), "masked": case["mask"]}
    for name, mask in masks.items():
        centre = case[f"{name}_centroid_mean"]
        np.testing.assert_allclose(features.mean(0), centre, **CLOSE)
        means, _ = centroids.class_means(rows, labels, classes, mask)
        expected = case[f"{name}_centroid_cl2ncs"]
        np.testing.assert_allclose(means, expected, **CLOSE)
        scores = centroids.nearest_scores(rows, means)
        expected = case[f"{name}_logits_cl2n_l2"]
        np.testing.assert_allclose(scores, expected, **CLOSE)
    # The release's table is too short where a class is absent; here its row
    # is there, and no sample is near it.
    expected = case["absent_class1_centroid_cl2ncs"]
    here = labels != 1
    found = rolt.nearest(features[here], labels[here], classes)
    assert np.isfinite(found.refined).all()
    assert (found.refined.argmax(1) != 1).all()
    rows = centroids.centred_unit(features[here])
    everyone = np.ones(here.sum(), bool)
    means, _ = centroids.class_means(rows, labels[here], classes, everyone)
    present = np.arange(classes) != 1
    np.testing.assert_allclose(means[present], expected, **CLOSE)
    # NaN there where the mask empties a class; zeros here.
    expected = case["empty_mask_lastclass_centroid_cl2ncs"]
    mask = case["mask"] & (labels != classes - 1)
    rows = centroids.centred_unit(features)
    means, _ = centroids.class_means(rows, labels, classes, mask)
    np.testing.assert_allclose(means, np.nan_to_num(expected), **CLOSE)


@golden("rolt_plus_select")
def test_co_divide(case):
    labels = case["labels"]
    classes = case["logits"].shape[1]
    info = base.DataInfo(labels, classes)
    out = {"logits": case["logits"], "features": case["features"]}
    for basis in ("loss", "dist"):
        for per_class in (True, False):
            made = config(
                "cifar10,plus=True",
                **{"rolt_plus.basis": basis, "rolt_plus.per_class": per_class},
            )
            selector = rolt_plus.Method(made, info).semi.selector
            chosen, _ = selector.select(
                *([out], 0, info, {}, 60), np.random.default_rng(0)
            )
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
        return {head: variables["params"]["stored"] for head in heads}, {}

    params = {"stored": logits, "logits": {"kernel": None}}
    return base.Net(apply, {}, None), params


@golden("rolt_label_cleaning")
def test_label_cleaning(case, monkeypatch):
    """All calls in order; each variant's soft labels and batch loss."""
    labels, rows = case["noisy_labels"], case["batch_index"]
    classes = case["logits"].shape[2]
    info = base.DataInfo(labels, classes)
    monkeypatch.setattr(
        robust_losses, "cosines", lambda features, kernel: features
    )
    for variant in ("ce", "ce_drw", "ldam_drw"):
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
            chosen, memory = selector.select(
                [out], 0, info, memory, int(e) - 1, None
            )
            before = case[f"e{e}_refined_ncm_logits"]
            sure = ~case[f"e{e}_mask_ambiguous"]
            trusted = np.isin(np.arange(len(labels)), chosen.labelled)
            for name in ("erm", "ncm"):
                stored = case[f"e{e}_ensemble_{name}_logits"]
                np.testing.assert_allclose(
                    memory[name], stored, rtol=0, atol=1e-4
                )
                guess = memory[name].argmax(1)
                np.testing.assert_array_equal(guess, case[f"e{e}_{name}_pred"])
            found = rolt.nearest(features, labels, classes)
            np.testing.assert_allclose(found.refined, before, **CLOSE)
            mask = case[f"e{e}_mask_clean"]
            np.testing.assert_array_equal(trusted[sure], mask[sure])

            tag = f"{variant}_e{e}_"
            per_sample, shares = chosen.per_sample, chosen.shared["shares"]
            eye = np.eye(classes)
            uniform = np.where(
                per_sample["soft"][:, None], 1 / classes, eye[labels]
            )
            soft = (
                shares[0] * eye[per_sample["first"]]
                + shares[1] * eye[per_sample["second"]]
                + shares[2] * eye[labels]
                + shares[3:].sum() * uniform
            )
            same = trusted == mask
            np.testing.assert_allclose(
                soft[same], case[tag + "soft_label"][same], atol=1e-7
            )
            if same.all():
                np.testing.assert_array_equal(
                    chosen.counts, case[tag + "current_label_counts"]
                )
            if int(e) > 160 and variant != loss:
                np.testing.assert_allclose(
                    chosen.shared["class_weights"],
                    case[f"{variant}_drw_class_weights_from_161"],
                    rtol=1e-6,
                )
            if not same[rows].all():
                continue
            kind = "batch_cosine_logits" if loss == "ldam" else "batch_logits"
            batch = {
                "x": {
                    "views": (None,),
                    "labels": jnp.asarray(labels[rows]),
                    **{k: jnp.asarray(v[rows]) for k, v in per_sample.items()},
                }
            }
            shared = {k: jnp.asarray(v) for k, v in chosen.shared.items()}
            shared["counts"] = jnp.asarray(chosen.counts)

            def objective(z, method=method, batch=batch, shared=shared):
                net, params = scored(case, z)
                return method.loss(net, params, batch, {}, shared, {})[0]

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
    """The noise of the published runs; `new` is not among our kinds."""
    targets, seed = case["targets"], int(case["seed"])
    classes, rate = targets.max() + 1, float(case["noise_ratio"])
    sizes = longtail.class_counts(
        np.bincount(targets).max(), classes, float(case["imb_factor"])
    )
    for mode, kind in (("sym", "sym_excl"), ("imb", "joint")):
        arrays = case.group(f"{mode}_")
        rng = np.random.RandomState(seed)
        kept, _ = longtail.draw_subset(targets, sizes, rng)
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
    changed = noise.transition("joint", rate, classes, counts=counts)
    expected = (1 - rate) * np.eye(classes) + rate * changed
    np.testing.assert_allclose(case["imb_transition"], expected, atol=1e-12)
