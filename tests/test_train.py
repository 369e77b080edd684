"""Whole runs on a tiny net: files, resume, reuse, what must not happen."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from jaxnlt import train, trainer
from jaxnlt.data import load
from jaxnlt.runtime import checkpoint, machine, sharding
from jaxnlt.runtime.errors import UserError
from tests.runs import records, same_figures, tiny, write_npz


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One uninterrupted DaSC run: workdir, summary, its trainer, fetches."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    seen = {"fetches": 0}
    fetch, make = sharding.fetch, trainer.Trainer

    def counting_fetch(tree):
        seen["fetches"] += 1
        return fetch(tree)

    def remember(*args):
        seen["trainer"] = make(*args)
        return seen["trainer"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharding, "fetch", counting_fetch)
        patch.setattr(train, "Trainer", remember)
        summary = train.run(tiny(), str(workdir), "the command")
    return workdir, summary, seen


FILES = """config.json metrics.jsonl summary.json labels.csv checkpoints
    events report.html noise.json audit.json"""
SUMMARY = """method benchmark seed epochs seconds device best_test_accuracy
    last_test_accuracy weights_sha256 mean_last10_test_accuracy
    noise_rate_realised command"""
FIGURES = """selection_auc clean_precision clean_recall noise_precision
    noise_recall accuracy_many accuracy_few accuracy_per_class lambda_u
    loss_midl images_per_second seconds labelled unlabelled"""


def test_workdir_holds_the_contract(finished):
    workdir, summary, _ = finished
    assert {path.name for path in workdir.iterdir()} >= set(FILES.split())
    assert json.loads((workdir / "summary.json").read_text()) == json.loads(
        json.dumps(summary)
    )
    assert summary["cores"] == machine.cores()
    known = {name for name, value in summary.items() if value is not None}
    assert known >= set(SUMMARY.split())
    rows = records(workdir)
    phases = ["warmup", "warmup_contrast", "semi", "semi"]
    assert [r["phase"] for r in rows] == phases
    assert [r["epoch"] for r in rows] == [0, 1, 2, 3]
    assert set(rows[-1]) >= set(FIGURES.split())
    accuracies = [r["test_accuracy"] for r in rows]
    assert summary["best_test_accuracy"] == max(accuracies)
    assert summary["last_test_accuracy"] == accuracies[-1]
    np.testing.assert_allclose(
        summary["mean_last10_test_accuracy"], np.mean(accuracies)
    )


def test_labels_csv_is_worst_first_and_complete(finished):
    workdir, _, seen = finished
    with open(workdir / "labels.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    train_split = seen["trainer"].dataset.train
    assert len(rows) == len(train_split)
    quality = [float(row["label_quality"]) for row in rows]
    assert quality == sorted(set(quality))
    given = dict(zip(train_split.ids, train_split.labels, strict=True))
    for row in rows:
        assert given[int(row["index"])] == int(row["given_label"])
    trusted = [row for row in rows if row["is_label_issue"] == "False"]
    assert all(r["suggested_label"] == r["given_label"] for r in trusted)


def test_the_audit_counts_what_is_inferred_anyway_and_the_second_half(finished):
    workdir, summary, seen = finished
    kept = checkpoint.load(workdir).memory["audit"]["train"]
    # Epoch 1 is before the first selection, which infers the training set.
    assert kept["epochs"] == 3
    size = len(seen["trainer"].dataset.train)
    np.testing.assert_allclose(
        kept["probs"].sum(1), np.full(size, 3), rtol=1e-5
    )
    facts = json.loads((workdir / "audit.json").read_text())
    joint = np.array(facts["estimated_joint"])
    np.testing.assert_allclose(joint.sum(), 1)
    wrong = 1 - joint.trace()
    np.testing.assert_allclose(
        wrong, summary["estimated_noise_rate"], atol=1e-9
    )
    assert facts["label_issues"] == summary["label_issues"]


def test_values_reach_the_host_once_an_epoch(finished):
    assert finished[2]["fetches"] == 4


def test_step_compiles_once_for_two_splits(finished):
    steps = finished[2]["trainer"].steps
    sizes = {name: step._cache_size() for name, step in steps.items()}
    assert sizes == dict.fromkeys(("warmup", "warmup_contrast", "semi"), 1)
    semi = records(finished[0])[2:]
    assert semi[0]["labelled"] != semi[1]["labelled"]


def test_complete_run_is_left_alone(finished, monkeypatch):
    workdir, summary, _ = finished
    monkeypatch.setattr(train, "Trainer", None)
    assert train.run(tiny(), str(workdir)) == json.loads(json.dumps(summary))


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from jaxnlt import train
from tests.runs import tiny
train.run(tiny(), {workdir!r})
"""


