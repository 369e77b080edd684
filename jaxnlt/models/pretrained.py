"""Weights of a torchvision ResNet, read into our backbone without PyTorch."""

import os
import re
from typing import Any

import numpy as np
from flax import traverse_util

from jaxnlt.data import untrusted
from jaxnlt.data.readers import pickles
from jaxnlt.runtime import paths
from jaxnlt.runtime.errors import UserError

Values = dict[str, Any]

#: safetensors' name of a dtype -> NumPy's.
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U64": "<u8",
    "U32": "<u4",
    "U16": "<u2",
    "U8": "u1",
    "BOOL": "?",
}
#: Our layers -> torchvision's, in the order of its files.
_LAYERS = {
    "conv": "conv1",
    "bn": "bn1",
    "conv1": "conv1",
    "bn1": "bn1",
    "conv2": "conv2",
    "bn2": "bn2",
    "conv3": "conv3",
    "bn3": "bn3",
    "shortcut": "downsample.0",
    "shortcut_bn": "downsample.1",
}
_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "bias": "bias",
    "mean": "running_mean",
    "var": "running_var",
}
#: Tensors of a file that are not read: the classifier, and batch counters.
_UNUSED = re.compile(r"fc\.(weight|bias)|(.*\.)?num_batches_tracked")


def overlay(values: Values, file: str) -> Values:
    """Replaces a ResNet's backbone by the weights of a file.

    Args:
      values: {'params': tree, 'batch_stats': tree} of numpy arrays, each with
        the part 'backbone'.
      file: a ``.pth`` that PyTorch saved or a ``.safetensors``, with
        torchvision's names; its classifier ('fc') is not read.

    Returns:
      The same trees, in the same dtypes.

    Raises:
      UserError: the file is missing, damaged or refused, or a tensor is
        missing, of another shape, or unknown; the first one is named.
    """
    path = paths.expanded(file, "config.model.pretrained")
    tensors = read(path)
    flat = traverse_util.flatten_dict(
        {kind: tree["backbone"] for kind, tree in values.items()}
    )
    names = {_torch_name(place): place for place in sorted(flat, key=_order)}
    for name, place in names.items():
        if name not in tensors:
            raise UserError(f"{path}: holds no {name}, which the network has")
        found = tensors[name]
        shape = _torch_shape(flat[place].shape)
        if found.shape != shape:
            raise UserError(
                f"{path}: {name} has shape {found.shape}, the network's has "
                f"{shape}"
            )
        if found.dtype.kind != "f":
            raise UserError(f"{path}: {name} is {found.dtype}, not floating")
        ours = found.transpose(2, 3, 1, 0) if found.ndim == 4 else found
        flat[place] = np.array(ours, flat[place].dtype, order="C")
    for name in tensors:
        if name not in names and not _UNUSED.fullmatch(name):
            raise UserError(f"{path}: holds {name}, which the network lacks")
    filled = traverse_util.unflatten_dict(flat)
    return {
        kind: tree | {"backbone": filled[kind]} for kind, tree in values.items()
    }


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads the tensors of a file of weights.

    Args:
      path: ``.safetensors``, else a file of PyTorch.

    Returns:
      Name -> array.

    Raises:
      UserError: the file cannot be read, is damaged, holds executable code, or
        is no dictionary of tensors.
    """
    if str(path).endswith(".safetensors"):
        return read_safetensors(path)
    content = pickles.read_torch(path, tensors=True)
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no dictionary of tensors")
    tensors = {}
    for key, value in content.items():
        # Python 2 wrote bytes.
        name = key.decode(errors="replace") if isinstance(key, bytes) else key
        if not isinstance(value, np.ndarray):
            raise UserError(
                f"{path}: {name} is no tensor; a state dict with torchvision's "
                "names is needed"
            )
        tensors[str(name)] = value
    return tensors


def read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Reads a ``.safetensors`` file: a JSON header, then the raw numbers.

    Args:
      path: the file.

    Returns:
      Name -> array; bfloat16 comes as float32.

    Raises:
      UserError: the file cannot be read or is damaged.

    Source: https://github.com/huggingface/safetensors, README, Format.
    """
    data = untrusted.read_bytes(path, pickles.LIMIT)
    try:
        end = 8 + int.from_bytes(data[:8], "little")
        if len(data) < 8 or end > len(data):
            raise ValueError("the header is cut off")
        header = untrusted.parse_json(data[8:end])
        header.pop("__metadata__", None)
        spans = [entry["data_offsets"] for entry in header.values()]
        # Else a small file could hold any number of large tensors.
        if sum(last - first for first, last in spans) > len(data) - end:
            raise ValueError("tensors overlap or reach beyond the file")
        body = memoryview(data)[end:]
        return {name: _tensor(body, entry) for name, entry in header.items()}
    # In a damaged header anything can be missing or of another type.
    except (
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        untrusted.Refused,
    ) as error:
        raise UserError(
            f"{path}: damaged or not a safetensors file "
            f"({type(error).__name__}: {error})"
        ) from None


def _tensor(body: memoryview, entry: dict[str, Any]) -> np.ndarray:
    """One tensor of a safetensors file."""
    first, last = entry["data_offsets"]
    if not 0 <= first <= last <= len(body):
        raise ValueError(f"data_offsets {first}, {last} of {len(body)}")
    dtype = np.dtype(_DTYPES[entry["dtype"]])
    array = untrusted.plain_array(
        body[first:last], dtype, tuple(entry["shape"])
    )
    if entry["dtype"] == "BF16":
        # bfloat16 is the upper half of a float32.
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return array


def _order(place: tuple[str, ...]) -> tuple[list[int], int, int]:
    """Sorting key of our paths (kind, [block,] layer, leaf): torchvision's."""
    _, *block, layer, leaf = place
    numbers = [int(n) for n in re.findall(r"\d+", "".join(block))]
    return numbers, list(_LAYERS).index(layer), list(_LEAVES).index(leaf)


def _torch_name(place: tuple[str, ...]) -> str:
    """'layer1.0.conv1.weight' of ('params', 'stage1_block1', 'conv1', ...)."""
    _, *block, layer, leaf = place
    name = f"{_LAYERS[layer]}.{_LEAVES[leaf]}"
    if not block:
        return name
    stage, number = map(int, re.findall(r"\d+", block[0]))
    return f"layer{stage}.{number - 1}.{name}"


def _torch_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """OIHW of HWIO; vectors as they are."""
    return (shape[3], shape[2], *shape[:2]) if len(shape) == 4 else shape
