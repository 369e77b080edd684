"""Launching on clusters, with fake srun, scontrol and gcloud."""

import re
import shlex
import signal
import subprocess

import pytest
import yaml

from tests.launch.fake_commands import ARGUMENTS, COMMAND, LAUNCH, SAVE, ended

# slurm.sbatch ---------------------------------------------------------------

SRUN = """\
printf 'srun %s\\n' "$*" >>"$notes"
[[ ${*: -1} != true ]] || exit ${LOST:-0}
while [[ $1 != python ]]; do shift; done
"$@"
"""
JOB = {"SLURM_JOB_ID": "17", "SLURM_NTASKS_PER_NODE": "1"}


@pytest.mark.parametrize(
    ("status", "nodes", "lost", "requeued"),
    [
        (0, 1, 0, False),
        (75, 1, 0, True),
        (2, 4, 1, False),
        (1, 1, 1, False),
        (1, 4, 0, False),
        (1, 4, 1, True),
    ],
)
def test_slurm_requeues(status, nodes, lost, requeued, fakes):
    fakes.do(f"exit {status}")
    fakes.add("srun", SRUN)
    fakes.add("scontrol", 'echo "scontrol $*" >>"$notes"')
    size = {"SLURM_JOB_NUM_NODES": f"{nodes}", "SLURM_GPUS_ON_NODE": "4"}
    env = JOB | size | {"LOST": f"{lost}"}
    found, _, err = fakes.run("slurm.sbatch", *ARGUMENTS, **env)
    assert found == status
    assert ("scontrol requeue Incomplete 17" in fakes.notes()) == requeued
    assert ("in the queue again" in err) == requeued
    assert fakes.arguments() == ARGUMENTS
    several = {"JAXNLT_DISTRIBUTED": "auto", "JAX_LOCAL_DEVICE_IDS": "0,1,2,3"}
    assert fakes.environment() == (several if nodes > 1 else {})
    first = fakes.notes()[0]
    assert first.startswith(f"srun --nodes={nodes} --ntasks-per-node=1 ")
    # A task that has ended must not end one that still saves.
    assert "--kill-on-bad-exit=0" in first


def test_slurm_hands_on_sigterm(fakes):
    fakes.add("srun", SRUN.replace('"$@"\n', 'exec "$@"\n'))
    fakes.do(SAVE)
    fakes.add("scontrol", "exit 1")  # as for a job that was cancelled
    process = fakes.start("slurm.sbatch", "--config=x", **JOB)
    fakes.wait_for("ready0")
    process.terminate()
    status, _, err = ended(process)
    assert status == 75 and "was not requeued" in err


def test_slurm_directives(fakes):
    text = (LAUNCH / "slurm.sbatch").read_text()
    found = re.findall(r"^#SBATCH (.*)$", text, re.MULTILINE)
    assert {"--requeue", "--signal=TERM@120", "--open-mode=append"} < set(found)
    # sbatch reads them only before the first command.
    assert "\n#SBATCH" not in text.partition("\nset -u")[2]
    status, _, err = fakes.run("slurm.sbatch", "--config=x")
    assert status == 2 and err.startswith("slurm.sbatch: error: not a SLURM")


# tpu_vm.sh ------------------------------------------------------------------

PLACE = ["--zone", "Z", "--type=T", "--version=V"]
# A TPU of one worker, whose home is a folder; the states are in a file.
GCLOUD = """\
printf '%s\\n' "${*:3:3}" | head -n 1 >>"$notes"
case "$*" in
  *describe*) cat "$folder/state" 2>/dev/null || { echo NOT_FOUND; exit 1; } ;;
  *create*) echo ACTIVE >"$folder/state" ;;
  *delete*) rm "$folder/state" ;;
  *uv*) mkdir -p "$folder/jaxnlt/.venv/bin"
        touch "$folder/jaxnlt/.venv/bin/activate" ;;
  *command=*) for word; do
      [[ $word != --command=* ]] || HOME=$folder bash -c "${word#*=}"
    done ;;
esac
"""
RUN = "tpu-vm ssh jaxnlt"
INSTALL = ["tpu-vm scp {}/jaxnlt.tar.gz", RUN, RUN]


def tpu(fakes, *options):
    fakes.add("gcloud", GCLOUD)
    fakes.add("sleep", "")
    fakes.add("git", "")
    return fakes.start("tpu_vm.sh", *PLACE, *options, "--", *ARGUMENTS)


def brief(fakes):
    """The notes, without what asks for the state or names a folder."""
    lines = [re.sub(r"/\S*/", "{}/", line) for line in fakes.notes()]
    return [line for line in lines if "describe" not in line]


def test_tpu_goes_on_after_75_and_preemption(fakes):
    """First 75, then the worker is gone, then the run ends."""
    fakes.do(
        "echo . >>$folder/turns; case $(wc -l <$folder/turns) in\n"
        "1) exit 75 ;;\n"
        "2) echo SUSPENDED >$folder/state; kill -KILL $PPID ;;\nesac"
    )
    status, _, err = ended(tpu(fakes, "--delete"))
    assert status == 0, err
    create = ["queued-resources create jaxnlt", *INSTALL]
    delete = ["queued-resources delete jaxnlt"]
    first, second = [*create, RUN, RUN, *delete], [*create, RUN, *delete]
    assert brief(fakes) == first + second
    assert fakes.arguments() == ARGUMENTS
    assert fakes.environment() == {"JAXNLT_DISTRIBUTED": "auto"}


