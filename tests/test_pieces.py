"""All pieces of a recipe at once, in a run that goes on where it stopped."""

import pytest

from jaxnlt import train
from tests.runs import check_resume, records, tiny

PIECES = {
    "align_to": "estimated",
    "trust_by": "either",
    "trust_floor": 0.5,
    "retrain_epochs": 1,
    "retrain_part": "all",
}


@pytest.mark.slow
def test_a_run_with_all_pieces_resumes(tmp_path):
    fields = {f"dasc.{key}": value for key, value in PIECES.items()}
    fields |= {"model.ema": 0.5, "model.ema_teaches": "both"}
    fields |= {"optimizer.schedule": "cosine", "optimizer.rise": 2.0}
    config = tiny("dasc", epochs=5, **{"dasc.warmup": 2}, **fields)
    train.run(config, tmp_path / "run", quiet=True)
    rows = records(tmp_path / "run")
    assert [row["phase"] for row in rows[2:]] == ["semi", "semi", "retrain"]
    assert all(row["classes_without_selected"] == 0 for row in rows[2:])
    rates = [row["learning_rate"] for row in rows]
    # Half, all, all, three quarters of .02; a tenth of a quarter at the end.
    wanted = [0.01, 0.02, 0.02, 0.015, 0.0005]
    assert rates == pytest.approx(wanted)
    check_resume(config, tmp_path / "run")
