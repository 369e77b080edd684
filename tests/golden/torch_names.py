"""Turns the authors' PyTorch tensors into our networks and variables."""

import re

import numpy as np
from ml_collections import ConfigDict

from jaxnlt import models

#: Torch module -> path in our tree; 'linear' depends on the network.
MODULES = {
    "conv1": "backbone/conv",
    "bn1": "backbone/bn",
    "linear2": "balanced",
    "classifier": "logits",
    "classifier2": "balanced",
    "projector.0": "projector/hidden",
    "projector.1": "projector/bn",
    "projector.3": "projector/out",
    "prototypes_project.0": "prototype_projector/hidden",
    "prototypes_project.1": "prototype_projector/bn",
    "prototypes_project.3": "prototype_projector/out",
    "projection_head": "embedding/linear",
    "bnl": "embedding/bn",
}
#: Torch module whose output length is a head's, and which shows it exists.
HEADS = {
    "linear": "logits",
    "linear2": "balanced",
    "classifier": "logits",
    "classifier2": "balanced",
    "projector.3": "projection",
    "prototypes_project.3": "prototypes",
    "projection_head": "embedding",
}
#: Torch layers of a block whose names differ from ours.
LAYERS = {
    "shortcut.0": "shortcut",
    "downsample.0": "shortcut",
    "downsample.1": "shortcut_bn",
}
LEAVES = {"running_mean": "mean", "running_var": "var", "bias": "bias"}


def path(module: str, has_bottleneck: bool) -> list[str]:
    """Our path of a torch module such as 'layer2.0.bn1'."""
    if module == "linear":
        return ["bottleneck" if has_bottleneck else "logits"]
    block = re.fullmatch(r"layer(\d+)\.(\d+)\.([\w.]+)", module)
    if block:
        stage, index, layer = block.groups()
        layer = LAYERS.get(layer, layer)
        return ["backbone", f"stage{stage}_block{int(index) + 1}", layer]
    return MODULES[module].split("/")


def statistic(batch_stats: dict, name: str, has_bottleneck: bool = False):
    """Our running statistic of the torch name 'bn1.running_mean'."""
    module, _, leaf = name.rpartition(".")
    node = batch_stats
    for part in path(module, has_bottleneck):
        node = node[part]
    return node[LEAVES[leaf]]


def variables(tensors: dict[str, np.ndarray]) -> dict:
    """Our tree of torch tensors: OIHW -> HWIO, (out, in) -> (in, out)."""
    tree: dict = {"params": {}, "batch_stats": {}}
    for name, value in tensors.items():
        module, _, leaf = name.rpartition(".")
        kind = "batch_stats" if leaf.startswith("running") else "params"
        if leaf == "weight":
            leaf = "scale" if value.ndim == 1 else "kernel"
        node = tree[kind]
        for part in path(module, "classifier.weight" in tensors):
            node = node.setdefault(part, {})
        node[LEAVES.get(leaf, leaf)] = (
            value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        )
    return tree


def network(tensors: dict[str, np.ndarray], dtype: str) -> models.Network:
    """Our network that has exactly these tensors."""
    has_bottleneck = "classifier.weight" in tensors
    lengths = {
        head: tensors[f"{module}.weight"].shape[0]
        for module, head in HEADS.items()
        if f"{module}.weight" in tensors
        and not (module == "linear" and has_bottleneck)
    }
    stages = re.findall(r"layer(\d+)\.\d+\.bn1\.weight", " ".join(tensors))
    downsamples = any(".downsample." in key for key in tensors)
    name = "resnet32" if downsamples else "preact_resnet18"
    config = ConfigDict(
        {
            "name": name,
            "width": tensors["conv1.weight"].shape[0],
            "blocks": tuple(map(stages.count, sorted(set(stages)))),
            "dtype": dtype,
        }
    )
    dims = {lengths[head] for head in lengths.keys() - {"logits", "balanced"}}
    return models.build(
        config,
        lengths.get("logits", 2),  # a trunk alone has no classes
        tuple(lengths),
        bottleneck=has_bottleneck,
        **({"projection_dim": dims.pop()} if dims else {}),
    )
