"""The authors' networks: both modes, statistics and parameter counts."""

import functools

import jax
import numpy as np
import pytest
from flax import linen as nn

from jaxnlt.models.preact_resnet import PreActBlock
from jaxnlt.models.resnet_cifar import BasicBlock
from tests.golden import torch_names
from tests.golden.cases import golden

#: The authors' names of heads' outputs that are not ours.
DASC_OUTPUTS = {"logits1": "logits", "logits2": "balanced"}
#: The same in the files of SFA.
SFA_OUTPUTS = {
    "features": "features",
    "logits": "logits",
    "logits_balanced": "balanced",
}
MOVING = ("running_mean", "running_var")


@functools.partial(jax.jit, static_argnames=("network", "heads", "train"))
def forward(network, variables, images, heads, train):
    """Outputs, running statistics, and the spatial mean of each stage."""
    stages = {}

    def record(call, args, kwargs, context):
        result = call(*args, **kwargs)
        module = context.module
        if isinstance(module, (PreActBlock, BasicBlock)) and (
            context.method_name == "__call__"
        ):
            stage = module.name.partition("_")[0].removeprefix("stage")
            stages[f"stage_mean_layer{stage}"] = result.mean((1, 2))
        return result

    with nn.intercept_methods(record):
        outputs, stats = network.apply(variables, images, heads, train)
    return outputs, stats, stages


def run(tensors, images_nchw, train, dtype="float32"):
    """One pass with every head of a torch network."""
    images = np.ascontiguousarray(images_nchw.transpose(0, 2, 3, 1))
    network = torch_names.network(tensors, dtype)
    with (
        jax.enable_x64(dtype == "float64"),
        jax.default_matmul_precision("highest"),
    ):
        variables = jax.tree.map(
            lambda x: x.astype(dtype), torch_names.variables(tensors)
        )
        heads = ("features", *network.module.held)
        images = images.astype(dtype)
        results = forward(network, variables, images, heads, train)
        return jax.device_get(results)


def compare(case, found, rtol, atol):
    """Those of the arrays that the file has."""
    assert found.keys() & case.keys()
    for key in found.keys() & case.keys():
        np.testing.assert_allclose(
            found[key], case[key], rtol, atol, err_msg=key
        )


def check_parameters(tensors, expected: int, size: int = 32) -> None:
    """Our network has exactly these parameters, and so many."""
    given = torch_names.variables(tensors)
    ours = torch_names.network(tensors, "float32").shapes((size, size, 3))
    assert jax.tree.map(np.shape, given) == jax.tree.map(np.shape, ours)
    assert sum(map(np.size, jax.tree.leaves(given["params"]))) == expected


# --- DaSC and TABASCO -------------------------------------------------------


def dasc_tensors(case) -> dict[str, np.ndarray]:
    """The parameters of the golden file's formula."""
    tensors = {}
    names, shapes = case["param_names"], case["param_shapes"]
    for t, (name, text) in enumerate(zip(names, shapes, strict=True)):
        shape = tuple(map(int, str(text).split(",")))
        i = np.arange(np.prod(shape), dtype=np.int64)
        u = (31 * i**2 + 16807 * i + 48271 * t + 12345) % 65521 / 65521 - 0.5
        if len(shape) > 1:
            value = u * np.sqrt(12) * np.sqrt(2 / np.prod(shape[1:]))
        elif name.endswith("running_var"):
            value = 1 + u
        elif name.endswith(".weight"):  # one-dimensional: BatchNorm
            value = 1 + 0.4 * u
        else:
            value = 0.4 * u
        tensors[str(name)] = value.reshape(shape).astype(np.float32)
    return tensors


@golden("dasc_network")
def test_dasc_parameters(case):
    check_parameters(dasc_tensors(case), case["num_trainable_parameters"])


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@golden("dasc_network")
def test_dasc_network(case, dtype, train):
    tensors = dasc_tensors(case)
    outputs, stats, stages = run(tensors, case["images_nchw"], train, dtype)

    found = stages | outputs
    found |= {name: outputs.get(ours) for name, ours in DASC_OUTPUTS.items()}
    compared = case.group("train__" if train else "eval__")
    if train:
        moved = case.group("after_one_train_forward__")
        compared |= moved
        found |= {
            name: torch_names.statistic(stats, name)
            for name in {key.rpartition("_")[0] for key in moved}
        }
    assert len(compared) >= 10
    for key, expected in compared.items():
        name, _, precision = key.rpartition("_")
        if dtype == "float32":
            rtol, atol = 2e-4, 1e-4 * np.abs(expected).max()
        elif precision == "f64":
            rtol, atol = 1e-6, 0
        else:
            continue  # float64 code is compared with float64 values
        assert found[name].dtype == dtype
        np.testing.assert_allclose(
            found[name], expected, rtol, atol, err_msg=key
        )


