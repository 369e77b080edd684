"""What every test shares: compiled programs are kept between runs."""

import pathlib

import jax
import pytest


@pytest.fixture(autouse=True, scope="session")
def compilation_cache():
    folder = pathlib.Path.home() / ".cache" / "jaxnlt" / "xla"
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)
