"""Every method and its variants: a short run, and its resumption."""

import importlib
import pkgutil
from types import SimpleNamespace

import numpy as np
import pytest

import jaxnlt.methods
from jaxnlt import method as base
from jaxnlt import train
from jaxnlt.runtime.errors import UserError
from tests import runs

METHODS = sorted(runs.methods())

# Terms, in a method's last epoch, of losses that few methods have.
OWN_TERMS = {
    "dasc": ("loss_balanced_mse", "loss_contrast"),
    "sfa": ("loss_balanced_mse",),
    "unicon": ("loss_contrast",),
}
# Name -> method, keys and fields.
VARIANTS = {
    "mixup": ("erm", ",smoke,loss=mixup,num_nets=2,view=strong", {}),
    "crt": ("erm", ",loss=elr,second=crt,epochs=3", {}),
    "tau_norm": ("erm", ",second=tau_norm,epochs=2", {}),
    "ldam_drw": ("erm", ",loss=ldam_drw,epochs=3", {}),
    "rolt_ncm": ("rolt", ",loss=ldam,epochs=3", {"rolt.vote_by": "ncm"}),
    "rolt_released": ("rolt", ",as_released,epochs=3", {}),
    "rolt_plus_drw": (
        "rolt_plus",
        ",epochs=4",
        {
            "rolt_plus.warmup": 1,
            "rolt_plus.drw_start": 2.0,
            "rolt_plus.basis": "loss",
        },
    ),
    "unicon_released": (
        "unicon",
        ",as_released,epochs=3",
        {"unicon.warmup": 1},
    ),
}
# Those of other losses than erm's compile for long.
PARAMS = [
    pytest.param(name, marks=() if method == "erm" else pytest.mark.slow)
    for name, (method, *_) in VARIANTS.items()
]


@pytest.fixture(scope="module", params=[*METHODS, *PARAMS])
def finished(request, tmp_path_factory):
    """A run of every phase; of a plain method what it kept is used."""
    smoke = request.param, ",smoke", {}
    name, text, fields = VARIANTS.get(request.param, smoke)
    config = runs.tiny(name, f"digits{text}", max_steps=2, **fields)
    options = config[config.method]
    seen, make = [], train.Trainer

    def remember(*args):
        seen.append(make(*args))
        return seen[0]

    with pytest.MonkeyPatch.context() as patch, config.unlocked():
        if "average_losses" in options:
            options.average_losses = 2
        method = base.create(config, base.DataInfo(np.arange(10), 10))
        names = [method.phase(e).name for e in range(config.epochs)]
        if text == ",smoke" and names.count(names[-1]) < 2:
            config.epochs += 1
        patch.setattr(train, "Trainer", remember)
        workdir = tmp_path_factory.mktemp(request.param) / "run"
        summary = train.run(config, workdir)
    return SimpleNamespace(
        config=config, workdir=workdir, summary=summary, method=seen[0].method
    )


def test_methods_are_the_files_of_the_folder():
    files = pkgutil.iter_modules(jaxnlt.methods.__path__)
    modules = (
        importlib.import_module(f"jaxnlt.methods.{f.name}") for f in files
    )
    names = [m.__name__.split(".")[-1] for m in modules if hasattr(m, "Method")]
    assert sorted(names) == METHODS


def test_smoke(finished):
    config, method = finished.config, finished.method
    assert type(method).__module__ == f"jaxnlt.methods.{config.method}"
    phases = [method.phase(epoch) for epoch in range(config.epochs)]
    rows = runs.records(finished.workdir)
    assert [r["phase"] for r in rows] == [p.name for p in phases]
    assert {p.name for p in phases} == {p.name for p in method.phases()}
    assert finished.summary["epochs"] == config.epochs
    assert finished.summary["networks_voting"] == method.num_nets
    assert (finished.workdir / "report.html").exists()
    for row, phase in zip(rows, phases, strict=True):
        terms = {k: v for k, v in row.items() if k.startswith("loss")}
        assert "loss" in terms and np.isfinite([*terms.values()]).all()
        assert ("labelled" in row) == (phase.selector is not None)
        if phase.selector is not None:
            assert row["labelled"] > 0 and row["unlabelled"] > 0
            assert 0 <= row["clean_precision"] <= 1
    for term in OWN_TERMS.get(config.method, ()):
        assert rows[-1][term] > 0


def test_resumes_alike(finished):
    runs.check_resume(finished.config, finished.workdir)


@pytest.mark.parametrize("name", METHODS)
def test_no_batch_size_is_ignored(name):
    """What plain training would not read is refused where it was set."""
    config = runs.tiny(name, batch_size=8, warmup_batch_size=24)
    info = base.DataInfo(np.arange(10), 10)
    if name in ("erm", "h2e", "rolt"):
        with pytest.raises(UserError, match="config.warmup_batch_size: "):
            base.create(config, info)
        with config.unlocked():
            config.warmup_batch_size = 8
    method = base.create(config, info)
    streams = [
        phase.streams(base.trust_all(info), np.random.default_rng(0))
        for phase in method.phases()
    ]
    sizes = {rows.shape[1] for stream in streams for rows in stream.values()}
    assert set(method.batch_sizes) <= sizes
