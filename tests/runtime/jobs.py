"""Runs of the command line in processes of their own, one or several."""

import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[2]
MAIN = ("-m", "jaxnlt.main")
TINY = (
    "--config.model.width=4",
    "--config.model.blocks=(1,)",
    "--config.batch_size=16",
    "--config.warmup_batch_size=16",
    "--config.max_steps=2",
    "--config.eval_batch_size=200",
)


def environment(devices):
    """Environment of a process with so many CPU devices."""
    cache = pathlib.Path.home() / ".cache" / "jaxnlt" / "xla"
    return os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} "
        f"--xla_force_host_platform_device_count={devices}",
    }


class Job:
    """Processes of one command.

    Args:
      arguments: after ``python``.
      count: how many processes; one joins no other.
      devices: of each.
      more: variables of all processes.
      homes: home of each process, where they differ.
    """

    def __init__(self, *arguments, count=1, devices=1, more=(), homes=()):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.processes = []
        for i in range(count):
            own = {"HOME": str(homes[i])} if homes else {}
            if count > 1:
                own |= {
                    "JAXNLT_COORDINATOR": f"127.0.0.1:{port}",
                    "JAXNLT_NUM_PROCESSES": str(count),
                    "JAXNLT_PROCESS_ID": str(i),
                }
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, *map(str, arguments)],
                    cwd=ROOT,
                    env=environment(devices) | dict(more) | own,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )

    def send(self, number, signum=signal.SIGTERM):
        """Sends a signal to one process."""
        self.processes[number].send_signal(signum)

    def finish(self, timeout=300):
        """Waits for all: [(status, stdout, stderr)], without gloo's lines."""
        try:
            ended = [p.communicate(timeout=timeout) for p in self.processes]
        finally:
            for process in self.processes:
                process.kill()
        return [
            (p.returncode, *map(_without_gloo, texts))
            for p, texts in zip(self.processes, ended, strict=True)
        ]


def _without_gloo(text):
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if not line.startswith("[Gloo]"))


def wait_for_lines(file, number, timeout=300):
    """Waits until a file has so many lines."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if file.is_file() and file.read_text().count("\n") >= number:
            return
        time.sleep(0.05)
    raise TimeoutError(f"{file}: not {number} lines in {timeout} s")
