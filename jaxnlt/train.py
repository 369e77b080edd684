"""The loop: phase, select, train, evaluate, log, save.  It names no paper."""

import contextlib
import pathlib
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from jaxnlt.auditing import planting, verdict
from jaxnlt.config import base as config_lib
from jaxnlt.config import modules, settle
from jaxnlt.data import fingerprint, load
from jaxnlt.data.fingerprint import Fingerprint
from jaxnlt.data.records import HELD_OUT
from jaxnlt.infer import SMALLER_STEPS, require_finite, vote, voters
from jaxnlt.method import Memory, TrainState
from jaxnlt.results import files as result_files
from jaxnlt.results import (
    journal,
    metrics,
    observing,
    pred_probs,
    summary,
    writers,
)
from jaxnlt.runtime import (
    checkpoint,
    console,
    lock,
    machine,
    paths,
    preemption,
    processes,
    sharding,
)
from jaxnlt.runtime.errors import Once, UserError, logger
from jaxnlt.trainer import Trainer

#: (trainer, device states, memory) after the training of an epoch.
Observe = Callable[[Trainer, list[TrainState], Memory], None]

_BAD_START = (
    "the weights that the run starts from are at fault, see config.init_from "
    "and config.model.pretrained"
)


def default_workdir(config: ml_collections.ConfigDict) -> str:
    """``runs/METHOD-BENCHMARK-<hash of the resolved config>``."""
    name = f"{config.method}-{config.benchmark}-{config_lib.short_hash(config)}"
    return str(pathlib.Path("runs") / name)


def run(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path | None = None,
    command: str = "",
    watch: preemption.Watch | None = None,
    observe: Observe | None = None,
    quiet: bool = False,
) -> dict[str, Any]:
    """Trains to the end, resuming what the workdir holds, and reports.

    With ``config.audit.out_of_sample`` further runs follow in WORKDIR/folds,
    each without one fold of the training images.

    Args:
      config: what ``get_config`` of a file in configs/ returned.
      workdir: folder for everything that the run writes; None takes
        ``default_workdir(config)``.
      command: the command line, for the report.
      watch: stops the run on SIGTERM; None where nothing stops it.
      observe: called after the training of each epoch; not of the folds.
      quiet: prints nothing but warnings.

    Returns:
      The summary, as in summary.json; {} on all processes but the first.

    Raises:
      UserError: bad data, fields or workdir, or a disk that refuses a
        checkpoint.
      OSError: a file that cannot be read or written.

    Example:
      >>> import jaxnlt
      >>> config = jaxnlt.load_config("erm", "digits,smoke")
      >>> config.model.width, config.model.blocks = 4, (1,)
      >>> summary = jaxnlt.run(config, workdir="runs/mine", quiet=True)
      >>> summary["method"], summary["epochs"]
      ('erm', 1)
    """
    config = settle.settled(config)
    # The files of a run have names of up to so many characters.
    directory = paths.expanded(
        workdir or default_workdir(config), "workdir", "/" + "-" * 100
    ).absolute()
    watch = watch or preemption.Watch()
    once = Once()
    logger.addFilter(once)
    try:
        with contextlib.ExitStack() as ends:
            summary = _run(
                config, directory, command, watch, ends, observe, quiet
            )
        if config.audit.out_of_sample:
            _run_folds(config, directory, command, watch, quiet)
        return summary
    finally:
        logger.removeFilter(once)


def _run_folds(
    config: ml_collections.ConfigDict,
    directory: pathlib.Path,
    command: str,
    watch: preemption.Watch,
    quiet: bool,
) -> None:
    """Trains without each fold; see ``pred_probs.join`` for what it writes."""
    if config.init_from:
        logger.warning(
            "config.init_from: where %s was trained on these images, the "
            "probabilities in %s are not out of sample",
            config.init_from,
            pred_probs.PRED_PROBS_FILE,
        )
    folders = []
    for fold in range(1, config.audit.out_of_sample + 1):
        part = config.copy_and_resolve_references()
        folds = {"out_of_sample": 0, "folds": config.audit.out_of_sample}
        folds |= {"planted": 0.0}
        with part.unlocked():
            part.audit.update(folds | {"fold": fold})
        folders.append(directory / journal.FOLDS_FOLDER / str(fold))
        if not quiet:
            _print(f"fold {fold} of {part.audit.folds}: {folders[-1]}")
        watch.saved(-1)
        with contextlib.ExitStack() as ends:
            _run(part, folders[-1], command, watch, ends, None, quiet)
    processes.led(lambda: pred_probs.join(directory, folders))
    if not quiet:
        _print(
            f"{directory / pred_probs.PRED_PROBS_FILE}: out-of-fold "
            f"probabilities of the labels in {pred_probs.LABELS_FILE}"
        )


