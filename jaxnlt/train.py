"""The loop: phase, select, train, evaluate, log, save.  It names no paper."""

import pathlib
import platform
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import jax
import ml_collections

from jaxnlt.config import base as config_lib
from jaxnlt.data import fingerprint, load
from jaxnlt.data.fingerprint import Fingerprint
from jaxnlt.infer import vote
from jaxnlt.method import Memory, TrainState
from jaxnlt.results import files as result_files
from jaxnlt.results import journal, metrics, summary
from jaxnlt.runtime import checkpoint, preemption, processes, sharding
from jaxnlt.runtime.errors import Once, UserError, logger
from jaxnlt.trainer import FetchedPools, Trainer


def default_workdir(config: ml_collections.ConfigDict) -> str:
    """``runs/METHOD-BENCHMARK-<hash of the resolved config>``."""
    name = f"{config.method}-{config.benchmark}-{config_lib.short_hash(config)}"
    return str(pathlib.Path("runs") / name)


def run(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path | None = None,
    command: str = "",
    watch: preemption.Watch | None = None,
) -> dict[str, Any]:
    """Trains to the end, resuming what the workdir holds, and reports.

    Args:
      config: what ``get_config`` of a file in configs/ returned.
      workdir: folder for everything that the run writes; None takes
        ``default_workdir(config)``.
      command: the command line, for the report.
      watch: stops the run on SIGTERM; None where nothing stops it.

    Returns:
      The summary, as in summary.json; {} on all processes but the first.

    Raises:
      UserError: bad data, fields or workdir.
    """
    once = Once()
    logger.addFilter(once)
    try:
        return _run(
            config,
            pathlib.Path(workdir or default_workdir(config)).absolute(),
            command,
            watch or preemption.Watch(),
        )
    finally:
        logger.removeFilter(once)


def _run(
    config: ml_collections.ConfigDict,
    directory: pathlib.Path,
    command: str,
    watch: preemption.Watch,
) -> dict[str, Any]:
    began = time.time()
    config_lib.check(config)
    resolved = config_lib.as_json(config)
    _check_workdir(directory, resolved)
    dataset = load.dataset(config)
    data = fingerprint.of_dataset(dataset)
    _check_data(directory, data)
    finished = processes.decided(
        lambda: result_files.read_json(directory / "summary.json")
    )
    if finished is not None:
        _print(f"{directory}: already complete")
        return finished
    sharding.enable_compilation_cache()
    trainer = Trainer(config, dataset)
    states, memory, start = _initial(config, trainer, data)

    _make_workdir(directory)
    # From here on warnings may be printed: nothing is refused any more.
    logger.info("%s: the run starts", directory, extra={"started": True})
    checkpoints = checkpoint.Checkpoints(directory)
    watch.finish_save = checkpoints.wait
    restored = checkpoints.restore(states, memory)
    if restored is not None:
        states, memory = restored.states, restored.memory
        start = restored.epoch + 1
        watch.saved(restored.epoch)
        _print(f"resumed after epoch {restored.epoch}")
    writer = journal.Silent()
    if processes.is_lead():
        writer = journal.Journal(
            config, dataset, data, directory, resolved, start, began
        )

    def on_step(network: int, step: int, steps: int, images: int) -> None:
        watch.pause_if_ending()
        writer.step(network, step, steps, images)

    method = trainer.method
    states = trainer.put(states)
    pooled: FetchedPools = []
    audited: dict[str, Any] = {}
    host_states: list[TrainState] = []
    for epoch in range(start, config.epochs):
        phase, following = method.phase(epoch), method.phase(epoch + 1)
        epoch_began = time.time()
        if phase.selector and not pooled:
            # Only at the start of a run; later the epoch before infers them.
            pooled = sharding.fetch(trainer.infer_pools(epoch, phase, states))
        if epoch == 0 or method.phase(epoch - 1) is not phase:
            states, memory = trainer.enter(epoch, states, memory)
        writer.outputs(method, epoch, pooled)
        states, memory, result = trainer.train(
            epoch, phase, states, pooled, memory, on_step
        )
        last = epoch + 1 == config.epochs
        # The only wait of an epoch: everything is fetched at once.
        fetched = sharding.fetch(
            _Fetched(
                terms=result.terms,
                states=states,
                tests={
                    name: trainer.infer_test(states, name)
                    for name in dataset.tests
                    if phase.evaluated
                },
                pooled=[]
                if last
                else trainer.infer_pools(epoch + 1, following, states),
                audited=trainer.infer_audited(states) if last else {},
            )
        )
        pooled, audited = fetched.pooled, fetched.audited
        host_states = fetched.states
        seconds = time.time() - epoch_began
        record = {
            "epoch": epoch,
            "phase": phase.name,
            "seconds": seconds,
            "images_per_second": result.images / seconds,
            "learning_rate": result.learning_rate,
            **metrics.mean_terms(fetched.terms, result.steps, epoch),
            **metrics.test_record(trainer, fetched.tests, memory),
            **metrics.selection_record(trainer, phase, result.selections),
            **metrics.reading_record(trainer, result.bad_images),
        }
        writer.epoch(record)
        with watch.saving(epoch):
            checkpoints.save(
                epoch,
                fetched.states,
                memory,
                {
                    "epoch": epoch,
                    "phase": phase.name,
                    "config": resolved,
                    "data": data.sha256,
                    "train": data.train_sha256,
                    "class_names": data.class_names,
                },
                accuracy=record.get(f"{dataset.choosing}_accuracy"),
                last_of_phase=phase
                not in map(method.phase, range(epoch + 1, config.epochs)),
            )
    if not host_states:  # the run had trained but not yet reported
        host_states, audited = sharding.fetch(
            (states, trainer.infer_audited(states))
        )
    checkpoints.close()
    heads = method.num_nets * len(method.vote)
    votes = {
        name: vote(method, audited[name], len(split), memory)
        for name, split in dataset.audited.items()
    }
    means = {
        name: found._replace(scores=found.scores / heads)
        for name, found in votes.items()
    }
    about_run = summary.RunInfo(
        device=describe_device(trainer.mesh.devices.size),
        weights_sha256=checkpoint.weights_sha256(host_states),
        command=command,
        networks_voting=method.num_nets,
        # A network's heads share one pass.
        forward_passes=method.num_nets,
        workdir=str(directory),
    )
    return writer.finish(memory.history, means, about_run)


