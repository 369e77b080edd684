"""H2E mixes by the scores of another method's run, as documented."""

import csv
import pathlib
import re
import shlex

import numpy as np
import pytest

from jaxnlt import main
from jaxnlt.methods import h2e
from jaxnlt.runtime.errors import UserError
from tests import runs
from tests.methods.test_h2e import make
from tests.runtime.jobs import TINY

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "methods.md"


def test_scores_of_other_labels_are_refused(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("index,given_index,clean_probability\n3,1,.5\n5,0,1\n")
    ids = np.array([5, 3])
    found = h2e.read_scores(str(path), ids, np.array([0, 1]))
    np.testing.assert_array_equal(found, [1, 0.5])
    with pytest.raises(UserError, match=f"^{path}: image 5 has class 0"):
        h2e.read_scores(str(path), ids, np.array([2, 1]))


def test_scores_are_of_networks_that_have_seen_every_fold():
    fields = {"h2e.scores": "labels.csv", "audit.out_of_sample": 2}
    made = make("digits,mix=weighted", **fields)
    with pytest.raises(UserError, match="^config.audit.out_of_sample: "):
        made.check()


@pytest.mark.slow
def test_the_two_commands_of_the_page(tmp_path, monkeypatch, capsys):
    section = PAGE.read_text().split("## H2E on another run's scores")[1]
    commands = re.search(r"```sh\n(.*?)```", section, re.DOTALL)[1]
    first, second = commands.splitlines()
    kept = []
    scored = h2e.class_scores

    def keep(labels, scores):
        kept.append((labels, scores, scored(labels, scores)))
        return kept[-1][-1]

    monkeypatch.setattr(h2e, "class_scores", keep)

    def call(command, *more):
        words = shlex.split(command.replace(":digits", ":digits,smoke"))
        words = [word.replace("runs/", f"{tmp_path}/") for word in words[3:]]
        return main.main(["jaxnlt", *words, *TINY, *more])

    assert call(first) == 0
    workdir = f"--workdir={tmp_path}/mixed"
    assert call(second, workdir) == 0
    phases = [row["phase"] for row in runs.records(tmp_path / "mixed")]
    assert phases == ["base", "identify", "robust"]
    # The scores are those of the file, the classes' sums 1.
    with (tmp_path / "scored" / "labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    by_class = np.zeros(10)
    for row in rows:
        label, score = int(row["given_index"]), float(row["clean_probability"])
        by_class[label] += score
    (labels, scores, shares), *_ = kept
    np.testing.assert_allclose(np.bincount(labels, scores), by_class)
    np.testing.assert_allclose(np.bincount(labels, shares), 1)
    # On other labels of the same images nothing is written.
    capsys.readouterr()
    other = second.replace(":digits", ":digits,rate=0.2")
    assert call(other, f"--workdir={tmp_path}/other") == 2
    assert re.fullmatch(r"jaxnlt: error: .*class.*\n", capsys.readouterr().err)
    assert not (tmp_path / "other").exists()
