"""The size and the seed of a campaign; the options are those of tests/."""

from typing import NamedTuple

import pytest


class Options(NamedTuple):
    """What the command line asks of a campaign.

    Attributes:
      size: times as many cases as .ci/run tries.
      seed: of all cases.
      case: the one to replay, in the test's own process; None tries all.
    """

    size: int
    seed: int
    case: int | None


@pytest.fixture
def options(request):
    get = request.config.getoption
    return Options(
        get("--campaign"), get("--campaign-seed"), get("--campaign-case")
    )
