"""A run that stops between epochs and goes on ends like one that did not."""

import pytest

from configs import erm, rolt, unicon
from jaxnlt import checkpoint, metrics, train, trainer

from ..runs import same_figures

SMALL = {
    "model.width": 4,
    "model.blocks": (1,),
    "batch_size": 8,  # two sizes of the unlabelled batch, few compilations
    "warmup_batch_size": 16,
    "max_steps": 2,
    "eval_batch_size": 256,
    "augment.strong": "shift",  # compiles fast
}


class Stopped(Exception):
    """Stands for an interrupt."""


@pytest.mark.parametrize(
    "configs, arg",
    [
        (erm, "digits,loss=elr,second=crt,epochs=3"),
        (erm, "digits,loss=ldam_drw,epochs=3"),
        (rolt, "digits,loss=ldam,epochs=3"),
        (rolt, "digits,plus,epochs=3"),
        (unicon, "digits,epochs=3"),
    ],
)
def test_resumed_like_uninterrupted(configs, arg, tmp_path, monkeypatch):
    config = configs.get_config(arg)
    with config.unlocked():
        config.update_from_flattened_dict(SMALL)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    summary = train.run(config, whole)

    once, save, savers = trainer.Trainer.train, checkpoint.Checkpoints.save, []

    def remember(self, *args, **kwargs):
        savers.append(self)
        return save(self, *args, **kwargs)

    def stop(self, epoch, *args):
        if epoch == 2:
            savers[-1].close()  # its threads would outlive the exception
            raise Stopped
        return once(self, epoch, *args)

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.Checkpoints, "save", remember)
        patch.setattr(trainer.Trainer, "train", stop)
        with pytest.raises(Stopped):
            train.run(config, parts)
    resumed = train.run(config, parts)
    assert resumed["weights_sha256"] == summary["weights_sha256"]
    records = [
        metrics.read_jsonl(folder / "metrics.jsonl")
        for folder in (whole, parts)
    ]
    assert len(records[0]) == 3
    assert all(same_figures(a, b) for a, b in zip(*records, strict=True))
