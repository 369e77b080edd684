import os
import pickle

import numpy as np
import pytest

from jaxnlt.data.readers import pickles
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

CONTENT = {"clean": np.arange(5), "deep": [{"x": (1, b"two", "3")}]}


class Evil:
    def __reduce__(self):
        return os.system, ("touch HACKED",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_plain_values(protocol):
    array = np.arange(6, dtype=np.uint8).reshape(2, 3)
    content = {"x": array, "y": [1, 2.5, np.int64(3)]}
    back = pickles.loads(pickle.dumps(content, protocol=protocol), "f")
    back = {k if isinstance(k, str) else k.decode(): v for k, v in back.items()}
    assert back["x"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert back["y"] == [1, 2.5, 3]


def test_names_of_numpy_one():
    data = pickle.dumps(np.arange(3), protocol=2)
    old = data.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert old != data
    assert pickles.loads(old, "f").tolist() == [0, 1, 2]


@pytest.mark.parametrize("write", [fakes.torch_zip, fakes.torch_legacy])
def test_code_is_refused_and_not_run(tmp_path, monkeypatch, write):
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path / "a.pt", {"clean": Evil()})
    with pytest.raises(UserError, match=r"a\.pt: refused, holds \w+\.system"):
        pickles.read_torch(file)
    assert not (tmp_path / "HACKED").exists()


def test_other_globals_and_tensors_are_refused():
    with pytest.raises(UserError, match="^f: refused, holds builtins.eval"):
        pickles.loads(b"cbuiltins\neval\n.", "f")
    with pytest.raises(UserError, match="refused, holds a torch tensor"):
        pickles.loads(b"\x80\x02X\x01\x00\x00\x00aQ.", "f")


@pytest.mark.parametrize("write", [fakes.torch_zip, fakes.torch_legacy])
def test_every_truncation_is_one_line(tmp_path, write):
    file = write(tmp_path / "a.pt", CONTENT)
    data = file.read_bytes()
    # The last 300 bytes of a zip are its directory; legacy files end in keys
    # of storages, which are not read.
    for size in range(0, len(data) - 5, 17):
        file.write_bytes(data[:size])
        try:
            back = pickles.read_torch(file)
        except UserError as error:
            assert str(file) in str(error) and "\n" not in str(error)
        else:
            assert write is fakes.torch_legacy
            assert back["clean"].tolist() == [0, 1, 2, 3, 4]


def test_missing_or_foreign_file(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        pickles.read_torch(tmp_path / "none.pt")
    (tmp_path / "a.pt").write_bytes(pickle.dumps([1]))
    with pytest.raises(UserError, match="not a torch.save file"):
        pickles.read_torch(tmp_path / "a.pt")
