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

from tests.launch.fake_commands import ARGUMENTS, COMMAND, LAUNCH, WAIT, Fakes

SCRIPTS = [LAUNCH / name for name in ("local.sh", "slurm.sbatch", "tpu_vm.sh")]


@pytest.fixture
def fakes(tmp_path):
    return Fakes(tmp_path)


# All of them ----------------------------------------------------------------


def test_shellcheck():
    program = pathlib.Path(sysconfig.get_path("scripts")) / "shellcheck"
    commands = [["bash", "-n", script] for script in SCRIPTS]
    for command in ([program, "--shell=bash", *SCRIPTS], *commands):
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
    assert status == 0
    assert fakes.arguments() == ["-m", "jaxnlt.main", *ARGUMENTS]
    assert fakes.environment() == {
        "XLA_FLAGS": "--a --xla_force_host_platform_device_count=4"
    }


def test_several_processes(fakes):
    fakes.do("echo out; echo err >&2", "echo one; echo two >&2; printf three")
    status, out, err = fakes.run("local.sh", "-n", "2", "--", *ARGUMENTS)
    assert status == 0
    assert sorted(out.splitlines()) == ["[1] one", "[1] three", "out"]
    assert sorted(err.splitlines()) == ["[1] two", "err"]
    first, second = map(fakes.environment, range(2))
    assert first.pop("JAXNLT_PROCESS_ID") == "0"
    assert second.pop("JAXNLT_PROCESS_ID") == "1"
    assert first == second
    address = first["JAXNLT_COORDINATOR"]
    assert re.fullmatch(r"127\.0\.0\.1:\d+", address)
    assert first == {
        "JAXNLT_COORDINATOR": address,
        "JAXNLT_NUM_PROCESSES": "2",
        "JAX_COORDINATOR_BIND_ADDRESS": address,
    }
    for i in range(2):
        assert fakes.arguments(i) == ["-m", "jaxnlt.main", *ARGUMENTS]


# After the other process.
LATER = "until [[ -e $folder/second ]]; do sleep 0.05; done; sleep 0.5"


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("exit 75", "exit 75", 75),
        ("exit 0", "exit 75", 75),
        ("exit 2", "exit 2", 2),
        (f"{LATER}; exit 1", "echo why >&2; exit 3", 3),
        (f"{LATER}; exit 1", "exit 75", 1),
        (f"{LATER}; exit 1", "kill -KILL $$", 137),
    ],
)
def test_exit_status(first, second, expected, fakes):
    fakes.do(first, f"touch $folder/second; {second}")
    status, _, err = fakes.run("local.sh", "-n", "2", "--", "--config=x")
    assert status == expected
    said = {
        3: "local.sh: process 1 failed with exit status 3",
        137: "local.sh: process 1 was killed by signal 9",
    }
    lines = err.splitlines()
    assert expected not in said or said[expected] in lines
    assert expected != 3 or "[1] why" in lines
    # Nothing that bash says of its jobs.
    assert all(line.startswith(("local.sh: ", "[1] ")) for line in lines)


@pytest.mark.parametrize(
    ("hanging", "status"), [("", 3), ("trap '' TERM", 3), ("exit 75", 75)]
)
def test_the_others_are_ended(hanging, status, fakes):
    """By SIGTERM, by SIGKILL; with their children; 75 is no failure."""
    fakes.do(f"{hanging or ':'}; sleep 60 & sleep 60", f"exit {status}")
    start = time.monotonic()
    line = ("-n", "2", "-g", "1", "--", "--config=x")
    assert fakes.run("local.sh", *line)[0] == status
    assert time.monotonic() - start < 6


def test_leaves_no_child_of_a_process_behind(fakes):
    # It would hold what we read the output from.
    fakes.do("sleep 60 & exit 0", "sleep 60 & exit 0")
    assert fakes.run("local.sh", "-n", "2", "--", "--config=x")[0] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stops_after_saving(number, fakes):
    save = "trap 'echo saved; exit 75' TERM; touch $folder/ready$i; "
    fakes.do(save + WAIT, save + WAIT)
    process = fakes.start("local.sh", "-n", "2", "--", "--config=x")
    fakes.wait_for("ready0", "ready1")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 75
    assert sorted(out.splitlines()) == ["[1] saved", "saved"]
    assert err == ""


def test_stops_before_anything_could_be_saved(fakes):
    fakes.do("exec sleep 60", "exec sleep 60")
    process = fakes.start("local.sh", "-n", "2", "--", "--config=x")
    fakes.wait_for("started0", "started1")
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 75


def test_gpus_are_shared_out(fakes):
    fakes.add("nvidia-smi", "printf '%s\\n' 0 1 2 3 4")
    seen = []
    for options, env in (
        (["-n", "2"], {}),
        (["-n", "2", "-d", "1"], {}),
        (["-n", "2"], {"CUDA_VISIBLE_DEVICES": "4,GPU-a,7,8"}),
        (["-n", "1", "-d", "2"], {"JAX_PLATFORMS": "cuda"}),
        (["-n", "2", "-d", "2"], {"JAX_PLATFORMS": "cpu"}),
    ):
        status, _, err = fakes.run("local.sh", *options, "--", "--x", **env)
        assert status == 0
        found = [fakes.environment(i) for i in range(int(options[1]))]
        seen.append([e.get("CUDA_VISIBLE_DEVICES") for e in found])
        assert bool(err) == (len(seen) == 1), err
        assert ("XLA_FLAGS" in found[0]) == (len(seen) == 5)
    assert seen == [
        ["0,1", "2,3"],
        ["0", "1"],
        ["4,GPU-a", "7,8"],
        ["0,1"],
        [None, None],
    ]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["-n", "0", "--", "x"], "-n: expects a whole number from 1 on"),
        (["-d"], "-d: expects"),
        (["--config=x"], "--config=x: unknown option"),
        (["-n", "2", "--"], "are missing after --"),
        (["-n", "3", "--", "x"], "-n 3: too many for 2 GPUs"),
        (["-n", "2", "-d", "2", "--", "x"], "-n 2 -d 2: too many for 2 GPUs"),
    ],
)
def test_mistakes(arguments, part, fakes):
    fakes.add("nvidia-smi", "printf '%s\\n' 0 1")
    status, out, err = fakes.run("local.sh", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("local.sh: error: ") and part in err
