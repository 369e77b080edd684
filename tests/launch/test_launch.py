"""Launching on one machine, and what all scripts share, with a fake python."""

import inspect
import pathlib
import re
import signal
import subprocess
import sysconfig
import time

import pytest
from jax._src import distributed
from jax._src.clusters import cloud_tpu_cluster, slurm_cluster

from tests.launch.fake_commands import ARGUMENTS, COMMAND, LAUNCH, SAVE, ended

SCRIPTS = [LAUNCH / name for name in ("local.sh", "slurm.sbatch", "tpu_vm.sh")]
TWO = ("local.sh", "-n", "2", "--", "--config=x")

# All of them ----------------------------------------------------------------


def test_shellcheck():
    program = pathlib.Path(sysconfig.get_path("scripts")) / "shellcheck"
    scripts = [*SCRIPTS, LAUNCH / "gpu_check.sh"]
    command = [program, "--shell=bash", *scripts]
    done = subprocess.run(command, capture_output=True, text=True)
    assert not done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_ends_in_the_command_of_the_readme(script, fakes):
    text = script.read_text()
    assert text.endswith(f"{COMMAND}\n")
    # Environment only: what is trained stands in configs/.
    assert "config." not in text.split("\nEND\n", 1)[1]
    status, out, err = fakes.run(script.name, "--help")
    assert (status, err) == (0, "")
    assert out.startswith("usage: ") and "python -m jaxnlt.main" in out


def test_jax_reads_what_is_set():
    source = inspect.getsource(distributed)
    assert "JAX_LOCAL_DEVICE_IDS" in source
    assert "JAX_COORDINATOR_BIND_ADDRESS" in source
    assert "TPU_WORKER_HOSTNAMES" in inspect.getsource(cloud_tpu_cluster)
    # What JAX_LOCAL_DEVICE_IDS is there against.
    assert "SLURM_LOCALID" in inspect.getsource(slurm_cluster)


# local.sh -------------------------------------------------------------------


def test_one_process_is_the_command(fakes):
    left = {"JAXNLT_DISTRIBUTED": "auto", "XLA_FLAGS": "--a"}
    status, *_ = fakes.run("local.sh", "-d", "4", "--", *ARGUMENTS, **left)
    assert (status, fakes.arguments()) == (0, ARGUMENTS)
    flags = "--a --xla_force_host_platform_device_count=4"
    assert fakes.environment() == {"XLA_FLAGS": flags}


def test_several_processes(fakes):
    fakes.do("echo out; echo err >&2", "echo one; echo two >&2; printf three")
    status, out, err = fakes.run("local.sh", "-n", "2", "--", *ARGUMENTS)
    assert status == 0
    assert sorted(out.splitlines()) == ["[1] one", "[1] three", "out"]
    assert sorted(err.splitlines()) == ["[1] two", "err"]
    address = fakes.environment()["JAXNLT_COORDINATOR"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    for i in range(2):
        found = fakes.environment(i)
        assert found == {
            "JAXNLT_COORDINATOR": address,
            "JAXNLT_NUM_PROCESSES": "2",
            "JAXNLT_PROCESS_ID": f"{i}",
            "JAX_COORDINATOR_BIND_ADDRESS": address,
        }
        assert fakes.arguments(i) == ARGUMENTS


# After the other process.
LATER = "until [[ -e $folder/second ]]; do sleep 0.05; done; sleep 0.5; exit 1"


@pytest.mark.parametrize(
    ("first", "second", "expected", "said"),
    [
        ("exit 75", "exit 75", 75, ""),
        ("exit 0", "exit 75", 75, ""),
        ("exit 2", "exit 2", 2, ""),
        (LATER, "echo why >&2; exit 3", 3, "process 1 failed with exit"),
        (LATER, "exit 75", 1, "process 0 failed with exit"),
        (LATER, "kill -KILL $$", 137, "process 1 was killed by signal 9"),
    ],
)
def test_exit_status(first, second, expected, said, fakes):
    fakes.do(first, f"touch $folder/second; {second}")
    status, _, err = fakes.run(*TWO)
    assert status == expected
    assert not said or f"local.sh: {said}" in err
    assert ("[1] why\n" in err) == (expected == 3)
    # Nothing that bash says of its jobs.
    assert all(re.match(r"local\.sh: |\[1\] ", s) for s in err.splitlines())


@pytest.mark.parametrize("hanging", [":", "trap '' TERM"])
def test_the_others_are_ended(hanging, fakes):
    """By SIGTERM or, at last, by SIGKILL, with their children."""
    fakes.do(f"{hanging}; sleep 60 & sleep 60", "exit 3")
    start = time.monotonic()
    assert fakes.run(*TWO[:3], "-g", "1", *TWO[3:])[0] == 3
    assert time.monotonic() - start < 6


def test_leaves_no_child_of_a_process_behind(fakes):
    # It would hold what we read the output from.
    fakes.do("sleep 60 & exit 0", "sleep 60 & exit 75")
    assert fakes.run(*TWO)[0] == 75


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_after_saving(number, fakes):
    fakes.do(SAVE, SAVE)
    process = fakes.start(*TWO)
    fakes.wait_for("ready0", "ready1")
    process.send_signal(number)
    status, out, err = ended(process)
    assert (status, err) == (75, "")
    assert sorted(out.splitlines()) == ["[1] saved", "saved"]


def test_stops_before_anything_could_be_saved(fakes):
    fakes.do("exec sleep 60", "exec sleep 60")
    process = fakes.start(*TWO)
    fakes.wait_for("started0", "started1")
    process.terminate()
    assert ended(process)[0] == 75


@pytest.mark.parametrize(
    ("options", "env", "expected"),
    [
        ("-n 2", {}, ["0,1", "2,3"]),  # and says that one is left
        ("-n 2 -d 1", {}, ["0", "1"]),
        (
            "-n 2",
            {"CUDA_VISIBLE_DEVICES": "4,GPU-a,7,8"},
            ["4,GPU-a", "7,8"],
        ),
        ("-n 1 -d 2", {"JAX_PLATFORMS": "cuda"}, ["0,1"]),
        ("-n 2 -d 2", {"JAX_PLATFORMS": "cpu"}, [None, None]),
    ],
)
def test_gpus_are_shared_out(options, env, expected, fakes):
    fakes.add("nvidia-smi", "printf '%s\\n' 0 1 2 3 4")
    status, _, err = fakes.run("local.sh", *options.split(), "--", "--x", **env)
    assert status == 0
    found = [fakes.environment(i) for i in range(len(expected))]
    assert [e.get("CUDA_VISIBLE_DEVICES") for e in found] == expected
    assert bool(err) == (expected == ["0,1", "2,3"])
    assert ("XLA_FLAGS" in found[0]) == (None in expected)


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("-n 0 -- x", "-n: expects"),
        ("-d", "-d: expects"),
        ("--config=x", "--config=x: unknown"),
        ("-n 2 --", "missing after --"),
        ("-n 3 -- x", "-n 3: too many"),
        ("-n 2 -d 2 -- x", "-n 2 -d 2: too many"),
    ],
)
def test_mistakes(arguments, part, fakes):
    fakes.add("nvidia-smi", "printf '%s\\n' 0 1")
    status, out, err = fakes.run("local.sh", *arguments.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("local.sh: error: ") and part in err
