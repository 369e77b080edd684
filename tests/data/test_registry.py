import pytest

from jaxnlt.data import registry
from jaxnlt.runtime.errors import UserError


def test_unknown_benchmark_names_the_known_and_the_closest():
    with pytest.raises(UserError, match="^benchmark 'cifar1O': ") as error:
        registry.get("cifar1O")
    text = str(error.value)
    assert "did you mean cifar10?" in text and "\n" not in text
    assert all(name in text for name in registry.BENCHMARKS)


def test_digits_have_the_settings_of_the_embedded_benchmark():
    b = registry.get("digits")
    assert (b.n_max, b.imb, b.noise, b.rate) == (134, 0.1, "sym", 0.4)
    assert (b.width, b.batch_size, b.epochs) == (16, 32, 40)
    assert (b.learning_rate, b.momentum, b.weight_decay) == (0.02, 0.9, 5e-4)
    assert (b.dev_n_max, b.dev_per_class) == (104, 30)
    assert (b.weak, b.strong) == ("shift", "digits_strong")


@pytest.mark.parametrize("name", ["npz", "folder", "tfds", "images"])
def test_user_data_are_not_corrupted_unless_asked(name):
    b = registry.get(name)
    assert (b.imb, b.noise, b.n_max) == (1, "none", None)


def test_human_benchmarks_differ_in_noise_only():
    a, b = registry.get("cifar10"), registry.get("cifar10n")
    assert (b.noise, a.noise) == ("human:worse", "sym")
    assert (a.n_max, a.mean, a.files) == (b.n_max, b.mean, b.files)
    c = registry.get("cifar100n")
    assert (c.noise, c.n_max, c.dev_per_class) == ("human:noisy", 500, 50)


@pytest.mark.parametrize(
    "name, noise, found",
    [
        ("cifar10", "human:worse", True),
        ("cifar10", "human:noisy", False),
        ("cifar10", "human:", False),
        ("cifar10", "sym", False),
        ("red_mini_imagenet", "red", True),
        ("red_mini_imagenet", "split:red_noise_nl_0.4", True),
        ("red_mini_imagenet", "split", False),
        ("digits", "red", False),
    ],
)
def test_own_noises(name, noise, found):
    assert (registry.get(name).own_noise(noise) is not None) == found
