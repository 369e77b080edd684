"""The same computation on 1, 2, 4 and 8 devices, and in two processes."""

import shutil

import jax
import numpy as np
import pytest

from jaxnlt.results import files as result_files
from jaxnlt.runtime import checkpoint
from tests import runs
from tests.data import streamed
from tests.runtime import jobs, plan

METHODS = tuple(runs.methods())
EVERY_COUNT = "dividemix"  # the others on one device and on eight
X64 = {"JAX_ENABLE_X64": "1"}
TOLERANCE = {"float64": 1e-10, "float32": 1e-6}


def job(what, folder, *rest, count=1, devices=1):
    """Lets processes of tests/runtime/plan.py finish."""
    environments = {n: X64 for n in range(count)}
    running = jobs.Job(
        *("-m", "tests.runtime.plan", what, folder, *rest),
        **{"count": count, "devices": devices, "environments": environments},
    )
    ended = running.finish(600)
    for status, _, stderr in ended:
        assert status == 0, stderr[-3000:]


def told(folder):
    """Lines, split into words, that jobs have left in a folder."""
    return [line.split() for line in (folder / plan.TOLD).open()]


@pytest.fixture(scope="module")
def differences(tmp_path_factory):
    """{(method-dtype, processes, devices): largest difference to 1 device}."""
    folder = tmp_path_factory.mktemp("plans")
    others = [method for method in METHODS if method != EVERY_COUNT]
    job("compare", folder, "1,2,4,8", EVERY_COUNT, devices=8)
    job("compare", folder, "1,8", *others, devices=8)
    job("compare", folder, "4", EVERY_COUNT, *others, count=2, devices=2)
    return {
        (name, int(processes), int(devices)): float(worst)
        for name, processes, devices, worst in told(folder)
    }


@pytest.mark.parametrize("method", METHODS)
def test_one_device_and_eight_and_two_processes_agree(method, differences):
    counts = (1, 2, 4, 8) if method == EVERY_COUNT else (1, 8)
    wanted = {(1, count) for count in counts} | {(2, 4)}
    found = {
        key[1:]: worst
        for key, worst in differences.items()
        if key[0] == f"{method}-float64"
    }
    assert set(found) == wanted
    assert max(found.values()) < TOLERANCE["float64"], found
    assert found[1, 8] > 0  # they did not compute the same twice


def test_the_first_step_agrees_in_float32(differences):
    found = [v for k, v in differences.items() if k[0].endswith("-float32")]
    # Of the first method of each call: 4 counts, 2, and that of processes.
    assert len(found) == 7
    assert max(found) < TOLERANCE["float32"], found


@pytest.mark.parametrize("count, devices", [(1, 8), (2, 2)])
def test_programs_that_wait_take_no_thread_from_the_first(
    count, devices, tmp_path
):
    """XLA's CPU devices stand still for good if too many are dispatched."""
    job("ahead", tmp_path, count=count, devices=devices)


# Resuming on other devices ----------------------------------------------------

RESUMED = "tabasco"  # selects, has two networks, and shares others' programs


@pytest.fixture(scope="module")
def saved_on_eight(tmp_path_factory):
    """A whole run on eight devices, and a copy as killed before its end."""
    whole = tmp_path_factory.mktemp("eight") / "whole"
    job("run", whole, RESUMED, devices=8)
    killed = whole.with_name("killed")
    shutil.copytree(whole, killed)
    (killed / "summary.json").unlink()
    last = checkpoint.load(killed).epoch
    shutil.rmtree(killed / "checkpoints" / str(last))
    return whole, killed


