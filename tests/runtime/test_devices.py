"""The same computation on 1, 2, 4 and 8 devices, and in two processes."""

import shutil

import jax
import pytest

from jaxnlt.results import files as result_files
from jaxnlt.runtime import checkpoint
from tests import runs
from tests.data import streamed
from tests.runtime import jobs, plan

METHODS = tuple(runs.methods())
METHOD = "dividemix"
X64 = {"JAX_ENABLE_X64": "1"}
TOLERANCE = {"float64": 1e-10, "float32": 1e-6}


def job(what, folder, *rest, **size):
    """Lets processes of tests/runtime/plan.py finish."""
    plan_of = ("-m", "tests.runtime.plan", what, folder, *rest)
    for status, _, stderr in jobs.Job(*plan_of, more=X64, **size).finish(600):
        assert status == 0, stderr[-3000:]


def found_by(folder):
    """Lines, split into words, that jobs have written in a folder."""
    return [line.split() for line in (folder / plan.FOUND).open()]


def differences(folder):
    """{(method-dtype, processes, devices): largest difference to 1 device}."""
    return {
        (name, int(processes), int(devices)): float(worst)
        for name, processes, devices, worst in found_by(folder)
    }


def test_one_device_and_eight_agree(tmp_path):
    job("compare", tmp_path, "1,8", METHOD, devices=8)
    found = differences(tmp_path)
    for dtype, tolerance in TOLERANCE.items():
        name = f"{METHOD}-{dtype}"
        assert {key[1:] for key in found if key[0] == name} == {(1, 1), (1, 8)}
        # They did not compute the same twice.
        assert 0 < found[name, 1, 8] < tolerance, found


@pytest.mark.slow
def test_every_method_agrees_on_every_count(tmp_path):
    others = [method for method in METHODS if method != METHOD]
    job("compare", tmp_path, "1,2,4,8", METHOD, devices=8)
    job("compare", tmp_path, "1,8", *others, devices=8)
    job("compare", tmp_path, "4", *METHODS, count=2, devices=2)
    found = differences(tmp_path)
    expected = {(METHOD, 1, count) for count in (1, 2, 4, 8)}
    expected.add((METHOD, 2, 4))
    for method in others:
        expected |= {(method, 1, 1), (method, 1, 8), (method, 2, 4)}
    of_float64 = {key for key in found if key[0].endswith("-float64")}
    assert of_float64 == {(f"{m}-float64", p, d) for m, p, d in expected}
    for (name, *_), worst in found.items():
        assert worst < TOLERANCE[name.rpartition("-")[2]], found


@pytest.mark.slow
@pytest.mark.parametrize("count, devices", [(1, 8), (2, 2)])
def test_programs_that_wait_take_no_thread_from_the_first(
    count, devices, tmp_path
):
    """XLA's CPU devices stand still for good if too many are dispatched."""
    job("ahead", tmp_path, count=count, devices=devices)


# Resuming on other devices ----------------------------------------------------


@pytest.fixture(scope="module")
def saved_on_eight(tmp_path_factory):
    """A whole run on eight devices, and a copy as killed before its end."""
    whole = tmp_path_factory.mktemp("eight") / "whole"
    job("run", whole, METHOD, devices=8)
    killed = whole.with_name("killed")
    shutil.copytree(whole, killed)
    (killed / "summary.json").unlink()
    last = checkpoint.load(killed).epoch
    shutil.rmtree(killed / "checkpoints" / str(last))
    return whole, killed


@pytest.mark.slow
@pytest.mark.parametrize("count, devices", [(1, 1), (1, 4), (2, 2)])
def test_a_run_of_eight_devices_goes_on_elsewhere(
    count, devices, saved_on_eight, tmp_path
):
    whole, killed = saved_on_eight
    target = tmp_path / "run"
    shutil.copytree(killed, target)
    saved = checkpoint.load(target)
    job("run", target, METHOD, count=count, devices=devices)
    # The networks on the devices are the saved ones, to the bit.
    digest = checkpoint.weights_sha256(saved.states)
    assert found_by(tmp_path) == [["restored", str(saved.epoch), digest]]
    a, b = (checkpoint.load(folder) for folder in (whole, target))
    assert a.epoch == b.epoch == saved.epoch + 1
    assert plan.largest(*map(jax.tree.leaves, (a.states, b.states))) < 1e-10
    summary = result_files.read_json(target / "summary.json")
    used = count * devices
    assert summary["device"].startswith(f"{used} x " if used > 1 else "CPU")
    assert len(runs.records(target)) == summary["epochs"]


# Streamed images --------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_read_a_half_each(tmp_path):
    """They train as one does; a broken test image is counted once."""
    root = tmp_path / "images"
    streamed.write_folder(root)
    broken = sorted((root / "test").rglob("*.png"))[0]
    broken.write_bytes(b"no image")
    arguments = (
        *jobs.MAIN,
        "--config=erm:images,epochs=1",
        f"--config.data.path={root}",
        "--config.data.image_size=16",
        "--config.model.name=preact_resnet18",
        *jobs.TINY,
        "--config.model.dtype=float64",
        "--config.data.on_bad_image=skip",
    )
    found = []
    for count in (1, 2):
        workdir = tmp_path / str(count)
        words = (*arguments, f"--workdir={workdir}")
        ended = jobs.Job(*words, count=count, more=X64).finish()
        assert [status for status, *_ in ended] == [0] * count, ended
        (record,) = runs.records(workdir)
        assert record["bad_images"] == 1
        said = "".join(stderr for _, _, stderr in ended)
        # Another image replaces it where it fills the last batch up, too.
        assert 1 <= said.count(f"{broken}: ") <= count
        found.append(jax.tree.leaves(checkpoint.load(workdir).states))
    assert plan.largest(*found) < 1e-10


# Images divided over the devices ----------------------------------------------

DIVIDED = """
import jax, numpy as np
from jaxnlt.data import load, streaming
from jaxnlt.runtime import sharding
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
dataset = load.dataset(config)
with config.unlocked():
    config.data.divided = True
held = streaming.hold(dataset.train, config, mesh)
print(held.rows.sharding == rows)
"""


def test_divided_images_are_looked_up_where_they_lie():
    running = jobs.Job("-c", DIVIDED, devices=4, more=X64)
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