def _run(
    config: ml_collections.ConfigDict,
    directory: pathlib.Path,
    command: str,
    watch: preemption.Watch,
    ends: contextlib.ExitStack,
    observe: Observe | None,
    quiet: bool,
) -> dict[str, Any]:
    began = time.time()
    config_lib.check(config)
    # It may bring the benchmark along.
    modules.load_method(config.method)
    writers.check(config)
    resolved = config_lib.as_json(config)
    # What a checkpoint must agree with to belong to this run.
    origin: dict[str, Any] = {"config": resolved}
    _check_workdir(directory, origin)
    dataset = load.dataset(config)
    data = fingerprint.of_dataset(dataset)
    _check_data(directory, data)
    origin |= {"data": data.sha256, "train": data.train_sha256}
    _check_workdir(directory, origin)
    finished = processes.decided(lambda: summary.finished(directory, resolved))
    if finished is not None:
        if not quiet:
            _print(f"{directory}: already complete")
        return finished
    lock.check_free(directory)
    sharding.enable_compilation_cache()
    dataset = planting.planted(config, dataset)
    trainer = Trainer(config, dataset)
    states, memory, start = _initial(config, trainer, data)
    if config.init_from or config.model.pretrained:
        origin["weights"] = checkpoint.weights_sha256(states)

    _make_workdir(directory)
    held = ends.enter_context(lock.Lock(directory))
    watch.release = held.release
    # Another run may have been there in the meantime.
    _check_workdir(directory, origin)
    # From here on warnings may be printed: nothing is refused any more.
    logger.info("%s: the run starts", directory, extra={"started": True})
    checkpoints = checkpoint.Checkpoints(directory)
    watch.finish_save = checkpoints.wait
    ends.enter_context(watch.finishing())
    here = machine.here(trainer.mesh.devices.size)
    restored = checkpoints.restore(states, memory)
    if restored is not None:
        states, memory = restored.states, restored.memory
        start = restored.epoch + 1
        watch.saved(restored.epoch)
        if not quiet:
            _print(f"resumed after epoch {start}")
        if change := here.changes(restored.meta.get("machine", {})):
            logger.warning(
                "%s: the run goes on elsewhere (%s); rounding differs, and it "
                "will not end with the bits of an uninterrupted one",
                directory,
                change,
            )
    writer = journal.Silent()
    if processes.is_lead():
        sealed = restored.meta.get("records") if restored else []
        writer = journal.Journal(
            config,
            dataset,
            data,
            directory,
            resolved,
            start,
            began,
            sealed,
            quiet,
        )

    def on_step(network: int, step: int, steps: int, images: int) -> None:
        watch.pause_if_ending()
        writer.step(network, step, steps, images)

    method = trainer.method
    states = trainer.put(states)
    pooled: Any = []
    audited: dict[str, Any] = {}
    fetched: _Fetched | None = None
    readable: dict[str, np.ndarray | None] = {}
    host_states: list[TrainState] = []
    for epoch in range(start, config.epochs):
        phase, following = method.phase(epoch), method.phase(epoch + 1)
        epoch_began = time.time()
        if phase.selector and not pooled:
            # Only at the start of a run; later the epoch before infers them.
            pooled = sharding.fetch(trainer.infer_pools(epoch, phase, states))
            require_finite(pooled, f"epoch {epoch + 1}", _BAD_START)
        if epoch == 0 or method.phase(epoch - 1) is not phase:
            states, memory = trainer.enter(epoch, states, memory)
        writer.outputs(method, epoch, pooled)
        states, memory, result = trainer.train(
            epoch, phase, states, pooled, memory, on_step
        )
        if observe is not None:
            observe(trainer, states, memory)
        last = epoch + 1 == config.epochs
        tests = {
            name: trainer.infer_test(states, name)
            for name in dataset.tests
            if phase.evaluated
        }
        # What the last epoch fetched is not held beside what this one will.
        pooled, known, audited, fetched = [], {}, {}, None
        if not last:
            pooled = trainer.infer_pools(epoch + 1, following, states)
        known = observing.inferred(trainer, tests, pooled, following)
        counted = observing.counted(trainer, epoch, phase, known)
        audited = (
            observing.infer_audited(trainer, states, known) if counted else {}
        )
        # The only wait of an epoch: everything is fetched at once.
        fetched = sharding.fetch(
            _Fetched(result.terms, states, tests, pooled, audited)
        )
        pooled, host_states = fetched.pooled, fetched.states
        readable = observing.readable(trainer) if last else {}
        means = metrics.mean_terms(fetched.terms, result.steps, epoch)
        require_finite(
            (fetched.tests, pooled, fetched.audited),
            f"epoch {epoch + 1}",
            SMALLER_STEPS,
        )
        known = observing.inferred(trainer, fetched.tests, pooled, following)
        if counted:
            audited = known | fetched.audited
            memory = observing.observe(trainer, memory, audited)
        seconds = time.time() - epoch_began
        record = {
            "epoch": epoch,
            "phase": phase.name,
            "seconds": seconds,
            "images_per_second": result.images / seconds,
            "learning_rate": result.learning_rate,
            **means,
            **metrics.test_record(trainer, fetched.tests, memory),
            **metrics.selection_record(trainer, phase, result.selections),
            **metrics.reading_record(trainer, result.bad_images),
        }
        held.check()
        writer.epoch(record)
        with watch.saving(epoch):
            checkpoints.save(
                epoch,
                fetched.states,
                memory,
                {
                    **origin,
                    "phase": phase.name,
                    "machine": asdict(here),
                    "records": result_files.plain(writer.records),
                    "class_names": data.class_names,
                },
                accuracy=record.get(f"{dataset.choosing}_accuracy"),
                last_of_phase=phase
                not in map(method.phase, range(epoch + 1, config.epochs)),
            )
    if not host_states:  # the run had trained but not yet reported
        host_states, audited = sharding.fetch(
            (states, observing.infer_audited(trainer, states))
        )
        readable = observing.readable(trainer)
    checkpoints.close()
    held.check()
    about_run = summary.RunInfo(
        device=here.device,
        cores=here.cores,
        weights_sha256=checkpoint.weights_sha256(voters(host_states)),
        command=command,
        networks_voting=method.num_nets,
        # A network's heads share one pass.
        forward_passes=method.num_nets,
        workdir=str(directory),
    )
    probs, audits = {}, {}
    for name, split in dataset.as_given.audited.items():
        sums = memory.audit[name]
        if (seen := readable[name]) is not None:
            sums = sums.without(~seen)
        probs[name] = sums.mean_probs
        audits[name] = verdict.of_training(
            split.labels,
            probs[name],
            vote(method, audited[name], len(split), memory).suggested,
            held_out=name == HELD_OUT,
        )
    return writer.finish(audits, probs, about_run)


