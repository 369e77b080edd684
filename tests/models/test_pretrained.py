"""Weights from files, written in their true formats, in our networks."""

import re

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from jaxnlt import models
from jaxnlt.data.readers import pickles
from jaxnlt.models import pretrained
from jaxnlt.runtime.errors import UserError
from tests.golden import torch_names
from tests.models import weight_files

WRITERS = {
    "a.pth": weight_files.torch_zip,
    "b.pth": weight_files.torch_legacy,
    "c.safetensors": weight_files.safetensors,
}
SHAPE = (32, 32, 3)
TWO = np.zeros(2, "f4")


def network(file, name="resnet18"):
    fields = {"name": name, "width": 4, "blocks": (1, 2), "dtype": "float32"}
    config = ConfigDict(fields | {"pretrained": str(file)})
    return models.build(config, 5, ("logits", "balanced", "embedding"))


def written(tmp_path, tensors, name="a.pth"):
    return WRITERS[name](tmp_path / name, tensors)


@pytest.mark.parametrize(
    "name, bottleneck", [("a.pth", False), ("c.safetensors", True)]
)
def test_backbone_is_the_file_and_heads_are_drawn(tmp_path, name, bottleneck):
    tensors = weight_files.resnet(bottleneck=bottleneck)
    file = written(tmp_path, tensors, name)
    kind = "resnet50" if bottleneck else "resnet18"
    values = network(file, kind).init(3, SHAPE)
    expected = network("", kind).init(3, SHAPE)
    unused = re.compile(r"fc\.|.*num_batches")  # the file has three classes
    tensors = {k: v for k, v in tensors.items() if not unused.match(k)}
    for part, tree in torch_names.variables(tensors).items():
        expected[part]["backbone"] = tree["backbone"]
    assert jax.tree.structure(values) == jax.tree.structure(expected)
    jax.tree.map(np.testing.assert_array_equal, values, expected)
    for leaf in jax.tree.leaves(values):
        assert leaf.dtype == np.float32 and leaf.flags.writeable


def test_only_resnets_take_a_file():
    with pytest.raises(UserError, match=r"model\.pretrained: .*preact"):
        network("x.pth", "preact_resnet18")


def test_building_does_not_need_the_file(tmp_path):
    """A trained network predicts on machines that lack it."""
    net = network(tmp_path / "none.pth")
    net.shapes(SHAPE)
    with pytest.raises(UserError, match=r"none\.pth: no such file"):
        net.init(0, SHAPE)


@pytest.mark.parametrize(
    "change, tensor",
    [
        ({"layer2.0.bn1.bias": np.zeros(9, "f4")}, "layer2.0.bn1.bias"),
        ({"conv1.weight": np.zeros((4, 1, 7, 7), "f4")}, "conv1.weight"),
        ({"bn1.running_var": None}, "bn1.running_var"),
        ({"layer1.0.conv9.weight": np.zeros(4, "f4")}, "layer1.0.conv9.weight"),
        ({"bn1.bias": np.zeros(4, "i8")}, "bn1.bias"),
        # The first one in torchvision's order is named.
        ({"layer1.0.conv1.weight": None, "bn1.weight": TWO}, "bn1.weight"),
        ({"aaa": TWO, "bn1.bias": TWO, "bn1.weight": TWO}, "bn1.weight"),
        ({"bn1.running_mean": TWO, "conv1.weight": TWO}, "conv1.weight"),
    ],
)
def test_a_file_that_does_not_fit(tmp_path, change, tensor):
    tensors = weight_files.resnet() | change
    tensors = {k: v for k, v in tensors.items() if v is not None}
    file = written(tmp_path, tensors, "c.safetensors")
    with pytest.raises(UserError, match=re.escape(str(file))) as error:
        network(file).init(0, SHAPE)
    assert f" {tensor}" in str(error.value) and "\n" not in str(error.value)


