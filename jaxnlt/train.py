"""The loop: phase, select, train, evaluate, log, save.  It names no paper."""

import pathlib
import platform
import sys
import time
from typing import Any

import jax
import ml_collections
import numpy as np

from jaxnlt import (
    checkpoint,
    data,
    macro,
    metrics,
    outcome,
    outputs_log,
    sharding,
    step,
    streaming,
)
from jaxnlt import config as config_lib
from jaxnlt.data import files, noise
from jaxnlt.errors import Once, UserError, logger
from jaxnlt.methods.base import Phase
from jaxnlt.progress import Progress
from jaxnlt.trainer import Trainer, vote

# What an unfinished run may not be resumed without.
CONFIG_FILE = "config.json"


def default_workdir(config: ml_collections.ConfigDict) -> str:
    """runs/METHOD-BENCHMARK-<hash of the resolved config>."""
    name = f"{config.method}-{config.benchmark}-{config_lib.short_hash(config)}"
    return str(pathlib.Path("runs") / name)


def run(
    config: ml_collections.ConfigDict,
    workdir: str | None = None,
    command: str = "",
) -> dict[str, Any]:
    """Trains to the end, resuming what the workdir holds, and reports.

    Args:
      config: as `get_config` of a file in configs/ returns it.
      workdir: folder for everything that the run leaves; None takes
        `default_workdir(config)`.
      command: the command line, for the report.

    Returns:
      The summary, as in summary.json.

    Raises:
      UserError: bad data, fields or workdir.
    """
    once = Once()
    logger.addFilter(once)
    try:
        return _run(config, workdir or default_workdir(config), command)
    finally:
        logger.removeFilter(once)