class _Fetched(NamedTuple):
    """What the host reads at the end of an epoch, see ``Trainer``."""

    terms: list[Any]
    states: list[TrainState]
    tests: dict[str, Any]
    pooled: Any
    audited: dict[str, Any]


def _print(text: str) -> None:
    if processes.is_lead():
        console.echo(text, sys.stderr)


def _check_workdir(directory: pathlib.Path, origin: dict[str, Any]) -> None:
    """Refuses a workdir that is no folder or that holds another run.

    Args:
      directory: the workdir.
      origin: what is known so far of the origin of this run: ``config``, the
        SHA-256 of the ``data`` and of the ``weights`` that it starts from.

    Raises:
      UserError: its config.json or a checkpoint is of another origin.
    """
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is not a folder")
    journal.check_places(directory)
    dataset = result_files.read_json(directory / journal.DATASET_FILE)
    if dataset is not None:
        checkpoint.check_layout(dataset, directory)
    stored = result_files.read_json(directory / journal.CONFIG_FILE)
    found = checkpoint.metas(directory)
    if stored is not None:
        found = {directory: {"config": stored}} | found
    elif not found and (directory / summary.FILE).exists():
        raise UserError(
            f"{directory}: holds the summary of a run without its config.json; "
            "choose another --workdir"
        )
    for where, meta in found.items():
        change = config_lib.difference(meta["config"], origin["config"])
        if change:
            raise UserError(f"{where}: holds a run of another config: {change}")
        for name in ("data", "weights"):
            known = meta.get(name), origin.get(name)
            if all(known) and known[0] != known[1]:
                raise UserError(
                    f"{where}: its run started from other {name}; choose "
                    "another --workdir"
                )


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

    def make() -> None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            probe.touch()
        except OSError as error:
            raise UserError(
                f"{directory}: cannot be written ({error.strerror})"
            ) from error

    processes.led(make)
    problem = ""
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
        return states, memory, 0
    source_path, epoch = checkpoint.split_source(config.init_from)
    folder = paths.expanded(source_path, "config.init_from")
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
    bare = [replace(state, average=()) for state in states]
    source = checkpoint.load(folder, epoch, bare, memory)
    if source.meta["train"] != data.train_sha256:
        raise UserError(
            f"config.start_phase: {folder} was trained on other images or "
            "labels, which its memory is of; without start_phase its networks "
            "alone are taken"
        )
    # The audit is of this run.
    memory = replace(source.memory, audit=memory.audit)
    taken = [
        replace(found, average=own.average)
        for found, own in zip(source.states, states, strict=True)
    ]
    return taken, memory, phases.index(config.start_phase)


def _check_classes(
    folder: pathlib.Path, old: Sequence[str], new: Sequence[str]
) -> None:
    """Refuses networks whose outputs stand for other classes."""
    for k, (name, other) in enumerate(zip(old, new, strict=False)):
        if name != other:
            raise UserError(
                f"config.init_from: {folder}: class {k} of its networks is "
                f"{name!r}, of the data {other!r}; give the classes their old "
                "names, in the old order, or start without init_from"
            )
