"""A workdir's own files: what is refused, what is mended and said."""

import errno
import importlib
import json
import os
import shutil

import pytest

from jaxnlt import main, train
from jaxnlt.results import journal
from jaxnlt.runtime import checkpoint, lock, machine
from jaxnlt.runtime.errors import UserError
from tests import runs

# ``jaxnlt.predict`` is the function.
predict = importlib.import_module("jaxnlt.predict")

EPOCHS = 3


def config(**fields):
    return runs.tiny("erm", "digits", epochs=EPOCHS, max_steps=1, **fields)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A complete run's folder and summary."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    return workdir, train.run(config(), workdir)


@pytest.fixture
def workdir(finished, tmp_path):
    """A copy, as if the run had been stopped before its report."""
    shutil.copytree(finished[0], tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    return tmp_path / "run"


# What stands in the place of a JSON file.
def write(content):
    def put(path):
        path.write_bytes(content)

    return put


def folder(path):
    path.unlink(missing_ok=True)
    path.mkdir()


def pipe(path):
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize("name", ["config.json", "dataset.json"])
@pytest.mark.parametrize(
    "put",
    [write(c) for c in (b"[]", b"3", b"{", b"", b"\xff", b"[" * 10**5)]
    + [folder, pipe],
)
def test_a_file_of_the_wrong_kind_is_one_line(workdir, name, put):
    put(workdir / name)
    for read in (lambda: train.run(config(), workdir), lambda: ask(workdir)):
        with pytest.raises(UserError, match=f"{workdir / name}: ") as error:
            read()
        assert "\n" not in str(error.value)


def ask(workdir):
    return predict.read_run(workdir)


@pytest.mark.parametrize(
    "name, field, value",
    [
        ("config.json", "seed", "1"),
        ("config.json", "data", []),
        ("config.json", "model", None),
        ("dataset.json", "layout", "2"),
        ("dataset.json", "mean", "0.5"),
        ("dataset.json", "mean", []),
        ("dataset.json", "given_counts", [10**12] * 10),
        ("dataset.json", "class_names", [1] * 10),
        ("dataset.json", "image_shape", [8, 8]),
    ],
)
def test_prediction_names_a_damaged_field(workdir, name, field, value):
    content = json.loads((workdir / name).read_text())
    (workdir / name).write_text(json.dumps(content | {field: value}))
    with pytest.raises(UserError, match=f"{workdir / name}.*{field}"):
        ask(workdir)
    del content[field]
    (workdir / name).write_text(json.dumps(content))
    with pytest.raises(
        UserError, match=field if field != "layout" else "older"
    ):
        ask(workdir)


def no_config(workdir):
    (workdir / "config.json").unlink()
    return config(seed=1), "checkpoints/.: holds a run of another .*seed 0 -> 1"


def renamed(workdir):
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "7")
    return config(), "checkpoints/7: is a copy of epoch 2, or"


def copied(workdir):
    place = workdir / "checkpoints"
    shutil.copytree(place / "2", place / "3")
    return config(), "checkpoints/3: is a copy of epoch 2, or"


def summary_alone(workdir):
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "config.json").unlink()
    (workdir / "summary.json").write_text("{}")
    return config(), "summary of a run without its config.json"


def checkpoints_file(workdir):
    shutil.rmtree(workdir / "checkpoints")
    (workdir / "checkpoints").touch()
    return config(), "checkpoints: is not a folder"


def report_folder(workdir):
    (workdir / "summary.json").mkdir()
    return config(), "summary.json: is not a file"


@pytest.mark.parametrize(
    "change",
    [no_config, renamed, copied, summary_alone, checkpoints_file]
    + [report_folder],
)
def test_another_runs_files_are_refused(workdir, change):
    wanted, line = change(workdir)
    before = sorted(workdir.rglob("*"))
    with pytest.raises(UserError, match=line):
        train.run(wanted, workdir)
    assert sorted(workdir.rglob("*")) == before


def test_a_second_run_is_refused(workdir):
    with lock.Lock(workdir):
        with pytest.raises(UserError, match=f"process {os.getpid()} on "):
            train.run(config(), workdir)
        ask(workdir)  # reading needs no lock


@pytest.mark.parametrize("lines", ["", "[]\n", '{"epoch": "x"}\n', "{}\n\xff"])
def test_metrics_are_mended_from_the_checkpoint(
    finished, workdir, caplog, lines
):
    whole = (workdir / "metrics.jsonl").read_bytes()
    sealed = checkpoint.load(workdir).meta["records"]
    (workdir / "metrics.jsonl").write_text(lines, "latin1")
    with caplog.at_level("WARNING", "jaxnlt"):
        log = journal.MetricsLog(workdir)
        assert log.truncate(EPOCHS - 1, sealed) == sealed
    assert (workdir / "metrics.jsonl").read_bytes() == whole
    assert len(caplog.records) == 1
    assert "metrics.jsonl" in caplog.text


