"""Settings of the papers on sets of the web, and of all other sets."""

import ast
import importlib
import pkgutil

import numpy as np
import pytest

import configs
from jaxnlt import method as base
from jaxnlt.config import base as config_lib
from jaxnlt.config import settle
from jaxnlt.data import registry
from jaxnlt.data.records import Choice

#: What a folder of small images would be given.
CHOICE = Choice(
    "folder", "", "", 0, "resnet18", 8, (1, 1), 16, "crop_flip", "autoaugment"
)
FILES = [file.name for file in pkgutil.iter_modules(configs.__path__)]


def get(method, arg):
    return importlib.import_module(f"configs.{method}").get_config(arg)


@pytest.mark.parametrize("method", FILES)
def test_every_method_has_a_config_for_every_benchmark(method):
    plus = ("", ",plus") if method == "rolt" else ("",)
    for benchmark in registry.BENCHMARKS:
        texts = ["", ",smoke"]
        if method != "best":  # of no paper
            texts += [",as_released", ",smoke,as_released"]
        for text in texts:
            for own in plus:
                config = get(method, benchmark + text + own)
                if registry.get(benchmark).choose:
                    config = settle.filled(config, CHOICE)
                config_lib.check(config)
                if method == "h2e":  # its networks want a class prior
                    continue
                made = base.create(
                    config, base.DataInfo(np.arange(200) % 100, 100)
                )
                names = {made.phase(e).name for e in range(config.epochs)}
                if "smoke" in text:
                    assert names == {phase.name for phase in made.phases()}


# The papers' tables ----------------------------------------------------------

SEMI = "sharpen_temperature=0.5 p_threshold=0.5 alpha=0.5 lambda_u=0.0"
SEMI += " unlabelled_loss=False"
#: "method benchmark" -> fields of config | fields of config.METHOD.
TABLES = {
    # ``papers/dividemix_rolt.md`` section 1, 2.2 and 3.1.
    "dividemix webvision": f"""
        epochs=81 batch_size=32 warmup_batch_size=64
        optimizer.learning_rate=0.01 optimizer.momentum=0.9
        optimizer.weight_decay=5e-4 optimizer.drops=(40,)
        optimizer.drop_factor=0.1 model.name='inception_resnet_v2'
        data.transform='webvision' data.noise='none' data.imb=1.0
        | {SEMI}
        warmup=1 confidence_penalty=False gmm_reg_covar=5e-4 average_losses=1
        peer='updated' warmup_samples=0 pool_samples=0
    """,
    "dividemix clothing1m": f"""
        epochs=81 batch_size=32 warmup_batch_size=64
        optimizer.learning_rate=0.002 optimizer.weight_decay=1e-3
        optimizer.drops=(40,) model.name='resnet50'
        data.transform='clothing1m'
        | {SEMI}
        warmup=1 confidence_penalty=True gmm_reg_covar=5e-4
        warmup_samples=64_000 pool_samples=32_000
    """,
    # ``papers/smr.md`` section 2, 3, 11 and 14.
    "smr animal10n": f"""
        epochs=201 batch_size=128 warmup_batch_size=256
        optimizer.learning_rate=0.01 optimizer.weight_decay=1e-3
        optimizer.drops=(80,140) model.name='vgg19_bn'
        data.transform='animal10n'
        | {SEMI}
        warmup=30 alpha=4.0 period=15.0 spare_first_epoch=True
        animal10n_lr='three_stage'
    """,
    "smr clothing1m": f"""
        epochs=81 batch_size=32 warmup_batch_size=64
        optimizer.learning_rate=0.002 optimizer.weight_decay=1e-3
        optimizer.drops=(40,) model.name='resnet50'
        | {SEMI}
        warmup=1 period=10.0 spare_first_epoch=False warmup_samples=64_000
        pool_samples=32_000 recalibrate_on='warmup'
    """,
    "smr webvision": f"""
        epochs=121 batch_size=32 warmup_batch_size=64
        optimizer.learning_rate=0.01 optimizer.weight_decay=5e-4
        optimizer.drops=(40,80) model.name='inception_resnet_v2'
        data.transform='webvision_smr'
        | {SEMI}
        warmup=1 period=15.0 spare_first_epoch=False recalibrate_on='warmup'
        pool_samples=0
    """,
    # ``papers/sfa.md`` section 4 and 7; drops are counted from 0.
    "sfa webvision": f"""
        epochs=100 batch_size=32 warmup_batch_size=64
        optimizer.learning_rate=0.01 optimizer.weight_decay=5e-4
        optimizer.drops=(49,) data.transform='webvision'
        | {SEMI}
        warmup=1 beta=0.9 phi=1.005 base_confidence=0.02
        sampled_classes='all' draws=1 peer='epoch_start'
    """,
    # ``papers/dasc.md`` section 4: those of CIFAR.
    "dasc red_mini_imagenet": """
        epochs=101 batch_size=64 warmup_batch_size=128
        optimizer.learning_rate=0.02 optimizer.weight_decay=1e-4
        optimizer.drops=()
        | warmup=30 contrast_start=10 lambda_u=25.0 ramp=16.0 alpha=4.0
        memory_size=1024 projection_dim=128
    """,
    "dasc cifar10": """
        epochs=101 batch_size=64 warmup_batch_size=128
        optimizer.weight_decay=1e-4
        | warmup=30 contrast_start=10 memory_size=1024
    """,
    "tabasco red_mini_imagenet": """
        epochs=101 batch_size=64 warmup_batch_size=128
        optimizer.weight_decay=5e-4 optimizer.drops=()
        | warmup=30 lambda_u=25.0 alpha=4.0 unlabelled_loss=True
    """,
    # ``papers/h2e.md`` section 1 to 3.
    "h2e imagenet_nlt": """
        epochs=380 batch_size=512 optimizer.learning_rate=0.2
        optimizer.weight_decay=1e-4 optimizer.momentum=0.9
        model.name='resnet18'
        | starts.round1.identify=180 starts.round1.robust=360 mix='mixup'
        base_peak=1.0 identify_rate=0.001 identify_weight_decay=1e-4
        rate_drop_every=5.0 rate_drop_factor=0.9 robust_rate=0.01
        robust_weight_decay=1e-5
    """,
    # ``papers/unicon.md`` section 1 and 7.
    "unicon clothing1m": """
        epochs=201 batch_size=32 warmup_batch_size=128
        optimizer.learning_rate=0.005 optimizer.weight_decay=1e-3
        | warmup=0 alpha=0.5 unlabelled_loss=False unlabelled_batch='same'
        min_learning_rate=1e-5 cosine_epochs=100.0 pool_samples=32_000
        passes=2 added_pass=101.0 keep='best'
    """,
    "unicon webvision": """
        epochs=121 batch_size=24 warmup_batch_size=96
        optimizer.learning_rate=0.01 optimizer.weight_decay=1e-4
        optimizer.drops=(60,)
        | warmup=2 alpha=0.5 unlabelled_loss=False unlabelled_batch='same'
        contrast_weight=0.025 restart_every=25.0 restart_rate=0.001
    """,
}
#: What `as_released` changes there in config.METHOD.
RELEASED = {
    "dividemix webvision": "",
    "dividemix clothing1m": "",
    "smr animal10n": "spare_last_epoch=False animal10n_lr='released'",
    "smr clothing1m": "spare_last_epoch=False recalibrate_on='pool'",
    "smr webvision": "spare_last_epoch=False",
    "sfa webvision": "persist_moments=False",
    "unicon webvision": "jsd_log='e' unfilled='repeat_index_0'",
}