def _run(config, workdir: str, command: str) -> dict[str, Any]:
    began = time.time()
    config_lib.check(config)
    directory = pathlib.Path(workdir).absolute()
    resolved = config_lib.as_json(config)
    _check_workdir(directory, resolved)
    finished = metrics.read_json(directory / "summary.json")
    if finished is not None:
        print(f"{directory}: already complete", file=sys.stderr)
        return finished
    sharding.enable_compilation_cache()
    dataset = data.load(config)
    trainer = Trainer(config, dataset)
    states, memory, start = _initial(config, trainer)

    _make_workdir(directory)
    # From here on warnings may be shown: nothing is refused any more.
    logger.info("%s: the run starts", directory, extra={"started": True})
    checkpoints = checkpoint.Checkpoints(directory)
    restored = checkpoints.restore(states)
    if restored is not None:
        _, states, memory, _ = restored
        start = restored.epoch + 1
        print(f"resumed after epoch {restored.epoch}", file=sys.stderr)
    metrics.write_json(directory / CONFIG_FILE, resolved)
    metrics.write_json(directory / "dataset.json", _describe(dataset))
    noise.save_noise(directory / "noise.json", dataset.train)
    log = metrics.MetricsLog(directory)
    records = log.truncate(start - 1)
    before = sum(r["seconds"] for r in records)
    progress = Progress(config, dataset, directory, records)

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
        outputs_log.keep(directory, method, epoch, host["pool"])
        states, memory, facts = trainer.train(
            *(epoch, phase, states, host["pool"], memory, progress.step)
        )
        last = epoch + 1 == config.epochs
        host = sharding.fetch(
            {
                "terms": facts["terms"],
                "states": states,
                "test": trainer.infer_test(states) if phase.evaluated else [],
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
            **_mean_terms(host["terms"], facts["steps"], epoch),
            **_test_record(trainer, host["test"], memory),
            **_selection_record(trainer, phase, facts["selections"]),
            **_reading_record(trainer, facts["bad_images"]),
        }
        log.write(record)
        records.append(record)
        progress.epoch(record)
        checkpoints.save(
            epoch,
            host["states"],
            memory,
            {"epoch": epoch, "phase": phase.name, "config": resolved},
            accuracy=record.get("test_accuracy"),
            last_of_phase=phase
            not in map(method.phase, range(epoch + 1, config.epochs)),
        )
    if not host["train"]:  # the run had trained but not yet reported
        host = sharding.fetch(
            {"states": states, "train": trainer.infer_train(states)}
        )
    checkpoints.close()
    log.close()
    size, heads = len(dataset.train), method.num_nets * len(method.vote)
    scores, suggested = vote(method, host["train"], size, memory)
    facts = {
        "seconds": before + time.time() - began,
        "device": describe_device(trainer.mesh.devices.size),
        "weights_sha256": checkpoint.weights_sha256(host["states"]),
        "command": command,
        "networks_voting": method.num_nets,
        # A network's heads share one pass.
        "forward_passes": method.num_nets,
        "workdir": str(directory),
    }
    return outcome.write(
        *(directory, config, dataset, records, memory["history"]),
        *(scores / heads, suggested, facts),
    )


def _check_workdir(directory: pathlib.Path, resolved: dict) -> None:
    """Refuses a workdir that cannot be written or that another config made."""
    if directory.exists() and not directory.is_dir():
        raise UserError(f"{directory}: is not a folder")
    stored = metrics.read_json(directory / CONFIG_FILE)
    if stored is not None and stored != resolved:
        change = config_lib.difference(stored, resolved)
        raise UserError(f"{directory}: holds a run of another config: {change}")


def _make_workdir(directory: pathlib.Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
        probe = directory / ".writable"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise UserError(
            f"{directory}: cannot be written ({error.strerror})"
        ) from None


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
        part = [step.variables(state) for state in states]
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


def _mean_terms(sums: list, steps: list, epoch: int) -> dict[str, float]:
    """Mean of every loss term over steps and networks; stops on non-finite."""
    names = sorted({name for terms in sums for name in terms})
    means = {
        name: float(
            np.mean([s[name] / n for s, n in zip(sums, steps, strict=True)])
        )
        for name in names
    }
    broken = [name for name, value in means.items() if not np.isfinite(value)]
    if broken:
        terms = ", ".join(sorted(broken, key=lambda name: name == "loss"))
        raise UserError(
            f"epoch {epoch}: the training loss is not finite (term {terms}); "
            "try a smaller config.optimizer.learning_rate"
        )
    return means


def _test_record(trainer: Trainer, outputs: list, memory: dict) -> dict:
    if not outputs:
        return {}
    dataset = trainer.dataset
    scores, _ = vote(trainer.method, outputs, len(dataset.test), memory)
    counts, labels = dataset.true_counts, dataset.test.labels
    matrix = macro.confusion(scores.argmax(1), labels, dataset.num_classes)
    return macro.macro_scores(matrix) | metrics.test_metrics(
        scores,
        labels,
        dataset.given_counts if counts is None else counts,
        trainer.config.groups,
    )


def _reading_record(trainer: Trainer, bad: int | None) -> dict[str, int]:
    """Files that training and the test met and could not read."""
    if bad is None:
        return {}
    bad_tests = streaming.count_bad(trainer.test_images)
    return {"bad_images": bad + (bad_tests or 0)}


def _selection_record(
    trainer: Trainer, phase: Phase, selections: list
) -> dict[str, Any]:
    """Sizes of the split and, where truth is known, how right it is."""
    train = trainer.dataset.train
    if phase.selector is None:
        return {}
    clean = [s.clean_probability for s in selections]
    record: dict[str, Any] = {
        "labelled": np.mean([len(s.labelled) for s in selections]),
        "unlabelled": np.mean([len(s.unlabelled) for s in selections]),
        # Networks all of whose samples fell on one side.
        "collapsed_splits": sum(not len(s.unlabelled) for s in selections),
        "classes_without_selected": int(
            max(np.sum(np.asarray(s.counts) == 0) for s in selections)
        ),
    }
    if train.true_labels is None or any(c is None for c in clean):
        return record
    rows, (judged, _) = [], files.verdicts(train)
    for selection in selections:
        chosen = np.zeros(len(train), bool)
        chosen[selection.labelled] = True
        given = selection.clean_probability, chosen, train.labels
        rows.append(
            metrics.selection_metrics(
                *(values[judged] for values in (*given, train.true_labels))
            )
        )
    for name in rows[0]:
        values = [value for row in rows if (value := row[name]) is not None]
        record[name] = float(np.mean(values)) if values else None
    return record


def _describe(dataset: data.Dataset) -> dict[str, Any]:
    """What prediction needs to know of the training set, and what it was."""
    return {
        "class_names": dataset.class_names,
        "mean": dataset.mean,
        "std": dataset.std,
        "image_shape": dataset.train.images.shape[1:],
        "given_counts": dataset.given_counts,
        "test_kind": dataset.test_kind,
        "facts": dataset.facts,
    }


def describe_device(used: int) -> str:
    """Kind and number of the devices a run used."""
    device = jax.devices()[0]
    kind = device.device_kind
    if device.platform == "cpu":
        kind = f"CPU {platform.machine()}"
    return kind if used == 1 else f"{used} x {kind}"
