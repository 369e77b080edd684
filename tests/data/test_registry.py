import pytest

from jaxnlt.data import registry
from jaxnlt.runtime.errors import UserError


def test_unknown_benchmark_names_the_known_and_the_closest():
    with pytest.raises(UserError, match="^benchmark 'cifar1O': ") as error:
        registry.get("cifar1O")
    text = str(error.value)
    assert "did you mean cifar10?" in text and "\n" not in text
    assert all(name in text for name in registry.BENCHMARKS)


@pytest.mark.parametrize("name", ["npz", "folder", "tfds", "images"])
def test_user_data_are_not_corrupted_unless_asked(name):
    b = registry.get(name)
    assert (b.imb, b.noise, b.n_max) == (1, "none", None)