@pytest.mark.parametrize(("status", "others"), [(1, "0 75 3"), (2, "75 1")])
def test_tpu_hands_on_a_failure(status, others, fakes):
    """A mistake goes before what it has made of other workers."""
    mark = "tpu_vm.sh: worker ended with status"
    fakes.do(f"printf '{mark} %s\n' {others}; exit {status}")
    found, _, err = ended(tpu(fakes))
    assert found == status
    assert brief(fakes).count(RUN) == 3
    assert "jaxnlt stays and costs; to delete it: gcloud compute" in err


def test_tpu_stops_after_saving(fakes):
    fakes.do(SAVE)
    process = tpu(fakes)
    fakes.wait_for("ready0")
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 75


def test_tpu_dry_run(fakes):
    fakes.add("gcloud", "exit 9")
    line = ("tpu_vm.sh", "--dry-run", "--project", "P", *PLACE)
    status, out, _ = fakes.run(*line, "--setup", "mount it", "--", *ARGUMENTS)
    assert status == 0
    commands = shlex.split(out, comments=True)
    for words in (
        "create jaxnlt --node-id=jaxnlt --accelerator-type=T "
        "--runtime-version=V --spot --zone=Z --project=P",
        "delete jaxnlt --force --quiet --zone=Z --project=P",
    ):
        assert words in " ".join(commands)
    sent = [w.removeprefix("--command=") for w in commands if "\n" in w]
    assert len(sent) == 2 and ".[tpu]" in sent[0]
    last = f"python -m jaxnlt.main {shlex.join(ARGUMENTS)}"
    (found,) = (w for w in sent[1].splitlines() if "jaxnlt.main" in w)
    assert shlex.split(found.removesuffix(" &")) == shlex.split(last)
    assert "--command=mount it" in commands
    status, out, _ = fakes.run(*line, "--on-demand", "--", "--config=x")
    assert status == 0 and "--spot" not in out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ("--type=T --version=V -- x", "--zone: is missing"),
        ("--zone", "--zone: its value"),
        ("--zone Z --type=T --version=V", "missing after --"),
        ("--fast", "--fast: unknown"),
    ],
)
def test_tpu_mistakes(arguments, part, fakes):
    status, out, err = fakes.run("tpu_vm.sh", *arguments.split())
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert part in err


# gke_jobset.yaml ------------------------------------------------------------


def jobset():
    """The set, its job, its container."""
    jobs = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    (workers,) = jobs["spec"]["replicatedJobs"]
    job = workers["template"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    return jobs, job, container


def test_jobset_restarts():
    jobs, job, container = jobset()
    policy = jobs["spec"]["failurePolicy"]
    again = "RestartJobSetAndIgnoreMaxRestarts"
    patterns = {
        rule["action"]: "|".join(rule["onJobFailureMessagePatterns"])
        for rule in policy["rules"]
    }
    # In full: "Container main for pod default/p failed with exit code 2 ...".
    for message, action in (
        ("exit code 2 matching FailJob rule at index 0", "FailJobSet"),
        ("exit code 75 matching FailJob rule at index 1", again),
        ("condition DisruptionTarget matching FailJob rule at index 2", again),
    ):
        found = [a for a in patterns if re.search(patterns[a], message)]
        assert found == [action]
    first, second, third = job["podFailurePolicy"]["rules"]
    assert first["onExitCodes"]["values"] == [2]
    assert second["onExitCodes"]["values"] == [75]
    assert third["onPodConditions"][0]["type"] == "DisruptionTarget"
    # Without these the rules above would not be asked.
    pod = job["template"]["spec"]
    assert (pod["restartPolicy"], job["backoffLimit"]) == ("Never", 0)
    assert policy["maxRestarts"] > 0
    assert pod["terminationGracePeriodSeconds"] >= 60
    (mount,) = (m for m in container["volumeMounts"] if m["name"] == "runs")
    workdir = f"--workdir={mount['mountPath']}/"
    assert any(word.startswith(workdir) for word in container["args"])


@pytest.mark.parametrize("kind", ["tpu", "gpus", "one"])
def test_jobset_runs_the_command(kind, fakes):
    _, job, container = jobset()
    values = {e["name"]: e.get("value") for e in container["env"]}
    parallelism = values["PARALLELISM"]
    assert parallelism == f"{job['parallelism']}" == f"{job['completions']}"
    assert container["command"][2].rstrip().endswith(f"exec {COMMAND}")
    env = {
        "PARALLELISM": "1" if kind == "one" else parallelism,
        "JOBSET_NAME": "set",
        "JOB_COMPLETION_INDEX": "3",
    }
    if kind == "tpu":
        env["TPU_WORKER_HOSTNAMES"] = "a,b"
    command = [*container["command"], *ARGUMENTS]
    subprocess.run(command, env=fakes.env | env, check=True)
    number = 3 if kind == "gpus" else 0
    assert fakes.arguments(number) == ARGUMENTS
    expected = {
        "tpu": {"JAXNLT_DISTRIBUTED": "auto"},
        "one": {},
        "gpus": {
            "JAXNLT_COORDINATOR": "set-workers-0-0.set:8476",
            "JAXNLT_NUM_PROCESSES": parallelism,
            "JAXNLT_PROCESS_ID": "3",
        },
    }
    assert fakes.environment(number) == expected[kind]