@pytest.mark.parametrize("count, devices", [(1, 1), (1, 4), (2, 2)])
def test_a_run_of_eight_devices_goes_on_elsewhere(
    count, devices, saved_on_eight, tmp_path
):
    whole, killed = saved_on_eight
    target = tmp_path / "run"
    shutil.copytree(killed, target)
    saved = checkpoint.load(target)
    job("run", target, RESUMED, count=count, devices=devices)
    # What stands on the devices is what was saved, to the bit.
    digest = checkpoint.weights_sha256(saved.states)
    assert told(tmp_path) == [["restored", str(saved.epoch), digest]]
    a, b = (checkpoint.load(folder) for folder in (whole, target))
    assert a.epoch == b.epoch == saved.epoch + 1
    pairs = zip(*map(jax.tree.leaves, (a.states, b.states)), strict=True)
    assert max(np.abs(x - y).max(initial=0) for x, y in pairs) < 1e-10
    summary = result_files.read_json(target / "summary.json")
    used = count * devices
    assert summary["device"].startswith(f"{used} x " if used > 1 else "CPU")
    assert len(runs.records(target)) == summary["epochs"]


# Streamed images --------------------------------------------------------------


def test_two_processes_read_a_half_each(tmp_path):
    """Training is one process's; a broken test image is counted once."""
    root = tmp_path / "images"
    streamed.write_folder(root)
    broken = sorted((root / "test").rglob("*.png"))[0]
    broken.write_bytes(b"no image")
    arguments = (
        *("-m", "jaxnlt.main", "--config=erm:images,epochs=1"),
        *(f"--config.data.path={root}", "--config.data.image_size=16"),
        *("--config.model.name=preact_resnet18", *jobs.TINY),
        *("--config.model.dtype=float64", "--config.data.on_bad_image=skip"),
    )
    found = []
    for count in (1, 2):
        workdir = tmp_path / str(count)
        running = jobs.Job(
            *(*arguments, f"--workdir={workdir}"),
            **{"count": count, "environments": {0: X64, 1: X64}},
        )
        ended = running.finish()
        assert [status for status, *_ in ended] == [0] * count, ended
        (record,) = runs.records(workdir)
        assert record["bad_images"] == 1
        said = "".join(stderr for _, _, stderr in ended)
        # It stands in for images that fill the last batch up, too.
        assert 1 <= said.count(f"{broken}: ") <= count
        found.append(jax.tree.leaves(checkpoint.load(workdir).states))
    worst = max(
        np.abs(a - b).max(initial=0) for a, b in zip(*found, strict=True)
    )
    assert worst < 1e-10


# Images divided over the devices ----------------------------------------------

DIVIDED = """
import jax, numpy as np
from jaxnlt import sharding
from tests.runtime import plan
images = np.random.default_rng(0).integers(256, size=(1003, 6, 6, 3))
images = images.astype(np.uint8)
mesh = sharding.make_mesh([32])
divided = sharding.divide(images, mesh)
assert divided.shape == (1004, 6, 6, 3)
assert divided.addressable_data(0).shape == (251, 6, 6, 3)
index = np.random.default_rng(1).integers(1003, size=32)
rows = sharding.batched(mesh)
take = jax.jit(lambda x, i: x[i], in_shardings=(None, rows), out_shardings=rows)
assert (np.asarray(take(divided, index)) == images[index]).all()
text = take.lower(divided, index).compile().as_text()
print("1004,6,6,3]" not in text, "u8[251,6,6,3]" in text)
config = plan.configuration("erm")
from jaxnlt import data, streaming
dataset = data.load(config)
with config.unlocked():
    config.data.divided = True
held = streaming.hold(dataset.train, config, mesh)
print(held.sharding == rows)
"""


def test_divided_images_are_looked_up_where_they_lie():
    running = jobs.Job("-c", DIVIDED, devices=4, environments={0: X64})
    ((status, stdout, stderr),) = running.finish()
    assert status == 0, stderr
    # No device ever holds all of them.
    assert stdout.split() == ["True", "True", "True"]


def test_divided_images_train_alike(tmp_path):
    a = plan.configuration("erm", "float32", 3)
    found = []
    for divided in (False, True):
        with a.unlocked():
            a.data.divided = divided
        found.append(plan.train_lib.run(a, tmp_path / str(divided)))
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]
