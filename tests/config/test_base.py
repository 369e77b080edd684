"""From the text after the colon to a locked configuration."""

import pytest

from configs import dasc, erm
from jaxnlt.config import base as config_lib
from jaxnlt.runtime.errors import UserError

# Parsing ---------------------------------------------------------------------


@pytest.mark.parametrize("text", [None, "", "smoke,seed=3", "seed=3,smoke"])
def test_parse_defaults(text):
    arg = config_lib.parse(text)
    assert arg["benchmark"] == "digits" and arg["as_released"] is False
    assert arg["imb"] is None and arg["epochs"] is None
    assert (arg["seed"], arg["smoke"]) == ((3, True) if text else (0, False))


def test_parse_reads_types_and_bare_bools():
    arg = config_lib.parse("cifar10,imb=0.1,noise=sym,epochs=7,as_released=0")
    assert arg["benchmark"] == "cifar10" and arg["as_released"] is False
    assert (arg["imb"], arg["noise"], arg["epochs"]) == (0.1, "sym", 7)


def test_parse_knows_the_keys_of_the_method():
    extra = {"loss": config_lib.Key(str, "ce", "which")}
    assert config_lib.parse("digits", **extra)["loss"] == "ce"
    assert config_lib.parse("loss=mixup", **extra)["loss"] == "mixup"


@pytest.mark.parametrize(
    "text, message",
    [
        ("digits,rat=0.4", "^rat: unknown key; known are .*rate"),
        ("digits,loss=mixup", "^loss: unknown key"),
        ("digits,epochs=ten", "^epochs: expects int, is 'ten'"),
        ("digits,rate=much", "^rate: expects float, is 'much'"),
        ("digits,smoke=maybe", "^smoke: expects bool, is 'maybe'"),
        ("digits,seed", "^seed: expects int, is None"),
    ],
)
def test_parse_refuses(text, message):
    with pytest.raises(UserError, match=message):
        config_lib.parse(text)


# Base fields -----------------------------------------------------------------


def test_base_takes_the_benchmark_s_numbers_unless_told():
    def base(text):
        return config_lib.base(config_lib.parse(text))

    data = base("digits").data
    assert (data.imb, data.noise, data.rate) == (0.1, "sym", 0.4)
    told = base("digits,imb=1,noise=none,rate=0,seed=4")
    data = told.data
    assert (data.imb, data.noise, data.rate) == (1, "none", 0)
    # Of -1 the data make the seed, whatever --config.seed says later.
    assert (told.seed, told.data_seed) == (4, -1)
    assert base("seed=4,data_seed=0").data_seed == 0
    with pytest.raises(UserError, match="digitz"):
        base("digitz")


# Scaling ---------------------------------------------------------------------


def test_every_config_is_locked():
    for module in (dasc, erm):
        config = module.get_config()
        with pytest.raises(AttributeError, match="learning_rat"):
            config.optimizer.learning_rat = 1.0


def test_finish_scales_epochs_along():
    whole, half = dasc.get_config(), dasc.get_config("epochs=20")
    assert whole.epochs == 40 and half.epochs == 20
    assert (whole.dasc.contrast_start, whole.dasc.warmup) == (5, 15)
    assert (half.dasc.contrast_start, half.dasc.warmup) == (2, 8)
    assert (half.dasc.ramp, half.dasc.lr_decay_epoch) == (4.0, 16.0)
    config = erm.get_config("epochs=10")
    with config.unlocked():
        config.optimizer.drops = (5, 8)
    config_lib.finish(config, config_lib.parse("epochs=20"))
    assert config.epochs == 20 and config.optimizer.drops == (10, 16)


@pytest.mark.parametrize("epochs", [3, 4, 5, 7, 11])
def test_finish_keeps_an_epoch_of_every_phase(epochs):
    config = dasc.get_config(f"epochs={epochs}")
    bounds = (0, config.dasc.contrast_start, config.dasc.warmup, epochs)
    assert config.epochs == epochs
    assert all(a < b for a, b in zip(bounds, bounds[1:], strict=False))


@pytest.mark.parametrize("text", ["digits", "cifar10"])
def test_smoke_is_one_epoch_of_two_steps_of_every_phase(text):
    config = dasc.get_config(text + ",smoke")
    assert (config.epochs, config.max_steps) == (3, 2)
    assert (config.dasc.contrast_start, config.dasc.warmup) == (1, 2)
    config = erm.get_config(text + ",smoke")
    assert (config.epochs, config.max_steps) == (1, 2)
    assert erm.get_config(text).max_steps == 0


def test_too_few_epochs_are_refused():
    with pytest.raises(UserError, match="^epochs: dasc needs at least 3"):
        dasc.get_config("epochs=2")
    with pytest.raises(UserError, match="^epochs: erm needs at least 1"):
        erm.get_config("epochs=0")


# Released switches -----------------------------------------------------------


def test_as_released_sets_three_switches():
    """Their values: docs/test_switches.py."""
    default, released = (
        config_lib.flatten(dasc.get_config(text).to_dict())
        for text in ("cifar10", "cifar10,as_released")
    )
    changed = {key for key in default if default[key] != released[key]}
    names = ("midl_label", "aligned_clean_prob", "untrained_projector")
    assert changed == {f"dasc.{name}" for name in names}


# Identity --------------------------------------------------------------------


def test_short_hash_is_stable_and_sees_every_field():
    config = dasc.get_config()
    name = config_lib.short_hash(config)
    assert len(name) == 8 and int(name, 16) >= 0
    assert config_lib.short_hash(dasc.get_config("digits")) == name
    assert config_lib.short_hash(dasc.get_config("seed=1")) != name
    config.dasc.phi = 1.006
    assert config_lib.short_hash(config) != name


def test_difference_names_the_first_fields():
    old, new = (
        config_lib.as_json(dasc.get_config(text))
        for text in ("", "digits,imb=1")
    )
    assert config_lib.difference(old, old) == ""
    assert config_lib.difference(old, new) == "data.imb 0.1 -> 1.0"
    new["seed"], new["more"], new["dasc"]["alpha"] = 1, 2, 1.0
    assert config_lib.difference(old, new) == (
        "dasc.alpha 4.0 -> 1.0, data.imb 0.1 -> 1.0, more None -> 2 and 1 more"
    )