def fields(words, prefix=""):
    """The fields of a text, by the names that `flatten` gives them."""
    pairs = (word.split("=") for word in words.split())
    return {prefix + name: ast.literal_eval(value) for name, value in pairs}


@pytest.mark.parametrize("case", TABLES)
def test_numbers_are_the_papers(case):
    method, benchmark = case.split()
    shared, own = TABLES[case].split("|")
    wanted = fields(shared) | fields(own, f"{method}.")
    got = config_lib.flatten(get(method, benchmark).to_dict())
    assert {name: got[name] for name in wanted} == wanted


@pytest.mark.parametrize("case", RELEASED)
def test_what_as_released_changes(case):
    method, benchmark = case.split()
    plain, released = (
        config_lib.flatten(get(method, benchmark + text).to_dict())
        for text in ("", ",as_released")
    )
    changed = {k: v for k, v in released.items() if plain[k] != v}
    assert changed == fields(RELEASED[case], f"{method}.")


def test_schedules_without_a_paper_are_short_of_nothing():
    """A warm-up of a tenth, a drop half-way; DaSC keeps three epochs of it."""
    for method in ("dividemix", "sfa", "tabasco", "smr", "dasc"):
        config = get(method, "food101n")
        assert (config.epochs, config.optimizer.drops) == (101, (50,))
        options = config[method]
        assert (options.warmup, options.alpha) == (10, 0.5)
        assert options.lambda_u == 0
    assert get("smr", "images").smr.period == pytest.approx(10.1)
    dasc = get("dasc", "webvision").dasc
    assert (dasc.contrast_start, dasc.warmup) == (1, 3)


# CIFAR and digits ------------------------------------------------------------

SHARED = {"warmup_samples": 0, "pool_samples": 0, "peer": "updated"}
#: method -> epochs, drops and warm-up of CIFAR-10, of CIFAR-100, of digits.
IN_MEMORY = {
    "dasc": ((101, (), 30), (101, (), 30), (40, (), 15)),
    "dividemix": ((301, (150,), 10), (301, (150,), 30), (40, (), 15)),
    "rolt": ((300, (150,), 50), (300, (150,), 50), (40, (), 15)),
    "sfa": ((200, (150,), 30), (200, (150,), 30), (40, (), 15)),
    "smr": ((301, (150,), 10), (301, (150,), 30), (40, (), 15)),
    "tabasco": ((101, (), 10), (101, (), 30), (40, (), 15)),
    "unicon": ((351, (), 10), (351, (), 30), (40, (), 15)),
}


@pytest.mark.parametrize("method", IN_MEMORY)
def test_sets_in_memory_are_as_they_were(method):
    names = ("cifar10", "cifar100", "digits")
    for name, expected in zip(names, IN_MEMORY[method], strict=True):
        arg = name + ",plus" * (method == "rolt")
        config = get(method, arg)
        options = config[config.method]
        got = (config.epochs, config.optimizer.drops, options.warmup)
        assert got == expected, name
        assert options.alpha == 4
        assert options.get("unlabelled_loss", True) is True
        kept = {key: options.get(key, value) for key, value in SHARED.items()}
        assert kept == SHARED
    balanced = get("rolt", "cifar10,plus,imb=1").rolt_plus.warmup
    assert (balanced, get("dasc", "cifar10").dasc.contrast_start) == (10, 10)
