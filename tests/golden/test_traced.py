"""What the golden tests pin is what training calls.

Each function is replaced by one that raises; tracing a training step, without
compiling it, selecting, scoring or loading must then fail.
"""

import importlib
import pathlib
import re

import pytest

from jaxnlt import policies

from . import stages

#: Stage -> what of jaxnlt it must call.
CALLS = {
    "dasc states": ["step.init_state"],
    "load nlt": [
        "data.longtail.class_counts",
        *(f"data.nlt.{f}" for f in ("noise_rates", "shares", "with_web")),
        *(f"data.nlt.{f}" for f in ("exchange", "cut_tail", "imagenet_nlt")),
    ],
    "h2e base": [
        *("losses.mixup_cross_entropy", "semi.mixup", "semi.mixup_draws"),
        *("irm.cosine_rate", "methods.h2e.Method.base_loss"),
        *("methods.h2e.Method.learning_rate", "step.update"),
    ],
    "h2e identify": [
        *("irm.log_prior", "irm.penalty", "irm.step_rate"),
        *("losses.cross_entropy", "samplers.class_weights"),
        *("samplers.drawn_classes", "samplers.independent"),
        "models.heads.Identifier.__call__",
        *(f"methods.h2e.Method.{f}" for f in ("enter", "environments")),
        "methods.h2e.Method.identify_loss",
        *("methods.base.Net.frozen", "h2e_parts.with_identifier"),
        "h2e_parts.ramp_since",
    ],
    "h2e robust": [
        *("irm.normalised_weighted_ce", "irm.instance_weights"),
        *("irm.cosine_rate", "methods.h2e.Method.robust_loss"),
        *("methods.h2e.Method.enter", "h2e_parts.at_rest"),
    ],
    "h2e select": [
        *("irm.class_prior", "irm.instance_weights", "irm.log_prior"),
        "methods.h2e.InstanceWeights.select",
    ],
    "h2e evaluate": ["methods.h2e.Method.predict", "metrics.test_metrics"],
    "sce train": ["robust_losses.symmetric_cross_entropy"],
    "gce train": ["robust_losses.generalised_cross_entropy"],
    "nce_rce train": [
        "active_passive.combined",
        "active_passive.normalised_cross_entropy",
        "active_passive.reverse_cross_entropy",
        "methods.erm.Method.loss",
    ],
    "dasc warmup": [
        "losses.cross_entropy",
        "losses.balanced_softmax",
        "losses.log_prior",
        "methods.base.Net.__call__",
        "step.update",
        "models.Network.apply",
        "models.preact_resnet.PreActBlock.__call__",
    ],
    "dasc warmup_contrast": [
        "losses.class_balanced_contrastive",
        "methods.base.fifo",
    ],
    "dasc semi": [
        "losses.class_balanced_contrastive",
        "losses.log_prior",
        "losses.brier",
        "losses.prior_penalty",
        "losses.info_nce",
        "losses.masked_mean",
        "semi.mean_probs",
        "semi.refine",
        "semi.sharpen",
        "semi.mixup",
        "semi.ramp",
        "semi.terms",
        "methods.dasc.confidence",
        "methods.base.fifo",
        "methods.dasc.Method.targets",
        "methods.dasc.Method.midl",
        "methods.dasc.Method.remember",
        "step.update",
        "step.variables",
        "step.prepare",
        "models.Network.apply",
    ],
    "dasc augmented": ["image_ops.apply_choices", "policies.resolve"],
    "dasc infer": ["models.Network.apply"],
    "dasc select": [
        "selection.dacc_threshold",
        "selection.dacc_scores",
        "selection.per_class_gmm",
        "selection.gmm_probability",
        "selection.labelled_weights",
    ],
    "dasc evaluate": ["metrics.test_metrics", "methods.dasc.Method.predict"],
    "dividemix warmup": [
        "losses.cross_entropy",
        "losses.negative_entropy",
        "methods.dividemix.given_label_loss",
        "methods.dividemix.Method.phase",
        "methods.dividemix.Method.warmup_loss",
        "methods.base.Method.learning_rate",
        "step.update",
    ],
    "dividemix semi": [
        "semi.two_view_targets",
        "semi.mixed_batch",
        "semi.ramp_time",
        "semi.mixup_draws",
        "semi.mean_probs",
        "semi.refine",
        "semi.sharpen",
        "semi.mixup",
        "semi.terms",
        "semi.ramp",
        "losses.prior_penalty",
        "losses.cross_entropy",
        "losses.brier",
        "methods.dividemix.Method.semi_loss",
        "methods.dividemix.Method.mixed_terms",
        "methods.base.Net.guess",
        "methods.base.Net.peer",
        "step.update",
    ],
    "dividemix select": [
        "selection.cross_entropy",
        "selection.min_max",
        "selection.gmm_probability",
        "selection.GaussianMixture",
        "methods.dividemix.divide",
        "methods.dividemix.LossGMM.select",
    ],
    "dividemix evaluate": [
        "metrics.test_metrics",
        "macro.confusion",
        "macro.macro_scores",
    ],
    "smr warmup": [
        "losses.mixup_cross_entropy",
        "semi.mixup",
        "semi.mixup_draws",
        "methods.smr.Method.phase",
        "methods.smr.Method.warmup_loss",
        "methods.base.Method.learning_rate",
        "step.update",
    ],
    "smr semi": [
        "semi.two_view_targets",
        "semi.mixed_batch",
        "semi.ramp",
        "semi.terms",
        "losses.prior_penalty",
        "methods.dividemix.Method.semi_loss",
        "step.update",
    ],
    "smr recalibration": [
        "methods.dividemix.given_label_loss",
        "methods.dividemix.Method.ce_loss",
        "step.update",
    ],
    "smr select": [
        "selection.cross_entropy",
        "selection.min_max",
        "selection.gmm_probability",
        "selection.GaussianMixture",
        "methods.dividemix.LossGMM.select",
    ],
    "sfa warmup": [
        "losses.cross_entropy",
        "losses.balanced_softmax",
        "methods.sfa.Method.warmup_loss",
        "methods.base.Method.learning_rate",
    ],
    "sfa semi": [
        "methods.sfa.Method.semi_loss",
        "methods.sfa.Method.mixed_terms",
        "losses.log_prior",
        "losses.prior_penalty",
        "semi.terms",
        "semi.two_view_targets",
        "semi.mixed_batch",
        "semi.mean_probs",
        "semi.refine",
        "semi.ramp",
        "semi.ramp_time",
    ],
    "sfa select": [
        "selection.dacc_threshold",
        "selection.softmax",
        "selection.min_max",
        "selection.per_class_gmm",
        "centroids.centred_unit",
        "centroids.class_means",
        "centroids.update_moments",
        "centroids.deviation",
        "centroids.sample_centroids",
        "centroids.nearest_scores",
        "centroids.class_distances",
        "methods.sfa.StochasticCentroids.select",
        "methods.sfa.StochasticCentroids.confident",
        "methods.sfa.StochasticCentroids.moments",
        "methods.sfa.StochasticCentroids.clean_probability",
    ],
    "sfa evaluate": ["methods.sfa.Method.predict", "metrics.test_metrics"],
    "tabasco select": [
        "divergences.kl",
        "divergences.jsd",
        "divergences.batched_mean",
        "divergences.confident_members",
        "divergences.weighted_jsd",
        "divergences.tabasco_scores",
        "divergences.confusable",
        "divergences.divide_class",
        "methods.tabasco.TwoScores.select",
        "methods.tabasco.TwoScores.scores",
        "methods.tabasco.TwoScores.divide_class",
        "selection.softmax",
        "selection.min_max",
        "centroids.centred_unit",
        "centroids.class_means",
    ],
    "unicon semi": [
        "uniform_selection.unlabelled_batch",
        "contrast.view_contrast",
        "semi.two_view_targets",
        "semi.mixed_batch",
        "semi.terms",
        "semi.ramp",
        "losses.prior_penalty",
        "methods.unicon.l2_normalise",
        "methods.unicon.Method.semi_loss",
        "methods.unicon.Method.learning_rate",
        "step.update",
    ],
    "unicon select": [
        "uniform_selection.disagreement",
        "uniform_selection.cutoff",
        "uniform_selection.select_uniform",
        "uniform_selection.refinement_weights",
        "divergences.jsd",
        "methods.unicon.UniformSelection.select",
    ],
    "ldam train": [
        "robust_losses.ldam",
        "robust_losses.ldam_margins",
        "robust_losses.cosines",
        "robust_losses.weighted_mean",
        "methods.erm.Method.loss",
    ],
    "ldam drw": [
        "robust_losses.ldam",
        "robust_losses.effective_weights",
        "methods.erm.Method.loss",
    ],
    "tau tau_norm": ["robust_losses.tau_normalised"],
    "rolt train": [
        "robust_losses.ldam",
        "robust_losses.ldam_margins",
        "robust_losses.cosines",
        "methods.rolt.soft_label_loss",
        "methods.rolt.Method.loss",
        "methods.rolt.Method.learning_rate",
    ],
    "rolt select": [
        "methods.rolt.nearest",
        "methods.rolt.own_class_probability",
        "methods.rolt.ensemble",
        "methods.rolt.Cleaning.select",
        "robust_losses.effective_weights",
        "selection.per_class_gmm",
        "centroids.centred_unit",
        "centroids.class_means",
        "centroids.nearest_scores",
    ],
    "rolt_plus select": [
        "methods.rolt.nearest",
        "methods.rolt.own_class_probability",
        "methods.rolt_plus.CoDivide.select",
    ],
    "load": [
        "data.longtail.class_counts",
        "data.longtail.draw_subset",
        "data.noise.draw",
        "data.noise.transition",
    ],
    "load flip": ["data.noise.transition"],
    "load asym": ["data.noise.asym_map"],
    "load joint_any": ["data.noise.redrawn_share", "data.noise.transition"],
}

