"""H2E: whole runs, their hand-overs and resumption, and score files."""

import jax
import numpy as np
import pytest

from jaxnlt import models, train
from jaxnlt.methods import h2e
from jaxnlt.runtime import checkpoint
from jaxnlt.runtime.errors import UserError
from launch import study_h2e
from tests import runs
from tests.methods.test_h2e import make

# Whole runs: too dear for every change.
pytestmark = pytest.mark.slow

TWO_ROUNDS = ["base", "identify", "robust", "robust"] * 2


# Score files -----------------------------------------------------------------


def write_scores(path, lines, key="index"):
    path.write_text("\n".join([f"{key},clean_probability", *lines]) + "\n")
    return str(path)


def test_scores_are_matched_by_id(tmp_path):
    path = write_scores(tmp_path / "a.csv", ["7,0.5", "3,0.25", "5,1"])
    labels = np.zeros(3, int)
    found = h2e.read_scores(path, np.array([3, 5, 7]), labels)
    np.testing.assert_array_equal(found, [0.25, 1, 0.5])
    lines = ["a/x.png,0.5", "b/y.png,0"]
    path = write_scores(tmp_path / "b.csv", lines, "path")
    ids = np.array(["b/y.png", "a/x.png"])
    found = h2e.read_scores(path, ids, labels[:2])
    np.testing.assert_array_equal(found, [0, 0.5])


@pytest.mark.parametrize(
    "lines, key, message",
    [
        (["3,0.5", "7,1"], "index", "lacks the training image 5"),
        (["3,1", "5,1", "7,1", "9,1"], "index", "9 is not an image"),
        (["3,1", "5,1", "7,1", "5,1"], "index", "5 is listed twice"),
        *(
            (["3,1", f"5{bad}", "7,1"], "index", "the clean_probability of 5 ")
            for bad in (",x", ",-1", ",nan", "")
        ),
        (["3,1"], "path", "has no column index"),
        ([], "index", "has no column index"),
    ],
)
def test_bad_score_files_are_named(lines, key, message, tmp_path):
    path = write_scores(tmp_path / "labels.csv", lines, key)
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        h2e.read_scores(path, np.array([3, 5, 7]), np.zeros(3, int))


def test_a_missing_score_file_is_named(tmp_path):
    path = str(tmp_path / "nowhere.csv")
    fields = {"h2e.scores": path}
    with pytest.raises(UserError, match=f"^{path}: no such file"):
        make("digits,mix=weighted", ids=np.arange(60), **fields)
    # Prediction has no ids and needs no scores.
    assert make("digits,mix=weighted", **fields).scores is None


# Whole runs ------------------------------------------------------------------

SMALL = {"model.blocks": (1, 1), "max_steps": 2}


class Killed(Exception):
    """Stands in for the signal that ends a process."""


def two_rounds(**fields):
    """Two rounds, robust twice in each; statistics move as released."""
    starts = {"1.identify": 1, "1.robust": 2}
    starts |= {"2.base": 4, "2.identify": 5, "2.robust": 6}
    begun = {f"h2e.starts.round{name}": e for name, e in starts.items()}
    fields = begun | fields
    fields |= {"epochs": 8, "h2e.frozen_bn": "train"}
    return runs.tiny("h2e", "digits,rounds=2", **SMALL, **fields)


@pytest.fixture(scope="module")
def iterated(tmp_path_factory):
    """Folder of a run of two rounds, its entries and its selections."""
    entered, selected = [], []
    enter, trained = h2e.Method.enter, train.Trainer.train

    def keep(self, epoch, states, memory, fresh):
        after, kept = enter(self, epoch, states, memory, fresh)
        entered.append(jax.device_get((states, after, kept)))
        return after, kept

    def watch(self, *args):
        result = trained(self, *args)
        selected.append(result[2].selections[0])
        return result

    workdir = tmp_path_factory.mktemp("h2e") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(h2e.Method, "enter", keep)
        patch.setattr(train.Trainer, "train", watch)
        summary = train.run(two_rounds(), workdir)
    return workdir, summary, entered, selected


def same(a, b):
    """Tree of whether two trees' arrays are equal."""
    return jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), a, b)


def test_a_run_of_two_rounds(iterated):
    workdir, summary, _, selected = iterated
    rows = runs.records(workdir)
    assert [r["phase"] for r in rows] == TWO_ROUNDS
    for row in rows:
        assert ("test_accuracy" in row) == (row["phase"] != "identify")
        assert ("labelled" in row) == (
            row["phase"] == "robust" or row["epoch"] > 3
        )
        assert np.isfinite(row["loss"])
    assert 0 <= summary["noise_recall"] <= 1
    # The second round trains on what the first has not flagged.
    flagged = selected[2].unlabelled
    assert 0 < len(flagged) < len(selected[2].weights)
    for epoch in (4, 5):
        np.testing.assert_array_equal(selected[epoch].unlabelled, flagged)
    # One round keeps its weights; the next has its own.
    for first, second in ((2, 3), (6, 7)):
        np.testing.assert_array_equal(
            selected[first].weights, selected[second].weights
        )
    assert (selected[6].weights != selected[2].weights).any()


def test_the_identifier_starts_from_the_classifier(iterated):
    ((before,), (after,), _) = iterated[2][1]
    head = after.params["identifier"]
    jax.tree.map(
        np.testing.assert_array_equal,
        head["linear"],
        before.params["logits"],
    )
    np.testing.assert_array_equal(head["exponents"], 1)
    trace = jax.tree.leaves(before.momentum)
    assert any(leaf.any() for leaf in trace)
    assert not any(leaf.any() for leaf in jax.tree.leaves(after.momentum))