def test_what_can_be_mended_is_mended_and_said(finished, workdir, caplog):
    """All at once: no config, an empty summary, an epoch less, a log more."""
    (workdir / "config.json").unlink()
    (workdir / "summary.json").write_text("{}")
    metrics = workdir / "metrics.jsonl"
    whole = metrics.read_bytes()
    metrics.write_bytes(b"".join(whole.splitlines(True)[1:]))
    with caplog.at_level("WARNING", "jaxnlt"):
        summary = train.run(config(log_outputs=True), workdir)
    assert metrics.read_bytes() == whole
    for name in ("mean_last10_test_accuracy", "weights_sha256", "epochs"):
        assert summary[name] == finished[1][name]
    assert "metrics.jsonl" in caplog.text
    assert "summary.json: " in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 7},
        {"best_test_accuracy": "0.5"},
        {"seconds": None},
        {"networks_voting": []} | {"accuracy_many": "x"},
    ],
)
def test_a_damaged_summary_is_no_complete_run(finished, workdir, change):
    content = json.dumps(finished[1] | change)
    (workdir / "summary.json").write_text(content)
    resolved = json.loads((workdir / "config.json").read_text())
    assert train.summary.finished(workdir, resolved) is None
    (workdir / "summary.json").write_text(json.dumps(finished[1]))
    assert train.summary.finished(workdir, resolved) == finished[1]


def test_other_first_weights_are_refused(finished, tmp_path):
    """init_from may move, but not change."""
    first, second = tmp_path / "first", tmp_path / "second"
    for place in (first, second):
        shutil.copytree(finished[0], place)
    for epoch in ("1", "2"):
        shutil.rmtree(second / "checkpoints" / epoch, ignore_errors=True)
    run = tmp_path / "run"
    train.run(config(init_from=f"{first}@2"), run)
    (run / "summary.json").unlink()
    first.rename(tmp_path / "moved")
    kept = checkpoint.load(second).epoch
    with pytest.raises(UserError, match="started from other weights"):
        train.run(config(init_from=f"{second}@{kept}"), run)
    train.run(config(init_from=f"{tmp_path / 'moved'}@2"), run)


@pytest.mark.parametrize("more", [0, 1])
def test_going_on_with_other_cores_is_said(workdir, monkeypatch, caplog, more):
    before = machine.cores()
    monkeypatch.setattr(machine, "cores", lambda: before + more)
    train.run(config(), workdir)
    said = [line for line in caplog.messages if "goes on elsewhere" in line]
    words = f"(cores: {before} before, {before + 1} now)"
    assert len(said) == more and all(words in line for line in said)


def breaks_at(monkeypatch, epoch, action):
    """Lets the first thing after the training of an epoch do something."""
    mean_terms = train.metrics.mean_terms

    def patched(terms, steps, now):
        if now == epoch:
            action()
        return mean_terms(terms, steps, now)

    monkeypatch.setattr(train.metrics, "mean_terms", patched)


def test_an_error_ends_after_the_save(monkeypatch, tmp_path):
    def stop():
        raise RuntimeError("a bug")

    wait = checkpoint.Checkpoints.wait
    waited = []
    monkeypatch.setattr(
        checkpoint.Checkpoints,
        "wait",
        lambda self: (wait(self), waited.append(self.epochs)),
    )
    breaks_at(monkeypatch, 1, stop)
    with pytest.raises(RuntimeError, match="a bug"):
        train.run(config(), tmp_path / "run")
    assert len(waited) >= 1
    assert checkpoint.load(tmp_path / "run").epoch == 0


def test_a_workdir_deleted_in_mid_run_is_not_made_again(monkeypatch, tmp_path):
    workdir = tmp_path / "run"
    save = checkpoint.Checkpoints.save

    def save_now(self, *args, **kwargs):
        save(self, *args, **kwargs)
        self.wait()

    monkeypatch.setattr(checkpoint.Checkpoints, "save", save_now)
    breaks_at(monkeypatch, 1, lambda: shutil.rmtree(workdir))
    with pytest.raises(UserError, match=f"{workdir}: was deleted"):
        train.run(config(), workdir)
    assert not workdir.exists()


def arguments(workdir, *more):
    return [
        "main",
        f"--config=erm:digits,epochs={EPOCHS}",
        "--config.model.width=4",
        "--config.model.blocks=(1,)",
        "--config.augment.weak=shift",
        "--config.max_steps=1",
        f"--workdir={workdir}",
        *more,
    ]


def test_a_full_disk_is_one_line(monkeypatch, tmp_path, capsys):
    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    workdir = tmp_path / "run"
    breaks_at(monkeypatch, 1, lambda: monkeypatch.setattr(os, "fsync", full))
    assert main.main(arguments(workdir)) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines[-1].startswith(f"jaxnlt: error: {workdir}/metrics.jsonl: No ")
    assert lines[-1].endswith("the same command goes on")
    monkeypatch.undo()
    assert main.main(arguments(workdir)) == 0
    assert "resumed after epoch 1" in capsys.readouterr().err


def test_outputs_that_are_not_finite_end_the_run(tmp_path, capsys):
    workdir = tmp_path / "run"
    rate = "--config.optimizer.learning_rate=1e30"
    assert main.main(arguments(workdir, rate)) == 2
    (line,) = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.startswith("jaxnlt: ")
    ]
    assert "epoch 1: the networks' outputs are not finite" in line
    assert not (workdir / "metrics.jsonl").read_text()
    assert not list((workdir / "checkpoints").iterdir())
