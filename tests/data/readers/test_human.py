import pathlib

import numpy as np
import pytest

from jaxnlt.data import registry
from jaxnlt.data.readers import human
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

CLEAN = np.arange(20) % 10
WORSE = (CLEAN * 3 + 1) % 10
BENCH = registry.get("cifar10n")


def arrays(**changes):
    return {"clean_label": CLEAN, "worse_label": WORSE} | changes


def npz(path: pathlib.Path, **content) -> pathlib.Path:
    np.savez(path, **content)
    return path


@pytest.mark.parametrize("write", [fakes.torch_zip, fakes.torch_legacy])
def test_official_file(tmp_path, write):
    file = write(tmp_path / "CIFAR-10_human.pt", arrays())
    labels = human.read(file, "human:worse", CLEAN, 10)
    assert labels.dtype == np.int32 and labels.tolist() == WORSE.tolist()


def test_npz(tmp_path):
    file = npz(
        tmp_path / "cifar10n.npz",
        clean=CLEAN.astype(np.uint8),
        worse=WORSE.astype(np.uint8),
    )
    assert (human.read(file, "human:worse", CLEAN, 10) == WORSE).all()


@pytest.mark.parametrize(
    "content, word",
    [
        (arrays(clean_label=CLEAN[::-1].copy()), "another data set.*20 of 20"),
        (arrays(clean_label=CLEAN[:7]), "another data set: holds 7"),
        (arrays(worse_label=WORSE[:7]), "human:worse holds 7 labels"),
        (arrays(worse_label=WORSE + 1), r"0\.\.9, reaches from 1 to 10"),
        (arrays(worse_label=WORSE * 1.0), "list of integers, is float64"),
        (
            {"clean_label": CLEAN, "noisy_label": WORSE},
            "another data set.*no w",
        ),
        ({"worse_label": WORSE}, "holds no clean"),
        ([1, 2], "no dictionary"),
    ],
)
def test_refused(tmp_path, content, word):
    file = fakes.torch_zip(tmp_path / "a.pt", content)
    with pytest.raises(UserError, match=word) as error:
        human.read(file, "human:worse", CLEAN, 10)
    assert str(error.value).startswith(str(file))


def test_damaged_npz(tmp_path):
    file = npz(tmp_path / "a.npz", clean=CLEAN, worse=WORSE)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match="damaged"):
        human.read(file, "human:worse", CLEAN, 10)


def test_find(tmp_path):
    (tmp_path / "human_labels").mkdir()
    file = npz(tmp_path / "human_labels" / "cifar10n.npz", clean=CLEAN)
    assert human.find(BENCH, "", [tmp_path / "x", tmp_path]) == file
    assert human.find(BENCH, str(file), []) == file
    with pytest.raises(UserError, match="CIFAR-10_human.pt.*github.com"):
        human.find(BENCH, "", [tmp_path / "x"])
    with pytest.raises(UserError, match="labels_file: .*no such file"):
        human.find(BENCH, str(tmp_path / "x"), [])