class _Fetched(NamedTuple):
    """What the host reads at the end of an epoch, see ``Trainer``."""

    terms: list[Any]
    states: list[TrainState]
    tests: dict[str, Any]
    pooled: Any
    audited: dict[str, Any]


def _print(text: str) -> None:
    if processes.is_lead():
        print(text, file=sys.stderr)


def _check_workdir(directory: pathlib.Path, resolved: dict[str, Any]) -> None:
    """Refuses a workdir that is no folder or that holds another run."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is not a folder")
    stored = result_files.read_json(directory / journal.CONFIG_FILE)
    if stored is None:
        return
    dataset = result_files.read_json(directory / journal.DATASET_FILE)
    checkpoint.check_layout(dataset or {}, directory)
    if stored != resolved:
        change = config_lib.difference(stored, resolved)
        raise UserError(f"{directory}: holds a run of another config: {change}")


def _check_data(directory: pathlib.Path, data: Fingerprint) -> None:
    """Refuses data other than those of the run that a workdir holds."""
    shas = processes.gathered(data.sha256)
    problem = ""
    if data.sha256 != shas[0]:
        problem = (
            f"config.data: {processes.host_name()} reads other data than the "
            "first process"
        )
    elif processes.is_lead():
        change = journal.data_changed(directory, data)
        if change:
            problem = (
                f"{directory}: holds a run on other data: {change}; train on "
                "these in another --workdir, there from the old networks "
                f"with --config.init_from={directory}"
            )
    processes.agree(problem)


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


def _initial(
    config: ml_collections.ConfigDict, trainer: Trainer, data: Fingerprint
) -> tuple[list[TrainState], Memory, int]:
    """States, memory and first epoch of a run that resumes nothing."""
    states = trainer.init_states()
    memory = trainer.init_memory(states)
    phases = [trainer.method.phase(e).name for e in range(config.epochs)]
    if not config.init_from:
        if config.start_phase:
            raise UserError("config.start_phase: needs config.init_from")
        return states, memory, 0
    folder, epoch = checkpoint.split_source(config.init_from)
    if not config.start_phase:
        part = [state.variables for state in states]
        source = checkpoint.load(folder, epoch, part)
        _check_classes(folder, source.meta["class_names"], data.class_names)
        states = [
            replace(state, **variables)
            for state, variables in zip(states, source.states, strict=True)
        ]
        return states, memory, 0
    if config.start_phase not in phases:
        known = ", ".join(dict.fromkeys(phases))
        raise UserError(
            f"config.start_phase: {config.start_phase!r} is not one of {known}"
        )
    source = checkpoint.load(folder, epoch, states, memory)
    if source.meta["train"] != data.train_sha256:
        raise UserError(
            f"config.start_phase: {folder} was trained on other images or "
            "labels, which its memory is of; without start_phase its networks "
            "alone are taken"
        )
    return source.states, source.memory, phases.index(config.start_phase)


def _check_classes(folder: str, old: Sequence[str], new: Sequence[str]) -> None:
    """Refuses networks whose outputs stand for other classes."""
    for k, (name, other) in enumerate(zip(old, new, strict=False)):
        if name != other:
            raise UserError(
                f"config.init_from: {folder}: class {k} of its networks is "
                f"{name!r}, of the data {other!r}; give the classes their old "
                "names, in the old order, or start without init_from"
            )


def describe_device(used: int) -> str:
    """Kind and number of the devices a run used."""
    device = jax.devices()[0]
    kind = device.device_kind
    if device.platform == "cpu":
        kind = f"CPU {platform.machine()}"
    return kind if used == 1 else f"{used} x {kind}"
