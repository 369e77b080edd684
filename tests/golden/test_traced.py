"""What the golden tests pin is what training calls.

Each function is replaced by one that raises; tracing a training step, without
compiling it, selecting, scoring or loading must then fail.
"""

import importlib
import pathlib
import re

import jax
import numpy as np
import pytest

from configs import dasc as dasc_config
from jaxnlt import data, policies, step, train
from jaxnlt.trainer import Trainer

from ..data import fakes

SIZE, CLASSES = 12, 3


def split():
    rng = np.random.default_rng(0)
    labels = (np.arange(SIZE) % CLASSES).astype(np.int32)
    images = rng.integers(0, 256, (SIZE, 8, 8, 1), np.uint8)
    return data.Split(images, labels, labels, np.arange(SIZE))


@pytest.fixture(scope="module")
def trainer():
    """DaSC as `digits,smoke` runs it, on a dozen images and a small network."""
    config = dasc_config.get_config("digits,smoke")
    with config.unlocked():
        config.model.width, config.model.blocks = 4, (1,)
        config.batch_size = config.warmup_batch_size = 2
        config.augment.strong = "shift"  # traces fast
        config.dasc.memory_size = 4
        config.dasc.projection_dim = 4
    dataset = data.Dataset(
        *(split(), split(), ("a", "b", "c")),
        *((0.5,), (0.25,), "test", {}),
    )
    return Trainer(config, dataset)


def trace(trainer, phase):
    """Traces the step of a phase as the loop builds it."""
    config = trainer.config
    states = trainer.init_states()
    peer = None if phase.peer == "none" else step.variables(states[1])
    rows = {
        name: {
            "index": np.zeros(2, np.int32),
            "labels": np.zeros(2, np.int32),
            "weights": np.ones(2, np.float32),
        }
        for name in phase.views
    }
    one = np.float32(1)
    selection = {"num_labelled": one, "num_unlabelled": one}
    selection["counts"] = np.ones(CLASSES, np.float32)
    moment = {
        "epoch": np.int32(0),
        "step": np.int32(0),
        "learning_rate": one,
    }
    compiled = step.make_step(
        trainer.network, phase, config, trainer.dataset, trainer.mesh
    )
    compiled.trace(
        *(states[0], peer, trainer.images, rows, selection, moment),
        jax.random.key(0),
    )


def warmup(trainer):
    trace(trainer, trainer.method.phase(0))


def contrast(trainer):
    trace(trainer, trainer.method.phase(1))


def semi(trainer):
    trace(trainer, trainer.method.phase(2))


def augmented(trainer):
    """Traces the view that AutoAugment makes, as the step does."""
    jax.eval_shape(
        lambda images, key: step.prepare(
            *(images, key, "strong", trainer.dataset, np.float32),
            {"strong": "autoaugment"},
        ),
        *(trainer.images, jax.random.key(0)),
    )


def outputs():
    rng = np.random.default_rng(0)
    shapes = {"logits": 3, "balanced": 3, "projection": 4}
    return [
        {k: rng.normal(size=(SIZE, n)) for k, n in shapes.items()}
        for _ in range(2)
    ]


def select(trainer):
    """The selection of an epoch, from fetched outputs."""
    pooled = [[[out] for out in outputs()]]
    phase = trainer.method.phase(2)
    trainer.select(2, phase, pooled, trainer.init_memory(), [0])


def evaluate(trainer):
    train._test_record(trainer, [[out] for out in outputs()], {})


def load(trainer):
    data.load(fakes.config("digits"))


def load_flip(trainer):
    data.load(fakes.config("digits", noise="flip", rate=0.2))


def infer(trainer):
    """Traces inference on the test images."""
    state = trainer.init_states()[0]
    fresh = step.Inference(
        *(trainer.network, trainer.method.outputs, trainer.config),
        *(trainer.dataset, trainer.mesh),
    )
    fresh._infer.trace(step.variables(state), trainer.images)


PATCHES = [
    ("losses.cross_entropy", warmup),
    ("losses.balanced_softmax", warmup),
    ("losses.class_balanced_contrastive", contrast),
    ("losses.class_balanced_contrastive", semi),
    ("losses.log_prior", warmup),
    ("losses.log_prior", semi),
    ("losses.brier", semi),
    ("losses.prior_penalty", semi),
    ("losses.info_nce", semi),
    ("losses.masked_mean", semi),
    ("semi.mean_probs", semi),
    ("semi.refine", semi),
    ("semi.sharpen", semi),
    ("semi.mixup", semi),
    ("semi.ramp", semi),
    ("semi.terms", semi),
    ("methods.dasc.confidence", semi),
    ("methods.base.fifo", contrast),
    ("methods.base.fifo", semi),
    ("methods.base.Net.__call__", warmup),
    ("methods.dasc.Method.targets", semi),
    ("methods.dasc.Method.midl", semi),
    ("methods.dasc.Method.remember", semi),
    ("step.update", warmup),
    ("step.update", semi),
    ("step.init_state", warmup),
    ("step.variables", semi),
    ("step.prepare", semi),
    ("image_ops.apply_choices", augmented),
    ("policies.resolve", augmented),
    ("models.Network.apply", warmup),
    ("models.Network.apply", semi),
    ("models.Network.apply", infer),
    ("models.preact_resnet.PreActBlock.__call__", warmup),
    ("selection.dacc_threshold", select),
    ("selection.dacc_scores", select),
    ("selection.per_class_gmm", select),
    ("selection.gmm_probability", select),
    ("selection.labelled_weights", select),
    ("metrics.test_metrics", evaluate),
    ("methods.dasc.Method.predict", evaluate),
    ("data.longtail.class_counts", load),
    ("data.longtail.draw_subset", load),
    ("data.noise.draw", load),
    ("data.noise.transition", load),
    ("data.noise.transition", load_flip),
]


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


@pytest.mark.parametrize(
    "stage",
    [
        *(warmup, contrast, semi, augmented),
        *(infer, select, evaluate, load, load_flip),
    ],
)
def test_untouched_everything_runs(trainer, stage):
    stage(trainer)


@pytest.mark.parametrize(
    "name, stage", PATCHES, ids=[f"{n}-{s.__name__}" for n, s in PATCHES]
)
def test_training_calls(trainer, monkeypatch, name, stage):
    def replaced(*args, **kwargs):
        raise Replaced(name)

    target, attribute = holder(name)
    assert callable(getattr(target, attribute))
    monkeypatch.setattr(target, attribute, replaced)
    with pytest.raises(Replaced, match=re.escape(name)):
        stage(trainer)


# What golden tests call to build their arguments; Net is listed by __call__.
OTHERS = {
    *("base.DataInfo", "base.Net", "base.Phase", "dasc.Method"),
    *("data.load", "models.build"),
}


def test_every_function_of_the_golden_tests_is_listed():
    """A new golden test of a function needs its line above."""
    listed = {".".join(name.split(".")[-2:]) for name, _ in PATCHES}
    packages = "losses|semi|selection|step|base|dasc|metrics|image_ops"
    packages += "|policies|longtail|noise|data|models"
    called = re.compile(rf"(?<![\w.])(?:{packages})\.[a-zA-Z]\w*(?=\()")
    used = set()
    for path in pathlib.Path(__file__).parent.glob("test_*.py"):
        if path.name != pathlib.Path(__file__).name:
            used |= set(called.findall(path.read_text()))
    assert len(used) > 20
    assert used - OTHERS <= listed
