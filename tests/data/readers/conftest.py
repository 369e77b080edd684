"""Miniatures of the data sets of files, made once for each test file."""

import shutil

import pytest

from tests.data import fake_web


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Makes a miniature once: ``made('food')`` is its folder."""
    folder, kept = tmp_path_factory.mktemp("web"), {}

    def make(name, **options):
        key = (name, *options.items())
        if key not in kept:
            root = folder / str(len(kept))
            kept[key] = getattr(fake_web, name)(root, **options)
        return kept[key]

    return make


@pytest.fixture
def copy(made, tmp_path):
    """A copy of a miniature that a test may damage."""
    return lambda name: shutil.copytree(made(name), tmp_path / "copy")
