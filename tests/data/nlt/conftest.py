"""Miniatures of the raw NLT layouts."""

import shutil

import pytest

from tests.data.fake_nlt import LAYOUTS


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """One miniature of every layout; tests that damage one make a copy."""
    folder = tmp_path_factory.mktemp("nlt")
    return {name: make(folder / name / "raw") for name, make in LAYOUTS.items()}


@pytest.fixture
def raws(kept, tmp_path):
    return {
        name: shutil.copytree(kept[name], tmp_path / "copies" / name)
        for name in kept
    }