# --- SMR and UNICON ---------------------------------------------------------


CHUNK = 1 << 22  # a VGG's linear layer has 10^8 weights


def hashed(
    size: int, position: int, salt: int, amplitude: float, offset: float = 0.0
) -> np.ndarray:
    """offset + amplitude (2 u(k; p, salt) - 1), u a hash in [0, 1), [size]."""
    start = (0x9E3779B9 * (position + 1) + 0x7F4A7C15 * salt) % 2**32
    values = np.empty(size, np.float32)
    for first in range(0, size, CHUNK):
        h = np.arange(first, min(first + CHUNK, size), dtype=np.uint32)
        h += np.uint32(start)  # 32-bit integers wrap round, as wanted
        h ^= h >> np.uint32(16)
        h *= np.uint32(0x85EBCA6B)
        h ^= h >> np.uint32(13)
        h *= np.uint32(0xC2B2AE35)
        h ^= h >> np.uint32(16)
        u = h / 2.0**32
        values[first : first + CHUNK] = offset + amplitude * (2 * u - 1)
    return values


def smr_tensors(case) -> dict[str, np.ndarray]:
    """The parameters and running statistics of the formula, checked."""
    tensors = {}
    salt = int(case["salt"])
    norms = set(map(str, case["bn_names"]))
    for p, name in enumerate(map(str, case["param_names"])):
        shape = tuple(map(int, str(case["param_shapes"][p]).split("x")))
        module, _, leaf = name.rpartition(".")
        amplitude, offset = 0.1, 0.0
        if len(shape) > 1:
            gain = float(case["conv_gain"]) if len(shape) == 4 else 1.0
            amplitude = np.sqrt(3 * gain / np.prod(shape[1:]))
        elif module in norms and leaf == "weight":
            amplitude, offset = 0.2, 1.0
        value = hashed(int(np.prod(shape)), p, salt, amplitude, offset)
        first = case["param_first4"][p]
        np.testing.assert_array_equal(value[: len(first)], first[: value.size])
        np.testing.assert_allclose(
            value.sum(dtype=np.float64), case["param_sum_f64"][p], atol=1e-6
        )
        tensors[name] = value.reshape(shape)
    for j, name in enumerate(map(str, case["bn_names"])):
        size = tensors[f"{name}.weight"].size
        for i, key, amplitude, offset in (
            (100000, "running_mean", 0.1, 0.0),
            (100001, "running_var", 0.25, 1.0),
        ):
            value = hashed(size, i + 2 * j, salt, amplitude, offset)
            tensors[f"{name}.{key}"] = value
            first = case[f"bn_{key}_first2"][j]
            np.testing.assert_array_equal(value[:2], first)
    return tensors


def smr_input(case, shape_key: str) -> np.ndarray:
    """The images of the formula, NCHW, checked."""
    shape = tuple(case[shape_key])
    values = hashed(int(np.prod(shape)), 200000, int(case["salt"]), 1.7)
    first = case["input_first8"]
    np.testing.assert_array_equal(values[: len(first)], first)
    return values.reshape(shape)


def called(tensors) -> dict[str, np.ndarray]:
    """Without the projection of SMR's Inception network, which nothing runs."""
    return {
        name: value
        for name, value in tensors.items()
        if not name.startswith("projection_head.")
        or "last_linear.weight" not in tensors
    }


RESNETS = (
    "model_preact_resnet18",
    "model_preact_resnet18_unicon",
    "model_resnet50",
)
INCEPTION = "model_inception_resnet_v2"


@golden(*RESNETS, "model_vgg19_bn", INCEPTION)
def test_smr_eval(case):
    everything = smr_tensors(case)
    tensors = called(everything)
    unused = sum(map(np.size, everything.values()))
    unused -= sum(map(np.size, tensors.values()))
    size = int(case["input_shape_nchw"][-1])
    check_parameters(tensors, case["n_params"] - unused, size)
    stats = jax.tree.leaves(torch_names.variables(tensors)["batch_stats"])
    assert sum(map(np.size, stats)) == case["n_bn_stats"]

    images = smr_input(case, "input_shape_nchw")
    np.testing.assert_allclose(
        images.sum(dtype=np.float64), case["input_sum_f64"], atol=1e-6
    )
    if "input_nchw" in case:
        np.testing.assert_array_equal(images, case["input_nchw"])
    outputs, _, _ = run(tensors, images, train=False)
    found = {f"{head}_eval": value for head, value in outputs.items()}
    found["logits_eval_f64"] = outputs["logits"]
    compare(case, found, rtol=1e-4, atol=1e-3)


@golden(*RESNETS)  # a VGG's dropout is random in train mode
def test_smr_train(case):
    check_train(case)


