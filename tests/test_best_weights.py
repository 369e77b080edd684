"""Epochs of several passes, and networks that keep their best weights."""

from dataclasses import replace

import numpy as np
import pytest

from configs import unicon as unicon_config
from jaxnlt import command_line, train
from jaxnlt import method as base
from jaxnlt.methods import unicon
from jaxnlt.runtime.errors import UserError
from tests import runs, toy_epochs
from tests.data.streamed import given
from tests.test_web_smoke import command
from tests.toy_epochs import DATASET, Recorder, phase, run, split


def with_validation(patch):
    """Gives the toy's data validation images, the last three of the test."""
    labels = DATASET.test.labels[-3:]
    more = {"val": split(labels, labels)}
    patch.setattr(toy_epochs, "DATASET", replace(DATASET, more_tests=more))


def best_at(weight):
    """A vote that is right everywhere at one weight, and worse beyond it."""

    def predict(self, outputs, memory):
        logits = outputs[0]["logits"]
        right = max(0, len(logits) - int(abs(logits[0, 0] - weight)))
        scores = np.eye(3)[DATASET.test.labels[-len(logits) :]]
        scores[right:] = np.roll(scores[right:], 1, axis=1)
        return scores

    return predict


def test_a_network_goes_on_from_its_best_weights(toy_trainer, monkeypatch):
    """Two passes of one step each; the second one is worse."""
    with_validation(monkeypatch)
    selector = Recorder([0, 1])
    own = phase(
        selector=selector,
        order="select_train_each",
        passes=lambda epoch: 2,
        keep="best",
    )
    trainer = toy_trainer(own, predict=best_at(99))
    result = run(trainer, epochs=2)
    assert result.weights == [99, 99]
    seen = [(c.epoch, c.k, c.weights) for c in selector.calls]
    assert seen == [
        (0, 0, [100, 100]),
        (0, 1, [99, 100]),
        (1, 0, [99, 99]),
        (1, 1, [99, 99]),
    ]
    # What was taken back was trained and logged all the same.
    assert [r.steps for r in result.results] == [[2, 2], [2, 2]]


def test_equal_weights_are_no_better(toy_trainer, monkeypatch):
    with_validation(monkeypatch)
    own = phase(keep="best", selector=Recorder([0, 1]))
    trainer = toy_trainer(own, predict=best_at(99.5))
    assert run(trainer).weights == [100, 100]


def test_every_pass_draws_its_rows_anew(toy_trainer):
    def first_rows(passes):
        own = phase(passes=lambda epoch: passes + epoch)
        trainer = toy_trainer(own)
        chosen = base.trust_all(trainer.info)
        return trainer._plan(1, 0, own, chosen)

    (one, ends), (two, later) = first_rows(0), first_rows(1)
    assert (ends, later) == ([4], [4, 8])
    np.testing.assert_array_equal(one["x"], two["x"][:4])
    assert (two["x"][:4] != two["x"][4:]).any()
    assert run(toy_trainer(phase(passes=lambda epoch: 2))).weights == [92, 92]


def test_test_images_do_not_choose(toy_trainer):
    with pytest.raises(UserError, match="^config.benchmark: .* no validation"):
        toy_trainer(phase(keep="best"))
    with pytest.raises(UserError, match="keep"):
        phase(keep="first")


def test_unicon_on_clothing1m():
    config = unicon_config.get_config("clothing1m")
    method = unicon.Method(config, base.DataInfo(np.arange(28) % 14, 14))
    assert [method.semi.passes(e) for e in (0, 100, 101)] == [2, 2, 3]
    assert method.semi.keep == method.warmup.keep == "best"
    # Elsewhere there are no validation images.
    other = unicon.Method(
        unicon_config.get_config("cifar10"), base.DataInfo(np.arange(9), 10)
    )
    assert other.semi.passes(300) == 1 and other.semi.keep == "last"


@pytest.mark.slow
def test_a_run_on_clothing1m_resumes(tmp_path):
    """All that it must know of its best weights is in the checkpoint."""
    fields = given("clothing1m", tmp_path / "set") | {"max_steps": 1}
    words = command("unicon", "clothing1m", fields)
    config, _ = command_line.parse(words)
    assert config.unicon.passes == 2 and config.unicon.keep == "best"
    train.run(config, tmp_path / "run")
    semi = runs.records(tmp_path / "run")[-1]
    assert semi["phase"] == "semi" and "val_accuracy" in semi
    runs.check_resume(config, tmp_path / "run")
