"""Fake commands for the tests of the launch scripts."""

import pytest

from tests.launch.fake_commands import Fakes


@pytest.fixture
def fakes(tmp_path):
    return Fakes(tmp_path)
