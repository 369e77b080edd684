import numpy as np
import pytest

from jaxnlt.data import registry
from jaxnlt.data.readers import cifar_human
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

CLEAN = np.arange(20) % 10
WORSE = (CLEAN * 3 + 1) % 10
BENCH = registry.get("cifar10n")


def read(file):
    return cifar_human.read(file, "human:worse", CLEAN, 10)


@pytest.mark.parametrize("write", [fakes.torch_zip, fakes.torch_legacy])
def test_official_file(tmp_path, write):
    content = {"clean_label": CLEAN, "worse_label": WORSE}
    labels = read(write(tmp_path / "CIFAR-10_human.pt", content))
    assert labels.dtype == np.int32 and labels.tolist() == WORSE.tolist()


def test_npz(tmp_path):
    file = tmp_path / "cifar10n.npz"
    np.savez(file, clean=CLEAN.astype(np.uint8), worse=WORSE.astype(np.uint8))
    assert (read(file) == WORSE).all()
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UserError, match=f"^{file}: .*damaged"):
        read(file)


@pytest.mark.parametrize(
    "changes, word",
    [
        ({"clean_label": CLEAN[::-1].copy()}, "another data set.*20 of 20"),
        ({"clean_label": CLEAN[:7]}, "another data set: holds 7"),
        ({"clean_label": None}, "another data set: holds no clean"),
        ({"worse_label": WORSE[:7]}, "human:worse holds 7 labels"),
        ({"worse_label": WORSE + 1}, "human:worse must be in"),
        ({"worse_label": WORSE * 1.0}, "worse_label must be a list"),
        ({"worse_label": None}, "another data set: holds no worse"),
        ([1, 2], "no dictionary"),
    ],
)
def test_refused(tmp_path, changes, word):
    content = changes
    if isinstance(changes, dict):
        content = {"clean_label": CLEAN, "worse_label": WORSE} | changes
        content = {k: v for k, v in content.items() if v is not None}
    file = fakes.torch_zip(tmp_path / "a.pt", content)
    with pytest.raises(UserError, match=f"^{file}: .*{word}"):
        read(file)


def test_find(tmp_path):
    file = tmp_path / "human_labels" / "cifar10n.npz"
    file.parent.mkdir()
    file.write_bytes(b"")
    assert cifar_human.find(BENCH, "", [tmp_path / "x", tmp_path]) == file
    assert cifar_human.find(BENCH, str(file), []) == file
    for given in ("", str(tmp_path / "x")):
        with pytest.raises(UserError, match="^config.data.labels_file: "):
            cifar_human.find(BENCH, given, [tmp_path / "x"])