PATCHES = [(stage, name) for stage, names in CALLS.items() for name in names]


class Replaced(Exception):
    """Raised by what stands in for a function."""


def holder(name):
    """The module or class of jaxnlt that holds a dotted name, and the rest."""
    *path, last = f"jaxnlt.{name}".split(".")
    target = importlib.import_module(path[0])
    for i, part in enumerate(path[1:], 2):
        if not hasattr(target, part):
            importlib.import_module(".".join(path[:i]))
        target = getattr(target, part)
    return target, last


@pytest.fixture(autouse=True)
def no_memory():
    """Cached tables would hide what made them."""
    policies.slot_choices.cache_clear()


@pytest.fixture(autouse=True, scope="module")
def released():
    """Trainers live as long as this file runs."""
    yield
    stages.built.cache_clear()
    stages.fresh_states.cache_clear()


@pytest.mark.parametrize("stage", CALLS)
def test_untouched_everything_runs(stage):
    stages.run(stage)


@pytest.mark.parametrize("stage, name", PATCHES)
def test_training_calls(monkeypatch, stage, name):
    def replaced(*args, **kwargs):
        raise Replaced(name)

    if stage.split()[0] in stages.TRAINERS:
        stages.fresh_states(stage.split()[0])  # building is not training
    target, attribute = holder(name)
    assert callable(getattr(target, attribute))
    monkeypatch.setattr(target, attribute, replaced)
    with pytest.raises(Replaced, match=re.escape(name)):
        stages.run(stage)


