import pytest

from jaxnlt.data import registry
from jaxnlt.runtime.errors import UserError


def test_unknown_benchmark_names_the_known_and_the_closest():
    with pytest.raises(UserError) as error:
        registry.get("cifar1O")
    text = str(error.value)
    assert "'cifar1O'" in text and "did you mean cifar10?" in text
    assert all(name in text for name in registry.BENCHMARKS)
    assert "\n" not in text


def test_benchmarks_of_this_release():
    assert list(registry.BENCHMARKS) == [
        "digits",
        "npz",
        "folder",
        "tfds",
        "cifar10",
        "cifar100",
        "cifar10n",
        "cifar100n",
        "images",
        "imagenet_nlt",
        "animal10_nlt",
        "food101_nlt",
        "webvision",
        "clothing1m",
        "animal10n",
        "food101n",
        "red_mini_imagenet",
    ]


def test_digits_follow_the_design():
    b = registry.get("digits")
    assert (b.n_max, b.imb, b.noise, b.rate) == (134, 0.1, "sym", 0.4)
    assert (b.width, b.batch_size, b.epochs) == (16, 32, 40)
    assert (b.learning_rate, b.momentum, b.weight_decay) == (0.02, 0.9, 5e-4)
    assert (b.dev_n_max, b.dev_per_class) == (104, 30)
    assert (b.weak, b.strong) == ("shift", "digits_strong")


@pytest.mark.parametrize("name", ["npz", "folder", "tfds"])
def test_user_data_are_not_corrupted_unless_asked(name):
    b = registry.get(name)
    assert (b.imb, b.noise, b.n_max) == (1, "none", None)


def test_human_benchmarks_differ_in_noise_only():
    a, b = registry.get("cifar10"), registry.get("cifar10n")
    assert b.noise == "human:worse" and a.noise == "sym"
    assert (a.n_max, a.mean, a.std, a.files) == (
        b.n_max,
        b.mean,
        b.std,
        b.files,
    )
    c = registry.get("cifar100n")
    assert (c.noise, c.n_max, c.dev_per_class) == ("human:noisy", 500, 50)
