"""Commands that stand in for python, srun, gcloud ... of a launch script."""

import os
import pathlib
import signal
import subprocess
import sys
import time

LAUNCH = pathlib.Path(__file__).parents[2] / "launch"
COMMAND = 'python -m jaxnlt.main "$@"'
ARGUMENTS = ["--config=configs/dasc.py:digits,seed=1", "--x=it's (1, 1)", ""]

# Notes its arguments and what we set; does what the test has written for it.
PYTHON = """\
[[ $1 != -c ]] || exec {python} "$@"
i=${{JAXNLT_PROCESS_ID:-0}}
printf '%s\\n' "$@" >$folder/arguments$i
env | grep -E '^(JAX|XLA_|CUDA_)' | sort >$folder/environment$i
mv $folder/environment$i $folder/started$i
[[ ! -e $folder/do$i ]] || . $folder/do$i
"""
# For a signal, without another process; again and again, for one that comes
# just before a read does not end it.
WAIT = "exec 8<> <(:); for _ in {1..200}; do read -t 0.1 -u 8; done"
# Saves on SIGTERM.
SAVE = f"trap 'echo saved; exit 75' TERM; touch $folder/ready$i; {WAIT}"


class Fakes:
    """Commands in a folder that comes before all others in the PATH."""

    def __init__(self, folder: pathlib.Path):
        self.folder, self.bin = folder, folder / "bin"
        self.bin.mkdir()
        keep = {"HOME", "LANG", "PATH", "TMPDIR"}
        self.env = {k: v for k, v in os.environ.items() if k in keep}
        self.env["PATH"] = f"{self.bin}:{self.env['PATH']}"
        self.add("python", PYTHON.format(python=sys.executable))

    def add(self, name: str, text: str) -> None:
        """A command of this name; `$notes` is a file that all append to."""
        file = self.bin / name
        head = f"#!/usr/bin/env bash\nfolder={self.folder}\n"
        file.write_text(f"{head}notes=$folder/notes\n{text}")
        file.chmod(0o755)

    def do(self, *texts: str) -> None:
        """What each process does."""
        for i, text in enumerate(texts):
            (self.folder / f"do{i}").write_text(text)

    def start(self, script: str, *arguments: str, **env: str):
        # A shell can trap no signal that was ignored when it began, as Ctrl-C
        # is where the tests run in the background.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        return subprocess.Popen(
            ["bash", str(LAUNCH / script), *arguments],
            env=self.env | env,
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, script: str, *arguments: str, **env: str):
        """Exit status, stdout, stderr."""
        return ended(self.start(script, *arguments, **env))

    def notes(self) -> list[str]:
        return (self.folder / "notes").read_text().splitlines()

    def arguments(self, i: int = 0) -> list[str]:
        """Of jaxnlt.main in a process."""
        text = (self.folder / f"arguments{i}").read_text()
        command, module, *rest = text.removesuffix("\n").split("\n")
        assert (command, module) == ("-m", "jaxnlt.main")
        return rest

    def environment(self, i: int = 0) -> dict[str, str]:
        lines = (self.folder / f"started{i}").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def wait_for(self, *names: str) -> None:
        while not all((self.folder / name).exists() for name in names):
            time.sleep(0.02)


def ended(process: subprocess.Popen) -> tuple[int, str, str]:
    """Exit status, stdout, stderr."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err
