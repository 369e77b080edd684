"""Help of a method and of a benchmark; suggestions for what does not exist."""

import pytest

from jaxnlt import command_line, main
from jaxnlt.config import base as config_lib
from jaxnlt.config import suggest
from jaxnlt.runtime.errors import UserError
from tests import runs


@pytest.mark.parametrize("name", runs.methods())
def test_every_field_has_a_meaning(name):
    config = runs.tiny(name)
    fields = command_line.describe(config)
    assert set(fields) == set(config_lib.flatten(config.to_dict()))
    for field, (kind, meaning) in fields.items():
        assert meaning and kind not in ("", "any", "dict"), field


def test_a_foreign_selector_has_meanings_too():
    config = command_line.load_config("dasc")
    command_line.with_selector(config, "sfa")
    assert all(
        entry.meaning for entry in command_line.describe(config).values()
    )


@pytest.mark.parametrize(
    "arg", ["cifar10,help", "help,cifar10", "cifar10,imb=0.5,help"]
)
def test_help_takes_a_benchmark(arg, capsys):
    assert main.main(["jaxnlt", f"--config=dasc:{arg}"]) == 0
    lines = [" ".join(x.split()) for x in capsys.readouterr().out.splitlines()]
    imb = 0.5 if "0.5" in arg else 0.1
    assert f"config.data.imb = {imb}" in lines
    assert "config.batch_size = 64" in lines
    at = lines.index("config.model.name = 'preact_resnet18'")
    assert lines[at + 1].startswith("of the backbone. (preact_resnet18 | ")
    at = lines.index("config.optimizer.momentum = 0.9")
    assert lines[at + 1] == "of the gradients. (float in [0, 1))"
    at = lines.index("config.data.noise = 'sym'")
    assert "human:worse" in " ".join(lines[at : at + 6])


def test_help_of_an_unknown_benchmark_is_refused(capsys):
    assert main.main(["jaxnlt", "--config=dasc:cifr,help"]) == 2
    assert "benchmark 'cifr': unknown" in capsys.readouterr().err


@pytest.mark.parametrize(
    "asked, meant",
    [
        ("optimizer.lr", "optimizer.learning_rate"),
        ("lr", "optimizer.learning_rate"),
        ("bs", "batch_size"),
        ("wd", "optimizer.weight_decay"),
        ("num_epochs", "epochs"),
        ("temperature", "dasc.sharpen_temperature"),
        ("noise_ratio", "data.rate"),
        ("arch", "model.name"),
        ("threads", "data.workers"),  # its meaning has the word
        ("channels", "model.width"),
        ("sgd.momentum", "optimizer.momentum"),
        ("lamda_u", "dasc.lambda_u"),
        ("batchsize", "batch_size"),
        ("xyz", None),
        ("loss", None),
    ],
)
def test_suggestions_by_meaning(asked, meant):
    about = command_line.describe(command_line.load_config("dasc"))
    known = {field: entry.meaning for field, entry in about.items()}
    assert suggest.nearest(asked, known) == meant


@pytest.mark.parametrize(
    "words, hint",
    [
        (["--config=dasc", "--config.optimizer.lr=1"], "mean config.optimizer"),
        (["--config=dasc", "--epochs=3"], "did you mean --config.epochs?"),
        (["--config=dasc", "--wrkdir=x"], "did you mean --workdir?"),
        (["--config=dasc:digits,sed=1"], "did you mean seed?"),
        (["--config=dasc:digits,lr=1"], "mean --config.optimizer.learning_r"),
    ],
)
def test_suggestions_on_the_command_line(words, hint):
    with pytest.raises(UserError) as error:
        command_line.parse(["main", *words])
    assert hint in str(error.value)
