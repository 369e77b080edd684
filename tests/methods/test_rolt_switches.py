"""RoLT's and RoLT+'s switches: selection on views, re-weighting, the ramp."""

import jax.numpy as jnp
import numpy as np
import pytest

from configs import rolt as rolt_config
from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.config import base as config_lib
from jaxnlt.losses.mixmatch import MixupDraws
from jaxnlt.methods import rolt, rolt_plus
from jaxnlt.runtime.errors import UserError
from tests import runs, typed
from tests.golden.precision import PRECISIONS, precision
from tests.methods import toy

# Field -> (default, as released).
TABLE = {
    "rolt.ensembling": ("standard", "compounding"),
    "rolt.clean_on": ("eval", "augmented"),
    "rolt.last_batch": ("filled", "dropped"),
}
# Class 2 is rare; class 1 of three is half as large as class 0.
LABELS = np.array([0, 1, 2, 0, 1, 0, 0], np.int32)
INFO = base.DataInfo(LABELS, toy.CLASSES)


@pytest.mark.parametrize("benchmark", ["digits", "cifar10"])
@pytest.mark.parametrize(
    "text, expected", [("", TABLE), (",loss=ldam", TABLE), (",plus", {})]
)
def test_as_released_sets_the_table_s_values_and_no_other(
    benchmark, text, expected
):
    ours, released = (
        config_lib.flatten(
            rolt_config.get_config(f"{benchmark}{text}{more}").to_dict()
        )
        for more in ("", ",as_released")
    )
    changed = {
        name: (ours[name], released[name])
        for name in ours
        if ours[name] != released[name]
    }
    assert changed == expected


# Selection on views -----------------------------------------------------------


@pytest.mark.parametrize("arg, view", [("", "none"), (",as_released", "weak")])
def test_selection_looks_at_the_view_asked_for(arg, view):
    phase = rolt.Method(runs.tiny("rolt", f"digits{arg}"), INFO).train
    assert phase.pool_view == view and not phase.pool_train


def test_as_released_runs_and_resumes(tmp_path, caplog):
    fields = {"max_steps": 2}
    config = runs.tiny("rolt", "digits,as_released,epochs=3", **fields)
    train.run(config, tmp_path / "run")
    assert all(np.isfinite(r["loss"]) for r in runs.records(tmp_path / "run"))
    runs.check_resume(config, tmp_path / "run")
    # RoLT has no unlabelled terms that could weigh nothing.
    assert "unlabelled terms" not in caplog.text


# RoLT+: ramp and deferred re-weighting ---------------------------------------


def plus(**options):
    config = rolt_config.get_config("digits,plus")
    with config.unlocked():
        config.rolt_plus.update(options)
    return rolt_plus.Method(config, INFO)


def semi_terms(method, epoch, dtype=np.float32):
    rng = np.random.default_rng(1)

    def views(rows):
        shape = (rows, toy.FEATURES)
        return tuple(jnp.asarray(rng.normal(size=shape), dtype) for _ in "12")

    labels, weights = jnp.asarray(LABELS[:4]), jnp.full(4, 0.8, dtype)
    found = method.semi_loss(
        base.Net(toy.apply, [], toy.variables(1)),
        toy.variables(0)["params"],
        typed.batch(
            jnp.asarray(epoch, dtype),
            jnp.asarray(0, dtype),
            x=typed.stream(views(4), labels, weights),
            u=typed.stream(views(3)),
        ),
        MixupDraws(0.7, jnp.arange(14)[::-1]),
        typed.division(None, 4.0, 3.0),
        (),
    )
    assert np.isfinite(found.loss)
    return float(found.loss), {k: float(v) for k, v in found.terms.items()}


def test_the_ramp_starts_at_a_sixteenth():
    method = plus(ramp=16.0, warmup=5)
    ramp = [semi_terms(method, e)[1]["lambda_u"] for e in (5, 6, 20, 21)]
    np.testing.assert_allclose(ramp, [25 / 16, 25 / 8, 25, 25])


@PRECISIONS
def test_weights_of_the_classes_from_their_epoch_on(dtype, monkeypatch):
    rows, cross_entropy = [], rolt_plus.losses.cross_entropy

    def spy(logits, targets):
        rows.append(cross_entropy(logits, targets))
        return rows[-1]

    with precision(dtype):
        off, early, late = plus(), plus(drw_start=9.0), plus(drw_start=8.0)
        plain, terms = semi_terms(off, 8, dtype)
        np.testing.assert_allclose(
            semi_terms(early, 8, dtype)[0], plain, rtol=1e-6
        )
        monkeypatch.setattr(rolt_plus.losses, "cross_entropy", spy)
        total, deferred = semi_terms(late, 8, dtype)
    # The release: (1 - b) / (1 - b^n) of all given labels, of mean 1.
    weights = (1 - 0.9999) / (1 - 0.9999 ** np.bincount(LABELS))
    weights = np.tile((weights * 3 / weights.sum())[LABELS[:4]], 2)
    values = np.asarray(rows[-1], np.float64)
    assert values.shape == (8,)
    expected = (weights * values).sum() / weights.sum()
    np.testing.assert_allclose(deferred["loss_ce"], expected, rtol=1e-6)
    assert abs(expected - terms["loss_ce"]) > 1e-3
    # No other term is weighed.
    terms["loss_ce"] = deferred["loss_ce"]
    assert terms == deferred
    np.testing.assert_allclose(
        total - plain, deferred["loss_ce"] - values.mean(), atol=1e-5
    )


def test_weights_stay_finite_where_a_class_is_absent():
    info = base.DataInfo(np.zeros(7, np.int32), toy.CLASSES)
    config = plus(drw_start=1.0, drw_beta=0.0).config
    for beta in (0.0, 0.9999):
        with config.unlocked():
            config.rolt_plus.drw_beta = beta
        assert semi_terms(rolt_plus.Method(config, info), 8)


@pytest.mark.parametrize(
    "field, value",
    [
        ("basis", "toss"),
        ("drw_start", -1.0),
        ("drw_beta", 1.0),
        ("drw_beta", -0.1),
    ],
)
def test_bad_fields_are_refused(field, value):
    with pytest.raises(UserError, match=f"^config.rolt_plus.{field}: "):
        plus(**{field: value})


def test_epochs_scale_the_start_and_never_stays_never():
    starts = {
        text: rolt_config.get_config(f"cifar10,plus{text}").rolt_plus.drw_start
        for text in ("", ",epochs=30")
    }
    assert starts == {"": 0, ",epochs=30": 0}


def test_re_weighting_runs_and_resumes(tmp_path):
    config = runs.tiny(
        "rolt_plus",
        "digits,epochs=4",
        **{
            "max_steps": 2,
            "rolt_plus.warmup": 1,
            "rolt_plus.drw_start": 2.0,
        },
    )
    train.run(config, tmp_path / "run")
    rows = runs.records(tmp_path / "run")
    assert [r["phase"] for r in rows] == ["warmup"] + ["semi"] * 3
    assert all(np.isfinite(r["loss"]) for r in rows)
    runs.check_resume(config, tmp_path / "run")
