"""The loop: phase, select, train, evaluate, log, save.  It names no paper."""

import pathlib
import platform
import sys
import time
import uuid
from typing import Any

import jax
import ml_collections

from jaxnlt import method as base
from jaxnlt.config import base as config_lib
from jaxnlt.data import load
from jaxnlt.infer import vote
from jaxnlt.results import files as result_files
from jaxnlt.results import journal, metrics
from jaxnlt.runtime import checkpoint, preemption, processes, sharding
from jaxnlt.runtime.errors import Once, UserError, logger
from jaxnlt.trainer import Trainer


def default_workdir(config: ml_collections.ConfigDict) -> str:
    """runs/METHOD-BENCHMARK-<hash of the resolved config>."""
    name = f"{config.method}-{config.benchmark}-{config_lib.short_hash(config)}"
    return str(pathlib.Path("runs") / name)


def run(
    config: ml_collections.ConfigDict,
    workdir: str | None = None,
    command: str = "",
    watch: preemption.Watch | None = None,
) -> dict[str, Any]:
    """Trains to the end, resuming what the workdir holds, and reports.

    Args:
      config: as `get_config` of a file in configs/ returns it.
      workdir: folder for everything that the run leaves; None takes
        `default_workdir(config)`.
      command: the command line, for the report.
      watch: ends the run in order; None where nobody stops it.

    Returns:
      The summary, as in summary.json; {} on all processes but the first.

    Raises:
      UserError: bad data, fields or workdir.
    """
    once = Once()
    logger.addFilter(once)
    try:
        return _run(
            *(config, workdir or default_workdir(config), command),
            watch or preemption.Watch(),
        )
    finally:
        logger.removeFilter(once)


def _run(config, workdir: str, command: str, watch) -> dict[str, Any]:
    began = time.time()
    config_lib.check(config)
    directory = pathlib.Path(workdir).absolute()
    resolved = config_lib.as_json(config)
    _check_workdir(directory, resolved)
    finished = processes.decided(
        lambda: result_files.read_json(directory / "summary.json")
    )
    if finished is not None:
        _say(f"{directory}: already complete")
        return finished
    sharding.enable_compilation_cache()
    dataset = load.dataset(config)
    trainer = Trainer(config, dataset)
    states, memory, start = _initial(config, trainer)

    _make_workdir(directory)
    # From here on warnings may be shown: nothing is refused any more.
    logger.info("%s: the run starts", directory, extra={"started": True})
    checkpoints = checkpoint.Checkpoints(directory)
    watch.finish_save = checkpoints.wait
    restored = checkpoints.restore(states)
    if restored is not None:
        _, states, memory, _ = restored
        start = restored.epoch + 1
        watch.saved(restored.epoch)
        _say(f"resumed after epoch {restored.epoch}")
    writer = journal.Silent()
    if processes.is_lead():
        writer = journal.Journal(
            *(config, dataset, directory, resolved, start, began)
        )

    def on_step(*progress: int) -> None:
        watch.pause_if_ending()
        writer.step(*progress)

    method = trainer.method
    states = trainer.put(states)
    host: dict[str, Any] = {"pool": [], "train": []}
    for epoch in range(start, config.epochs):
        phase, following = method.phase(epoch), method.phase(epoch + 1)
        epoch_began = time.time()
        if phase.selector and not host["pool"]:
            # At the start of a run; else the end of the last epoch brought it.
            pooled = trainer.infer_pools(epoch, phase, states)
            host["pool"] = sharding.fetch(pooled)
        if epoch == 0 or method.phase(epoch - 1) is not phase:
            states, memory = trainer.enter(epoch, states, memory)
        writer.outputs(method, epoch, host["pool"])
        states, memory, facts = trainer.train(
            *(epoch, phase, states, host["pool"], memory, on_step)
        )
        last = epoch + 1 == config.epochs
        host = sharding.fetch(
            {
                "terms": facts["terms"],
                "states": states,
                "test": trainer.infer_test(states) if phase.evaluated else [],
                "more": {
                    name: trainer.infer_test(states, name)
                    for name in dataset.more_tests
                    if phase.evaluated
                },
                "pool": []
                if last
                else trainer.infer_pools(epoch + 1, following, states),
                "train": trainer.infer_train(states) if last else [],
            }
        )
        record = {
            "epoch": epoch,
            "phase": phase.name,
            "seconds": time.time() - epoch_began,
            "images_per_second": facts["images"] / (time.time() - epoch_began),
            "learning_rate": method.learning_rate(epoch),
            **metrics.mean_terms(host["terms"], facts["steps"], epoch),
            **metrics.test_record(trainer, host["test"], memory),
            **metrics.more_record(trainer, host["more"], memory),
            **metrics.selection_record(trainer, phase, facts["selections"]),
            **metrics.reading_record(trainer, facts["bad_images"]),
        }
        writer.epoch(record)
        with watch.saving(epoch):
            checkpoints.save(
                epoch,
                host["states"],
                memory,
                {"epoch": epoch, "phase": phase.name, "config": resolved},
                accuracy=record.get(f"{dataset.choosing}_accuracy"),
                last_of_phase=phase
                not in map(method.phase, range(epoch + 1, config.epochs)),
            )
    if not host["train"]:  # the run had trained but not yet reported
        host = sharding.fetch(
            {"states": states, "train": trainer.infer_train(states)}
        )
    checkpoints.close()
    size, heads = len(dataset.train), method.num_nets * len(method.vote)
    scores, suggested = vote(method, host["train"], size, memory)
    facts = {
        "device": describe_device(trainer.mesh.devices.size),
        "weights_sha256": checkpoint.weights_sha256(host["states"]),
        "command": command,
        "networks_voting": method.num_nets,
        # A network's heads share one pass.
        "forward_passes": method.num_nets,
        "workdir": str(directory),
    }
    return writer.finish(memory["history"], scores / heads, suggested, facts)


