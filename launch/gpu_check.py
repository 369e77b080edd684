"""Measures speed and accuracy on a machine with a GPU, step by step.

    launch/gpu_check.sh --data=DIR --out=FOLDER [--seconds=3600]

What is measured, each by a command that FOLDER/gpu_check.json names with its
seconds and the GPU's utilisation meanwhile:

  speed-...  python -m jaxnlt.benchmark of dasc, dividemix and sfa on CIFAR-10
             in float32 and bfloat16, in batches of 64 (warm-up 128) and of
             512, beside PyTorch where it is installed
  gaps-...   for which share of 50 profiled steps the GPU waited for the host
  ce-...     cross-entropy at sym 0.4 and 0.6, all epochs
  dasc-...   the published DaSC cell, CIFAR-10 imb 0.1 sym 0.6: 87.12 %

Every finished step is a file in FOLDER/steps, and the next call goes on with
the others; training goes on from its last checkpoint in FOLDER/runs.  A step
that does not fit into what is left of --seconds is not started; training is
stopped, saved, at their end.
"""

import argparse
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

# What a step may take; a finished one is known to the second.
SPEED, GAPS = 240.0, 120.0
# Training is worth starting for so long: it begins with compilation.  So long
# before the end it is told to stop, so that it can save.
TRAINING, SAVING = 90.0, 20.0
# Exit statuses of what was stopped: after saving, by SIGTERM, by SIGKILL.
STOPPED = (75, -15, -9)


class Step(NamedTuple):
    """One command.

    Attributes:
      name: of its file in FOLDER/steps.
      command: what is run; ``{json}`` stands for the file of its figures and
        ``{workdir}`` for its workdir.
      seconds: that it may take; of training, which can be cut, the least that
        is worth starting it.
      seeds: that it draws from.
    """

    name: str
    command: list[str]
    seconds: float
    seeds: tuple[int, ...] = (0,)

    @property
    def trains(self) -> bool:
        """Whether it can be stopped and goes on later."""
        return any("{workdir}" in word for word in self.command)


def steps(data: str, seeds: Sequence[int], rehearse: bool) -> list[Step]:
    """All that is measured, the most wanted first.

    Args:
      data: folder of CIFAR-10, or a packed npz file of it; '' trains the
        speed steps on synthetic images.
      seeds: of the training runs.
      rehearse: the same commands at their smallest, on digits.
    """
    benchmark, path = "cifar10", [f"--config.data.path={data}"] * bool(data)
    if data.endswith(".npz"):
        benchmark, path = "npz", [*path, "--config.data.statistics=cifar10"]
    if rehearse:
        benchmark = "digits"
        path = ["--config.model.width=4", "--config.model.blocks=(1,)"]
    tail = "" if rehearse else ",imb=0.1"
    python = [sys.executable, "-m"]
    found = []
    for dtype in ("float32", "bfloat16"):
        for batch, warmup in (
            ((8, 16), (32, 32))
            if rehearse
            else (
                (64, 128),
                (512, 512),
            )
        ):
            sizes = [
                f"--config.model.dtype={dtype}",
                f"--config.batch_size={batch}",
                f"--config.warmup_batch_size={warmup}",
            ]
            for method in ("dasc", "dividemix", "sfa"):
                config = [f"--config={method}:{benchmark}{tail}", *path, *sizes]
                name = f"{method}-{dtype}-{batch}"
                short = ["--repeats=1", "--steps=1"] if rehearse else []
                bench = [*python, "jaxnlt.benchmark", *config, *short]
                found.append(
                    Step(f"speed-{name}", [*bench, "--json={json}"], SPEED)
                )
                if data or rehearse:
                    count = 4 if rehearse else 50
                    bench = [*python, "jaxnlt.bench.gaps", *config]
                    bench += [f"--steps={count}", "--json={json}"]
                    found.append(Step(f"gaps-{name}", bench, GAPS))
    if not (data or rehearse):
        return found
    smoke = ",smoke" if rehearse else ""
    cells = [
        ("ce-sym0.4", "erm", "sym", "0.4", ""),
        ("ce-sym0.6", "erm", "sym", "0.6", ""),
        ("dasc-as_released-sym0.6", "dasc", "sym", "0.6", ",as_released"),
    ]
    for seed in seeds:
        for name, method, noise, rate, more in cells:
            keys = f"noise={noise},rate={rate},seed={seed}{more}{smoke}"
            config = f"--config={method}:{benchmark}{tail},{keys}"
            run = [*python, "jaxnlt.main", config, *path, "--workdir={workdir}"]
            found.append(Step(f"{name}-seed{seed}", run, TRAINING, (seed,)))
    return found