def test_views_offsets_and_dtypes(tmp_path):
    tensors = {
        "matrix": np.arange(6, dtype="f4").reshape(2, 3),
        "double": np.arange(4, dtype="f8"),
        "scalar": np.array(5),
        "empty": np.zeros((0, 3), "f4"),
    }
    for name in WRITERS:
        back = pretrained.read(written(tmp_path, tensors, name))
        assert list(back) == list(tensors)
        for key, value in tensors.items():
            assert back[key].dtype == value.dtype
            np.testing.assert_array_equal(back[key], value)


def test_half_precision_of_safetensors(tmp_path):
    exact = np.array([1.5, -2.0, 0.0078125], np.float32)
    upper = (exact.view(np.uint32) >> 16).astype(np.uint16)
    file = weight_files.safetensors(
        tmp_path / "a.safetensors", {"b": upper, "h": exact.astype("f2")}
    )
    for value in pretrained.read(file).values():
        np.testing.assert_array_equal(value, exact)


def test_nested_dictionaries_are_no_state_dict(tmp_path):
    file = written(tmp_path, {"state_dict": {"epoch": 3}})
    with pytest.raises(UserError, match="state_dict is no tensor"):
        pretrained.read(file)


def test_other_objects(tmp_path):
    file = tmp_path / "a.pth"
    content, storages = weight_files.state_dict({"x": np.zeros(3, "f4")})
    storages[0].values = np.zeros(2, "f4")
    for name, tensor in (
        ("beyond", weight_files.Tensor(storages[0], 0, (3,), (1,))),
        ("before", weight_files.Tensor(storages[0], -1, (1,), (1,))),
        ("backwards", weight_files.Tensor(storages[0], 1, (2,), (-1,))),
    ):
        content.clear()
        content[name] = tensor
        with weight_files.zipfile.ZipFile(file, "w") as archive:
            archive.writestr("net/data.pkl", weight_files.dump(content))
            archive.writestr("net/data/0", storages[0].values.tobytes())
        with pytest.raises(UserError, match="reaches beyond its storage"):
            pretrained.read(file)
    weight_files.torch_zip(file, {"x": np.zeros(3, "f4")}, order="big")
    with pytest.raises(UserError, match="big-endian"):
        pretrained.read(file)


def test_code_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    class Evil:
        def __reduce__(self):
            return weight_files.pathlib.os.system, ("touch HACKED",)

    for name in ("a.pth", "b.pth"):
        file = written(tmp_path, {"x": Evil()}, name)
        with pytest.raises(UserError, match=r"refused, holds \w+\.system"):
            pretrained.read(file)
    assert not (tmp_path / "HACKED").exists()


def test_tensors_only_where_asked_for(tmp_path):
    file = written(tmp_path, {"x": np.zeros(3, "f4")})
    with pytest.raises(UserError, match=r"refused, holds torch\._utils"):
        pickles.read_torch(file)


@pytest.mark.parametrize("name", WRITERS)
def test_every_truncation_is_one_line(tmp_path, name):
    file = written(tmp_path, {"x": np.ones((4, 3), "f4")}, name)
    data = file.read_bytes()
    for size in range(len(data)):
        file.write_bytes(data[:size])
        with pytest.raises(UserError, match=file.name) as error:
            pretrained.read(file)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", WRITERS)
def test_flipped_bytes_are_one_line_or_harmless(tmp_path, name):
    file = written(tmp_path, {"x": np.ones((4, 3), "f4")}, name)
    data = file.read_bytes()
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] = (0, 0x28, 0xFF)[position % 3]
        file.write_bytes(flipped)
        try:
            found = pretrained.read(file)
        except UserError as error:
            assert file.name in str(error) and "\n" not in str(error)
        else:
            assert all(isinstance(v, np.ndarray) for v in found.values())


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [-8, 8]},
        {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        {"dtype": "F7", "shape": [2], "data_offsets": [0, 8]},
        {"dtype": "F32", "shape": [2]},
        3,
    ],
)
def test_damaged_safetensors(tmp_path, entry):
    file = weight_files.safetensors(
        tmp_path / "a.safetensors", {"x": np.zeros(2, "f4")}, x=entry
    )
    with pytest.raises(UserError, match=r"a\.safetensors: damaged"):
        pretrained.read(file)