def _say(text: str) -> None:
    if processes.is_lead():
        print(text, file=sys.stderr)


def _check_workdir(directory: pathlib.Path, resolved: dict) -> None:
    """Refuses a workdir that is no folder or that another config made."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is not a folder")
    stored = result_files.read_json(directory / journal.CONFIG_FILE)
    if stored is not None and stored != resolved:
        change = config_lib.difference(stored, resolved)
        raise UserError(f"{directory}: holds a run of another config: {change}")


def _make_workdir(directory: pathlib.Path) -> None:
    """Makes a workdir that can be written and that every process sees."""
    probe = directory / f".writable-{processes.decided(uuid.uuid4)}"
    problem = ""
    if processes.is_lead():
        try:
            directory.mkdir(parents=True, exist_ok=True)
            probe.touch()
        except OSError as error:
            problem = f"{directory}: cannot be written ({error.strerror})"
    processes.agree(problem)
    if not probe.exists():
        problem = (
            f"{directory}: {processes.host_name()} does not see it; all "
            "processes must share the file system of the workdir"
        )
    processes.agree(problem)
    if processes.is_lead():
        probe.unlink()


def _initial(config, trainer: Trainer) -> tuple[list, dict, int]:
    """States, memory and first epoch of a run that resumes nothing."""
    states, memory = trainer.init_states(), trainer.init_memory()
    phases = [trainer.method.phase(e).name for e in range(config.epochs)]
    if not config.init_from:
        if config.start_phase:
            raise UserError("config.start_phase: needs config.init_from")
        return states, memory, 0
    folder, epoch = checkpoint.split_source(config.init_from)
    if not config.start_phase:
        part = [base.variables(state) for state in states]
        source = checkpoint.load(folder, epoch, part)
        return (
            [a | b for a, b in zip(states, source.states, strict=True)],
            memory,
            0,
        )
    if config.start_phase not in phases:
        known = ", ".join(dict.fromkeys(phases))
        raise UserError(
            f"config.start_phase: {config.start_phase!r} is not one of {known}"
        )
    source = checkpoint.load(folder, epoch, states)
    size = len(trainer.info.labels)
    if source.memory["history"].shape[1:] != (size,):
        raise UserError(
            f"config.init_from: {folder} was trained on "
            f"{source.memory['history'].shape[1]} images, not on {size}"
        )
    return source.states, source.memory, phases.index(config.start_phase)


def describe_device(used: int) -> str:
    """Kind and number of the devices a run used."""
    device = jax.devices()[0]
    kind = device.device_kind
    if device.platform == "cpu":
        kind = f"CPU {platform.machine()}"
    return kind if used == 1 else f"{used} x {kind}"
