"""Files of weights as PyTorch and safetensors write them, made by hand."""

import collections
import contextlib
import io
import json
import pathlib
import pickle
import sys
import types
import zipfile
from unittest import mock

import numpy as np

STORAGES = {"f4": "FloatStorage", "f8": "DoubleStorage", "i8": "LongStorage"}


def resnet(bottleneck=False):
    """Random tensors with torchvision's names, in its order: width 4."""
    rng = np.random.default_rng(0)
    tensors = {}

    def conv(name, out, inside, size):
        shape = (out, inside, size, size)
        tensors[f"{name}.weight"] = rng.normal(size=shape).astype("f4")

    def bn(name, size):
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            values = rng.uniform(0.5, 1, size)
            tensors[f"{name}.{leaf}"] = values.astype("f4")
        tensors[f"{name}.num_batches_tracked"] = np.array(7)

    conv("conv1", 4, 3, 7)
    bn("bn1", 4)
    inside = 4
    for i, count in enumerate((1, 2)):
        f = 4 * 2**i
        sizes = [(f, 1), (f, 3), (4 * f, 1)] if bottleneck else [(f, 3)] * 2
        for j in range(count):
            name, first = f"layer{i + 1}.{j}", inside
            for k, (out, size) in enumerate(sizes, 1):
                conv(f"{name}.conv{k}", out, inside, size)
                bn(f"{name}.bn{k}", out)
                inside = out
            if j == 0 and (i > 0 or first != inside):
                conv(f"{name}.downsample.0", inside, first, 1)
                bn(f"{name}.downsample.1", inside)
    tensors["fc.weight"] = np.zeros((3, inside), "f4")
    tensors["fc.bias"] = np.zeros(3, "f4")
    return tensors


class Storage:
    def __init__(self, key, values):
        self.key, self.values = key, values


class Tensor:
    def __init__(self, storage, offset, shape, stride):
        self.parts = storage, offset, tuple(shape), tuple(stride)

    def __reduce__(self):
        rebuild = sys.modules["torch._utils"]._rebuild_tensor_v2
        return rebuild, (*self.parts, False, collections.OrderedDict())


class Pickler(pickle.Pickler):
    def __init__(self, file, view):
        super().__init__(file, protocol=2)
        self.view = view

    def persistent_id(self, obj):
        if not isinstance(obj, Storage):
            return None
        kind = STORAGES[obj.values.dtype.str[1:]]
        kind = getattr(sys.modules["torch"], kind)
        size = obj.values.size
        return ("storage", kind, obj.key, "cpu", size, *self.view)


@contextlib.contextmanager
def torch_importable():
    """What a pickle names must be importable while it is written."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for name in STORAGES.values():
        setattr(torch, name, type(name, (), {"__module__": "torch"}))

    def _rebuild_tensor_v2():
        raise AssertionError("is for its name only")

    _rebuild_tensor_v2.__module__ = "torch._utils"
    _rebuild_tensor_v2.__qualname__ = "_rebuild_tensor_v2"
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    modules = {"torch": torch, "torch._utils": utils}
    with mock.patch.dict(sys.modules, modules):
        yield


def state_dict(tensors):
    """The dictionary that is saved, and its storages.

    A matrix is a transposed view at an offset, as a file may have it.
    """
    content, storages = collections.OrderedDict(), []
    content._metadata = collections.OrderedDict({"": {"version": 1}})
    for i, (name, value) in enumerate(tensors.items()):
        if not isinstance(value, np.ndarray):
            content[name] = value
            continue
        flat, offset = value.ravel(), 0
        stride = [s // value.itemsize for s in value.strides]
        if value.ndim == 2:
            zeros = np.zeros(5, value.dtype)
            flat, offset = np.concatenate([zeros, value.T.ravel()]), 5
            stride = [1, len(value)]
        storages.append(Storage(str(i), flat))
        content[name] = Tensor(storages[-1], offset, value.shape, stride)
    return content, storages


def dump(content, view=()):
    file = io.BytesIO()
    with torch_importable():
        Pickler(file, view).dump(content)
    return file.getvalue()


def torch_zip(path: pathlib.Path, tensors, order="little") -> pathlib.Path:
    """As torch.save since PyTorch 1.6."""
    content, storages = state_dict(tensors)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/data.pkl", dump(content))
        archive.writestr("net/byteorder", order)
        for storage in storages:
            data = storage.values.tobytes()
            archive.writestr(f"net/data/{storage.key}", data)
        archive.writestr("net/version", "3\n")
    return path


def torch_legacy(path: pathlib.Path, tensors) -> pathlib.Path:
    """As torch.save before PyTorch 1.6."""
    content, storages = state_dict(tensors)
    system = {"little_endian": True}
    parts = [dump(p) for p in (0x1950A86A20F9469CFC6C, 1001, system)]
    parts += [dump(content, view=(None,))]
    storages = storages[::-1]
    parts += [dump([storage.key for storage in storages])]
    for storage in storages:
        size = storage.values.size.to_bytes(8, "little")
        parts += [size, storage.values.tobytes()]
    path.write_bytes(b"".join(parts))
    return path


def safetensors(path: pathlib.Path, tensors, **changes) -> pathlib.Path:
    """As the safetensors package; `changes` go into the header."""
    names = {"f4": "F32", "f8": "F64", "i8": "I64", "u2": "BF16", "f2": "F16"}
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, value in tensors.items():
        first, body = len(body), body + value.tobytes()
        header[name] = {
            "dtype": names[value.dtype.str[1:]],
            "shape": list(value.shape),
            "data_offsets": [first, len(body)],
        }
    text = json.dumps(header | changes).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return path
