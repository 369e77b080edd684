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
    "fc": "logits",
    "last_linear": "logits",
    "last_linear2": "balanced",
    "classifier": "logits",
    "classifier2": "balanced",
    "classifier.0": "backbone/linear1",
    "classifier.3": "backbone/linear2",
    "classifier.6": "logits",
    "projector.0": "projector/hidden",
    "projector.1": "projector/bn",
    "projector.3": "projector/out",
    "prototypes_project.0": "prototype_projector/hidden",
    "prototypes_project.1": "prototype_projector/bn",
    "prototypes_project.3": "prototype_projector/out",
    "projection_head": "embedding/linear",
    "bnl": "embedding/bn",
    # Inception-ResNet-v2
    "conv2d_1a": "backbone/stem1",
    "conv2d_2a": "backbone/stem2",
    "conv2d_2b": "backbone/stem3",
    "conv2d_3b": "backbone/stem4",
    "conv2d_4a": "backbone/stem5",
    "conv2d_7b": "backbone/last",
}
#: Torch module whose output length is a head's, and which shows it exists.
HEADS = {
    "linear": "logits",
    "linear2": "balanced",
    "fc": "logits",
    "last_linear": "logits",
    "last_linear2": "balanced",
    "classifier": "logits",
    "classifier2": "balanced",
    "classifier.6": "logits",
    "projector.3": "projection",
    "prototypes_project.3": "prototypes",
    "projection_head": "embedding",
}
#: Torch layers of a block whose names differ from ours.
LAYERS = {
    "shortcut.0": "shortcut",
    "shortcut.1": "shortcut_bn",
    "downsample.0": "shortcut",
    "downsample.1": "shortcut_bn",
}
#: Residual stages of Inception-ResNet-v2.
INCEPTION = {"repeat": "block35", "repeat_1": "block17", "repeat_2": "block8"}
#: Index of a VGG19's convolution in torchvision's list -> (stage, number).
VGG = {
    0: (1, 1),
    3: (1, 2),
    7: (2, 1),
    10: (2, 2),
    **{14 + 3 * i: (3, i + 1) for i in range(4)},
    **{27 + 3 * i: (4, i + 1) for i in range(4)},
    **{40 + 3 * i: (5, i + 1) for i in range(4)},
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
    feature = re.fullmatch(r"features\.(\d+)", module)
    if feature:
        index = int(feature[1])
        layer = "conv" if index in VGG else "bn"
        stage, number = VGG[index if layer == "conv" else index - 1]
        return ["backbone", f"{layer}{stage}_{number}"]
    if re.match(r"conv2d_\d|mixed|repeat|block8", module):
        return inception_path(module)
    return MODULES[module].split("/")


def inception_path(module: str) -> list[str]:
    """Our path of 'conv2d_1a.bn' or 'repeat.0.branch1.2.conv'."""
    part, _, rest = module.partition(".")
    if part in MODULES:
        return [*MODULES[part].split("/"), rest]
    if part in INCEPTION:
        index, _, rest = rest.partition(".")
        part = f"{INCEPTION[part]}_{int(index) + 1}"
    elif part == "block8":
        part = "block8_10"
    if rest == "conv2d":
        return ["backbone", part, "up"]
    branch, *number, layer = rest.split(".")
    return ["backbone", part, f"{branch}_{number[0] if number else 0}", layer]


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
        assert LEAVES.get(leaf, leaf) not in node
        node[LEAVES.get(leaf, leaf)] = (
            value.transpose(2, 3, 1, 0) if value.ndim == 4 else value.T
        )
    return tree


def backbone(tensors: dict[str, np.ndarray]) -> dict:
    """Name and size of our backbone."""
    names = " ".join(tensors)
    if "features.0.weight" in tensors:
        return {"name": "vgg19_bn", "width": 0, "blocks": ()}
    if "block8.conv2d.weight" in tensors:
        return {"name": "inception_resnet_v2", "width": 0, "blocks": ()}
    stem = tensors["conv1.weight"].shape
    stages = re.findall(r"layer(\d+)\.\d+\.bn1\.weight", names)
    if stem[-1] == 7:
        name = "resnet50" if ".conv3." in names else "resnet18"
    elif ".downsample.1." in names:
        name = "resnet32"
    else:
        dasc = ".shortcut.1." in names
        name = "resnet18_small" if dasc else "preact_resnet18"
    return {
        "name": name,
        "width": stem[0],
        "blocks": tuple(map(stages.count, sorted(set(stages)))),
    }


def network(tensors: dict[str, np.ndarray], dtype: str) -> models.Network:
    """Our network that has exactly these tensors."""
    has_bottleneck = "classifier.weight" in tensors
    lengths = {
        head: tensors[f"{module}.weight"].shape[0]
        for module, head in HEADS.items()
        if f"{module}.weight" in tensors
        and not (module == "linear" and has_bottleneck)
    }
    config = ConfigDict({**backbone(tensors), "dtype": dtype})
    dims = {lengths[head] for head in lengths.keys() - {"logits", "balanced"}}
    return models.build(
        config,
        lengths.get("logits", 2),  # a trunk alone has no classes
        tuple(lengths),
        bottleneck=has_bottleneck,
        **({"projection_dim": dims.pop()} if dims else {}),
    )