@pytest.mark.slow
@golden(INCEPTION)
def test_smr_train_inception(case):
    check_train(case)


def check_train(case):
    tensors = called(smr_tensors(case))
    images = smr_input(case, "train_input_shape_nchw")
    outputs, stats, _ = run(tensors, images, train=True)
    found = {f"{head}_train": value for head, value in outputs.items()}
    found["logits_train_f64"] = outputs["logits"]
    compare(case, found, rtol=0, atol=1e-3)

    names = list(map(str, case["bn_names"]))
    moved = {
        f"{name}.{key}": torch_names.statistic(stats, f"{name}.{key}")
        for name in names
        for key in MOVING
    }
    layers = {
        f"after_train_{name.replace('.', '_')}": value
        for name, value in moved.items()
    }
    compare(case, layers, rtol=0, atol=1e-4)
    for key in MOVING:
        sums = [moved[f"{name}.{key}"].sum(dtype=float) for name in names]
        expected = case[f"after_train_{key}_sums"]
        np.testing.assert_allclose(sums, expected, rtol=0, atol=5e-3)

    expected = case["logits_eval_after_train_forward"]
    # Where the two batches differ in size, the training batch.
    if len(expected) == case["input_shape_nchw"][0]:
        images = smr_input(case, "input_shape_nchw")
    evaluated, _, _ = run(tensors | moved, images, train=False)
    found = {"logits_eval_after_train_forward": evaluated["logits"]}
    compare(case, found, rtol=1e-4, atol=1e-3)


# --- SFA --------------------------------------------------------------------


def sfa_tensors(case) -> dict[str, np.ndarray]:
    """The parameters of the recipe, drawn in order."""
    rs = np.random.RandomState(int(case["fill_seed"]))
    tensors = {}
    names, shapes = case["names"], case["shapes_zero_padded"]
    for name, padded in zip(map(str, names), shapes, strict=True):
        shape = tuple(padded[padded > 0])
        r = rs.standard_normal(shape)
        if name.endswith("running_var"):
            value = 1 + 0.2 * np.abs(r)
        elif name.endswith(("running_mean", "bias")):
            value = 0.1 * r
        elif len(shape) == 1:
            value = 1 + 0.1 * r
        else:
            value = r * np.sqrt(2 / np.prod(shape[1:]))
        tensors[name] = value.astype(np.float32)
    return tensors


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@golden("sfa_arch_preact18")
def test_sfa_network(case, train):
    tensors = sfa_tensors(case)
    check_parameters(tensors, 11_166_144 + 1026 * int(case["num_class"]))
    outputs, stats, _ = run(tensors, case["input_nchw"], train)
    mode = "train" if train else "eval"
    found = {f"{mode}_{k}": outputs[head] for k, head in SFA_OUTPUTS.items()}
    if train:
        last = [name for name in tensors if name.endswith("bn2.weight")][-1]
        layers = {"bn1": "bn1", "last_bn": last.removesuffix(".weight")}
        for key, name in layers.items():
            for part in MOVING:
                value = torch_names.statistic(stats, f"{name}.{part}")
                found[f"{key}_{part}_after"] = value
    assert found.keys() <= case.keys()
    compare(case, found, rtol=1e-4, atol=1e-4)


@golden("sfa_arch_inception_resnet_v2")
def test_sfa_inception(case):
    tensors = sfa_tensors(case)
    shape = tuple(case["input_shape_nchw"])
    rs = np.random.RandomState(int(case["input_seed"]))
    images = rs.standard_normal(shape).astype(np.float32)
    np.testing.assert_allclose(
        images.sum(dtype=np.float64), case["input_checksum"], rtol=1e-9
    )
    expected_size = 54_306_464 + 2 * 1537 * int(case["num_class"])
    check_parameters(tensors, expected_size, shape[-1])
    outputs, _, _ = run(tensors, images, train=False)
    found = {f"eval_{k}": outputs[head] for k, head in SFA_OUTPUTS.items()}
    assert found.keys() <= case.keys()
    compare(case, found, rtol=1e-3, atol=1e-4)


# --- RoLT -------------------------------------------------------------------


@pytest.mark.parametrize("train", [False, True], ids=["eval", "train"])
@golden("rolt_arch_resnet32")
def test_rolt_network(case, train):
    """The trunk; classifiers are those of every other network."""
    tensors = sfa_tensors(case)
    sizes = [v.size for k, v in tensors.items() if not k.endswith(MOVING)]
    check_parameters(tensors, sum(sizes))
    outputs, _, _ = run(tensors, case["input_nchw"], train)
    found = {f"{'train' if train else 'eval'}_features": outputs["features"]}
    compare(case, found, rtol=1e-3, atol=1e-4)