def test_kill_and_resume_end_alike(finished, tmp_path):
    workdir = tmp_path / "killed"
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    script = SCRIPT.format(root=root, workdir=str(workdir))
    cache = os.path.expanduser("~/.cache/jaxnlt/xla")
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        env=os.environ | {"JAX_COMPILATION_CACHE_DIR": cache},
        stdout=subprocess.DEVNULL,
    )
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if len(records(workdir)) >= 3:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (workdir / "summary.json").exists()
    summary = train.run(tiny(), str(workdir))
    assert summary["weights_sha256"] == finished[1]["weights_sha256"]
    pairs = list(zip(records(workdir), records(finished[0]), strict=True))
    assert len(pairs) == 4
    assert all(same_figures(a, b) for a, b in pairs)


@pytest.mark.parametrize("damage", ["flipped bit", "truncated"])
def test_damaged_checkpoint_is_named_and_skipped(
    finished, tmp_path, caplog, damage
):
    workdir = tmp_path / "damaged"
    shutil.copytree(finished[0], workdir)
    (workdir / "summary.json").unlink()
    newest = workdir / "checkpoints" / "3"
    # Orbax merges files and leaves their sources: which is read is its own.
    for file in (newest / "net0").rglob("d/*"):
        content = bytearray(file.read_bytes())
        if damage == "truncated":
            content = content[: len(content) // 2]
        else:
            content[len(content) // 2] ^= 1
        file.write_bytes(content)
    with caplog.at_level("WARNING", "jaxnlt"):
        summary = train.run(tiny(), str(workdir))
    assert str(newest) in caplog.text
    assert summary["weights_sha256"] == finished[1]["weights_sha256"]


def test_true_labels_change_no_weight(finished, monkeypatch, tmp_path):
    read = load.dataset

    def shuffled(config):
        dataset = read(config)
        true = np.random.default_rng(1).permutation(dataset.train.true_labels)
        return replace(dataset, train=replace(dataset.train, true_labels=true))

    monkeypatch.setattr(load, "dataset", shuffled)
    summary = train.run(tiny(), str(tmp_path / "run"))
    assert summary["weights_sha256"] == finished[1]["weights_sha256"]
    assert summary["selection_auc"] != finished[1]["selection_auc"]


def test_other_seed_gives_other_weights(finished, tmp_path):
    config = tiny(arg="digits,seed=1,data_seed=0", epochs=3)
    summary = train.run(config, str(tmp_path / "run"))
    assert summary["weights_sha256"] != finished[1]["weights_sha256"]


def test_workdir_of_another_config_is_refused(finished):
    with pytest.raises(UserError, match=r"another config: .*seed 0 -> 1"):
        train.run(tiny(arg="digits,seed=1,data_seed=0"), str(finished[0]))


def test_one_warm_up_serves_many_experiments(finished, tmp_path):
    source = f"{finished[0]}@1"
    config = tiny(init_from=source, start_phase="semi")
    summary = train.run(config, str(tmp_path / "same"))
    # Nothing else differs, so the second half of the run is the same.
    assert summary["weights_sha256"] == finished[1]["weights_sha256"]
    assert [r["epoch"] for r in records(tmp_path / "same")] == [2, 3]


def test_init_from_takes_networks_only(finished, tmp_path):
    config = tiny(init_from=str(finished[0]), max_steps=1, epochs=3)
    train.run(config, str(tmp_path / "run"))
    assert [r["epoch"] for r in records(tmp_path / "run")] == [0, 1, 2]


def test_init_from_names_what_does_not_fit(finished, tmp_path):
    wide = tiny(init_from=str(finished[0]), **{"model.width": 8})
    with pytest.raises(UserError, match="backbone") as error:
        train.run(wide, str(tmp_path / "run"))
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="nowhere"):
        train.run(tiny(init_from="nowhere"), str(tmp_path / "run"))
    lost = tiny(init_from=str(finished[0]), start_phase="polish")
    with pytest.raises(UserError, match="polish.*warmup, warmup_contrast"):
        train.run(lost, str(tmp_path / "run"))


def test_noise_file_gives_the_same_labels(finished, tmp_path):
    noise = str(finished[0] / "noise.json")
    config = tiny(**{"data.noise_file": noise, "data.noise": "none"})
    again = load.dataset(config)
    original = finished[2]["trainer"].dataset.train
    np.testing.assert_array_equal(again.train.labels, original.labels)


def test_non_finite_loss_stops_the_run(tmp_path):
    config = tiny("erm", **{"optimizer.learning_rate": 1e30, "epochs": 2})
    with pytest.raises(UserError, match="epoch 1: .*not finite.*loss_ce"):
        train.run(config, str(tmp_path / "run"))


def test_32_pixels_with_the_autoaugment_table(tmp_path):
    path = write_npz(tmp_path / "images.npz", size=32)
    config = tiny("erm", "npz,smoke,view=strong", **{"data.path": str(path)})
    assert config.augment.strong == "autoaugment"
    summary = train.run(config, str(tmp_path / "run"))
    assert summary["data"]["image_shape"] == [32, 32, 3]


def test_without_a_test_set_given_labels_stand_in(tmp_path):
    path = write_npz(tmp_path / "images.npz", size=8, test=False)
    config = tiny("erm", "npz,smoke", **{"data.path": str(path)})
    summary = train.run(config, str(tmp_path / "run"))
    assert summary["test_kind"] == "held_out"
