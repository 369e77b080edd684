"""The builder's command line, called as the tests need it."""

from jaxnlt.data.nlt import build
from tests.data import fake_nlt

LAYOUTS = {
    "imagenet_nlt": fake_nlt.imagenet,
    "animal10_nlt": fake_nlt.animal,
    "food101_nlt": fake_nlt.food,
}
DRAWN = {
    "imagenet_nlt": "--colour=purple --rate=0.4 --n_max=20 --imb=0.3",
    "animal10_nlt": "--n_max=20 --imb=0.1",
    "food101_nlt": "--n_max=20 --imb=0.2",
}


def call(benchmark, raw, out, more=None) -> int:
    more = DRAWN[benchmark] if more is None else more
    return build.main(
        [
            "build_nlt",
            f"--benchmark={benchmark}",
            f"--raw={raw}",
            f"--out={out}",
            *more.split(),
        ]
    )


def refused(benchmark, raw, folder, capsys, more=None) -> str:
    """The one line that names the mistake; nothing is left behind."""
    before = sorted(folder.iterdir())
    assert call(benchmark, raw, folder / "out", more) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.count("\n") == 1
    assert shown.err.startswith("jaxnlt: error: ")
    assert sorted(folder.iterdir()) == before
    return shown.err.removeprefix("jaxnlt: error: ")