class Utilisation:
    """Asks nvidia-smi every second how busy the GPUs are, while entered.

    Attributes:
      found: ``percent``, a mean over time and GPUs, ``memory_mib``, the most,
        and ``samples``; or None and why under ``note``.
    """

    def __init__(self) -> None:
        self._values: list[tuple[float, float]] = []
        self._process: subprocess.Popen | None = None

    def __enter__(self) -> "Utilisation":
        if shutil.which("nvidia-smi"):
            self._process = subprocess.Popen(
                [
                    "nvidia-smi",
                    "--query-gpu=utilization.gpu,memory.used",
                    "--format=csv,noheader,nounits",
                    "--loop=1",
                ],
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        return self

    def _read(self) -> None:
        assert self._process and self._process.stdout
        for line in self._process.stdout:
            try:
                percent, memory = map(float, line.split(","))
            except ValueError:
                continue
            self._values.append((percent, memory))

    def __exit__(self, *error: object) -> None:
        if self._process:
            self._process.terminate()
            self._process.wait()
            self._reader.join()

    @property
    def found(self) -> dict[str, Any]:
        """See above."""
        if self._process is None:
            return {"percent": None, "note": "nvidia-smi is not there"}
        if not self._values:
            return {"percent": None, "note": "nvidia-smi said nothing"}
        percents, memory = zip(*self._values, strict=True)
        return {
            "percent": sum(percents) / len(percents),
            "memory_mib": max(memory),
            "samples": len(percents),
        }


def run(step: Step, out: pathlib.Path, left: float) -> dict[str, Any]:
    """Runs a step and writes its file.

    Args:
      step: what to run.
      out: the folder.
      left: seconds that it may take.

    Returns:
      ``finished``; ``status``, its exit status; ``command``; ``seeds``;
      ``seconds`` of this and, of training, of earlier calls; ``gpu``;
      ``result``, its figures or its summary; ``log``, the last lines that it
      wrote where it has not finished.
    """
    file = out / "steps" / f"{step.name}.json"
    figures = out / "steps" / f"{step.name}.figures"
    workdir = out / "runs" / step.name
    places = {"{json}": str(figures), "{workdir}": str(workdir)}
    command = step.command
    for mark, place in places.items():
        command = [word.replace(mark, place) for word in command]
    before = read(file).get("seconds", 0.0) if step.trains else 0.0
    began, log = time.monotonic(), out / "steps" / f"{step.name}.log"
    with Utilisation() as gpu, open(log, "w", encoding="utf-8") as text:
        process = subprocess.Popen(command, stdout=text, stderr=text)
        status = _waited(process, left, step.trains)
    source = workdir / "summary.json" if step.trains else figures
    result = read(source) if status == 0 else {}
    found = {
        "name": step.name,
        "finished": bool(result),
        "status": status,
        "command": command,
        "seeds": list(step.seeds),
        "seconds": before + time.monotonic() - began,
        "gpu": gpu.found,
        "result": result or None,
    }
    if not result:
        lines = log.read_text(encoding="utf-8").strip().splitlines()
        found["log"] = lines[-5:]
    write(file, found)
    figures.unlink(missing_ok=True)
    return found


def _waited(process: subprocess.Popen, left: float, saves: bool) -> int:
    """The exit status; what takes too long is stopped, then killed."""
    try:
        return process.wait(max(left - SAVING * saves, 1.0))
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGTERM)
    try:
        return process.wait(SAVING)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def read(file: pathlib.Path) -> dict[str, Any]:
    """A JSON object; {} where there is none, or a cut one."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def write(file: pathlib.Path, content: dict[str, Any]) -> None:
    """Writes a JSON object at once or not at all."""
    part = file.with_suffix(".part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(part, file)


def merge(out: pathlib.Path, wanted: Sequence[Step]) -> dict[str, Any]:
    """Writes and returns FOLDER/gpu_check.json from the files of the steps."""
    found = {s.name: read(out / "steps" / f"{s.name}.json") for s in wanted}
    ends = {name for name, step in found.items() if step.get("finished")}
    merged = {
        "complete": len(ends) == len(wanted),
        "machine": machine(),
        "finished": [found[s.name] for s in wanted if s.name in ends],
        "unfinished": [
            found[s.name] or {"name": s.name, "status": None}
            for s in wanted
            if s.name not in ends
        ],
    }
    write(out / "gpu_check.json", merged)
    return merged


def machine() -> dict[str, Any]:
    """The GPUs, as nvidia-smi names them; None where it is absent."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total"]
    try:
        gpus = subprocess.run(
            [*query, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        return {"gpus": None, "cores": os.cpu_count()}
    return {"gpus": gpus, "cores": os.cpu_count()}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs what is missing.

    Args:
      argv: words after the program's name.

    Returns:
      0 where nothing is missing any more, 1 where a step failed, else 75.
    """
    parser = argparse.ArgumentParser(
        "gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--data", default="", help="folder or packed npz file of CIFAR-10"
    )
    parser.add_argument(
        "--out",
        type=pathlib.Path,
        default=os.environ.get("OUT"),
        help="FOLDER (default: $OUT)",
    )
    parser.add_argument("--seconds", type=float, default=float("inf"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--only", default="", help="names that begin so")
    parser.add_argument(
        "--rehearse", action="store_true", help="every step at its smallest"
    )
    args = parser.parse_args(argv)
    if args.out is None:
        parser.error("--out: is missing, and OUT is not set")
    began, failed = time.monotonic(), False
    (args.out / "steps").mkdir(parents=True, exist_ok=True)
    wanted = steps(args.data, args.seeds, args.rehearse)
    for step in wanted:
        left = args.seconds - (time.monotonic() - began)
        done = read(args.out / "steps" / f"{step.name}.json").get("finished")
        if done or not step.name.startswith(args.only) or left < step.seconds:
            continue
        # What can be cut gets all that is left, the rest what it may take.
        most = left if step.trains else min(left, 2 * step.seconds)
        found = run(step, args.out, most)
        word = "finished"
        if not found["finished"]:
            stopped = found["status"] in STOPPED
            failed |= not stopped
            word = "stopped" if stopped else " | ".join(found["log"])
        print(f"{step.name}: {found['seconds']:.0f} s, {word}", flush=True)
        merge(args.out, wanted)
    merged = merge(args.out, wanted)
    print(
        f"{args.out / 'gpu_check.json'}: {len(merged['finished'])} of "
        f"{len(wanted)} steps"
    )
    if failed:
        return 1
    return 0 if merged["complete"] else 75


if __name__ == "__main__":
    sys.exit(main())