def test_identify_leaves_the_base_network_alone(iterated):
    _, (_, (start,), _), ((end,), (robust,), _), *_ = iterated[2]
    kept = same(start.params, end.params)
    assert all(jax.tree.leaves(kept["backbone"] | {"l": kept["logits"]}))
    assert not any(jax.tree.leaves(kept["identifier"]))
    # As released its statistics move; robust starts without that.
    assert not all(jax.tree.leaves(same(start.batch_stats, end.batch_stats)))
    assert all(jax.tree.leaves(same(start.batch_stats, robust.batch_stats)))
    assert not any(leaf.any() for leaf in jax.tree.leaves(robust.momentum))


def test_robust_moves_the_last_block_and_the_classifier(iterated):
    _, _, (_, (start,), memory), ((end,), _, _), *_ = iterated[2]
    assert memory.method.adjusted
    kept = same(start.params, end.params)
    assert all(jax.tree.leaves(kept["identifier"]))
    for name, part in (kept["backbone"] | {"logits": kept["logits"]}).items():
        moves = name in ("logits", "stage2_block1")
        assert set(jax.tree.leaves(part)) == {not moves}


def test_a_new_round_has_new_networks(iterated):
    entries = iterated[2]
    (first,) = entries[0][1]
    ((old,), (fresh,), memory) = entries[3]
    for other in (first, old):
        kept = same(other.params, fresh.params)
        assert not any(jax.tree.leaves(kept["logits"]))
    assert not any(jax.tree.leaves(fresh.momentum)[0].ravel())
    kept = same(first.batch_stats, fresh.batch_stats)
    assert all(jax.tree.leaves(kept))
    assert not memory.method.adjusted
    assert len(memory.selector["robust"][0].weights)
    # The second robust phase weighs anew.
    assert not len(entries[5][2].selector["robust"][0].weights)


def test_a_kill_inside_any_phase_changes_nothing(
    iterated, tmp_path, monkeypatch
):
    """Killed as each epoch's checkpoint is about to be written."""
    whole, summary = iterated[:2]
    save = checkpoint.Checkpoints.save
    for killed in range(1, 8):

        def stop(self, epoch, *args, killed=killed, **kwargs):
            if epoch == killed:
                self.wait()  # the process that dies would write no longer
                raise Killed
            return save(self, epoch, *args, **kwargs)

        monkeypatch.setattr(checkpoint.Checkpoints, "save", stop)
        with pytest.raises(Killed):
            train.run(two_rounds(), tmp_path / "run")
    monkeypatch.setattr(checkpoint.Checkpoints, "save", save)
    again = train.run(two_rounds(), tmp_path / "run")
    assert again["weights_sha256"] == summary["weights_sha256"]
    again_in = tmp_path / "run"
    pairs = zip(runs.records(whole), runs.records(again_in), strict=True)
    assert all(runs.same_figures(a, b) for a, b in pairs)
    tables = [(run / "labels.csv").read_bytes() for run in (whole, again_in)]
    assert tables[0] == tables[1]


@pytest.mark.parametrize("name", sorted(models.BACKBONES))
def test_a_network_without_the_last_block_is_refused(name, tmp_path):
    """Exactly where robust would find nothing to train; nothing is written."""
    fields = {"model.name": name, "model.blocks": (), "model.width": 2}
    config = runs.tiny("h2e", **fields)
    network = models.build(config.model, 10, ("logits",))
    side = 75 if name == "inception_resnet_v2" else 32
    shape = (side,) if name == "mlp" else (side, side, 1)
    group, block = h2e.last_block(config.model)
    if block in network.init(0, shape)["params"][group]:
        make(**fields)
        return
    with pytest.raises(UserError, match=f"^config.h2e.freeze: {name} has no "):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    make(**fields, **{"h2e.freeze": False})


def test_labels_csv_of_any_run_feeds_the_weighted_mixup(iterated, tmp_path):
    scores = iterated[0] / "labels.csv"
    fields = SMALL | {"epochs": 1, "h2e.scores": str(scores)}
    config = runs.tiny("h2e", "digits,rounds=0,mix=weighted", **fields)
    train.run(config, tmp_path / "run")
    (row,) = runs.records(tmp_path / "run")
    assert row["phase"] == "base" and np.isfinite(row["loss"])
    arg = "digits,rounds=0,mix=weighted,data_seed=1"
    other = runs.tiny("h2e", arg, **fields)
    with pytest.raises(UserError, match=f"^{scores}: image .* train both"):
        train.run(other, tmp_path / "other")


# The study of its flags -------------------------------------------------------


def test_quality_by_hand():
    given = np.array([0, 0, 0, 1, 1, 2])
    wrong = np.array([1, 0, 0, 1, 0, 1], bool)
    flags = np.array([1, 1, 0, 0, 0, 1], bool)
    found = study_h2e.quality(flags, wrong, given)
    assert found == [2 / 3, 1 / 2, None, 1, 2 / 3, 1, 0, 1]


def test_the_study_agrees_with_what_the_run_logged(iterated):
    found = study_h2e.rows(iterated[0])
    assert list(found) == ["base", "round 1", "round 2"]
    records = runs.records(iterated[0])
    for name, epochs in (("round 1", (2, 3)), ("round 2", (6, 7))):
        of = [records[epoch] for epoch in epochs]
        expected = [
            np.mean([r["test_accuracy"] for r in of]),
            of[-1]["noise_precision"],
            of[-1]["noise_recall"],
        ]
        got = [found[name][column] for column in (0, 2, 6)]
        assert got == pytest.approx(expected)
    lines = study_h2e.table([found, found]).splitlines()
    assert len(lines) == 5 and all(line.count("|") == 12 for line in lines)
    assert " ± 0.0 " in lines[2]
