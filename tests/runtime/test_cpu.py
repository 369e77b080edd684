"""Which options XLA is given on CPUs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnlt.runtime import cpu


@pytest.fixture(autouse=True)
def asked_again():
    cpu._known.cache_clear()
    yield
    cpu._known.cache_clear()


def program(options):
    def both(images, kernel):
        maps = jax.lax.conv(images, kernel, (1, 1), "SAME")
        return maps, jnp.square(images).sum((0, 2, 3))

    shapes = (jnp.ones((8, 16, 32, 32)), jnp.ones((16, 16, 3, 3)))
    return jax.jit(both, compiler_options=options).lower(*shapes).compile()


def test_convolutions_leave_the_library_and_sums_do_not():
    options = cpu.options()
    if options is None and jax.__version_info__ >= (0, 12):
        pytest.skip("this XLA has no such option")
    assert options is not None
    text = program(options).as_text()
    assert " convolution(" in text
    assert "ynn_fusion" in text


def test_nothing_is_asked_of_an_xla_that_does_not_know(monkeypatch):
    monkeypatch.setattr(cpu, "_OPTION", "xla_cpu_no_such_option")
    assert cpu.options() is None


@pytest.mark.parametrize("how", ["device", "flags"])
def test_nothing_is_asked_where_another_choice_stands(how, monkeypatch):
    if how == "device":
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    else:
        monkeypatch.setenv("XLA_FLAGS", f"--{cpu._OPTION}=")
    assert cpu.options() is None


def test_arrays_are_the_same():
    images = np.random.default_rng(0).normal(size=(8, 16, 32, 32))
    kernel = np.ones((16, 16, 3, 3), np.float32)
    found = program(cpu.options())(images.astype(np.float32), kernel)
    wanted = program(None)(images.astype(np.float32), kernel)
    np.testing.assert_allclose(found[0], wanted[0], atol=2e-4)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-5)
