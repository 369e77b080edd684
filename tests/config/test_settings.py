"""Settings that a benchmark, its noise or a key decides."""

import logging

import numpy as np
import pytest

from jaxnlt import command_line
from jaxnlt import method as method_lib
from jaxnlt.data import load, registry
from jaxnlt.runtime.errors import UserError


def get(method, arg):
    return command_line.load_config(method, arg)


@pytest.mark.parametrize(
    ("benchmark", "strong"),
    [
        ("webvision", "flip_autoaugment_imagenet"),
        ("clothing1m", "flip_autoaugment_imagenet"),
        ("images", "flip_autoaugment_imagenet"),
        ("cifar10", "autoaugment"),
        ("digits", "digits_strong"),
    ],
)
def test_unicon_takes_imagenets_policy_on_images_from_the_web(
    benchmark, strong
):
    assert get("unicon", benchmark).augment.strong == strong
    own = registry.get(benchmark).strong
    assert get("dasc", benchmark).augment.strong == own


@pytest.mark.parametrize("method", ["dividemix", "smr"])
@pytest.mark.parametrize(
    ("arg", "lambda_u", "notes"),
    [
        ("cifar10,imb=1,noise=sym,rate=0.2", 0, 0),
        ("cifar10,imb=0.1,noise=sym,rate=0.2", 25, 1),
        ("cifar100,imb=0.1,noise=sym_count,rate=0.8", 25, 1),
        ("cifar10,imb=0.1,noise=sym,rate=0.5", 25, 0),  # the same on both
        ("cifar10,imb=0.1,noise=joint,rate=0.2", 25, 0),  # not published
    ],
)
def test_published_lambda_u_is_for_balanced_data(
    method, arg, lambda_u, notes, caplog
):
    with caplog.at_level(logging.INFO, logger="jaxnlt"):
        config = get(method, arg)
    assert config[method].lambda_u == lambda_u
    assert sum("balanced" in text for text in caplog.messages) == notes


@pytest.mark.parametrize(
    ("arg", "threshold"), [("imb=1", 0.6), ("imb=0.1", 0.5)]
)
def test_threshold_of_much_noise_is_for_balanced_data(arg, threshold):
    config = get("dividemix", f"cifar10,noise=sym,rate=0.9,{arg}")
    assert config.dividemix.p_threshold == threshold


@pytest.mark.parametrize("noise", ["none", "sym", "asym", "asym_block", "flip"])
@pytest.mark.parametrize("method", ["dividemix", "unicon", "tabasco", "rolt"])
def test_the_penalty_is_for_asym_alone(method, noise):
    plus = ",plus" if method == "rolt" else ""
    config = get(method, f"cifar10,noise={noise},rate=0.2{plus}")
    assert config[config.method].confidence_penalty is (noise == "asym")


@pytest.mark.parametrize(
    ("loss", "rates"),
    [
        ("ldam", {0: 0.02, 4: 0.1, 159: 0.1, 160: 1e-3, 180: 1e-5}),
        ("ce", {0: 0.02, 4: 0.1, 159: 0.1, 160: 1e-3, 180: 1e-5}),
        ("mixup", {0: 0.1, 99: 0.1, 100: 0.01, 150: 1e-3}),
    ],
)
def test_schedule_of_the_losses_papers(loss, rates):
    config = get("erm", f"cifar10,loss={loss},schedule=paper")
    assert config.epochs == 200 and config.warmup_batch_size == 128
    made = method_lib.create(config, method_lib.DataInfo(np.arange(10), 10))
    for epoch, rate in rates.items():
        assert made.learning_rate(epoch) == pytest.approx(rate)
    drw = get("erm", "cifar10,loss=ldam_drw,schedule=paper,epochs=100")
    assert (drw.erm.second_start, drw.erm.lr_rise) == (80, 2.5)
    family = get("erm", "cifar10")
    assert family == get("erm", "cifar10,schedule=family")
    assert (family.epochs, family.erm.lr_rise) == (101, 0)


@pytest.mark.parametrize("arg", ["digits,schedule=paper", "cifar10,schedule=x"])
def test_schedules_that_do_not_exist(arg):
    with pytest.raises(UserError, match="^schedule: "):
        get("erm", arg)


def test_released_rolt_takes_cifar10s_constants():
    default, released = (
        get("rolt", f"cifar100{text}") for text in ("", ",as_released")
    )
    assert default.data.statistics == ""
    assert released.data.statistics == "cifar10"
    load.check(released)
    bench = registry.get("cifar100")
    assert load.statistics(bench, "") == (bench.mean, bench.std)
    other = registry.get("cifar10")
    assert load.statistics(bench, "cifar10") == (other.mean, other.std)


@pytest.mark.parametrize(
    ("benchmark", "name"),
    [("cifar10", "nothing"), ("digits", "cifar10"), ("cifar10", "digits")],
)
def test_statistics_that_do_not_exist(benchmark, name):
    with pytest.raises(UserError, match="^config.data.statistics: "):
        load.statistics(registry.get(benchmark), name)


def test_last_batches():
    for method, arg in (("unicon", "cifar10"), ("rolt", "cifar10")):
        for text, wanted in (("", "filled"), (",as_released", "dropped")):
            assert get(method, arg + text)[method].last_batch == wanted
    webvision = get("unicon", "webvision,as_released")
    assert webvision.unicon.last_batch == "filled"
    config = get("rolt", "cifar10,as_released")
    labels = np.arange(300) % 10
    made = method_lib.create(config, method_lib.DataInfo(labels, 10))
    rng = np.random.default_rng(0)
    everyone = method_lib.trust_all(made.data)
    assert len(made.train.streams(everyone, rng)["x"]) == 300 // 128


def test_sfa_counts_as_its_webvision_script():
    fields = ("first_exponent", "fresh_selections")
    for benchmark, wanted in (("webvision", (0, 2)), ("cifar10", (1, 1))):
        options = get("sfa", benchmark).sfa
        assert tuple(options[name] for name in fields) == wanted