# What golden tests call to build their arguments; Net is listed by __call__.
OTHERS = {
    *("base.DataInfo", "base.Net", "base.Phase", "data.load", "models.build"),
    *(f"{file}.Method" for file in ("dasc", "dividemix", "smr", "sfa", "erm")),
    *("build_nlt.construct", "nlt.expected_noise"),
    # H2E's comparison losses, that nothing trains with.
    *(
        f"active_passive.{name}"
        for name in (
            *("normalised_generalised_cross_entropy", "mean_absolute_error"),
            *("generalised_cross_entropy", "normalised_mean_absolute_error"),
            *("normalised_reverse_cross_entropy", "focal", "dmi"),
            *("normalised_focal", "coteaching"),
        )
    ),
    "h2e.Method",
    *(f"{file}.Method" for file in ("tabasco", "unicon", "rolt", "rolt_plus")),
}


def test_every_function_of_the_golden_tests_is_listed():
    """A new golden test of a function needs its line above."""
    listed = {".".join(name.split(".")[-2:]) for _, name in PATCHES}
    packages = "losses|semi|selection|step|base|dasc|metrics|image_ops"
    packages += "|policies|longtail|noise|data|models|robust_losses|contrast"
    packages += "|uniform_selection|centroids|divergences|dividemix|smr|macro"
    packages += "|sfa|tabasco|unicon|rolt|rolt_plus|erm|active_passive|nlt"
    packages += "|build_nlt|h2e"
    # Called, or handed on as an argument; constants are in capitals.
    used_as = rf"(?<![\w.])(?:{packages})\.[a-zA-Z]\w*(?=[(,)])"
    used = set()
    for path in pathlib.Path(__file__).parent.glob("test_*.py"):
        if path.name != pathlib.Path(__file__).name:
            used |= set(re.findall(used_as, path.read_text()))
    used = {name for name in used if not name.split(".")[1].isupper()}
    assert len(used) > 20
    assert used - OTHERS <= listed
