"""CPU seconds of the epochs of a run."""

import json

from jaxnlt.bench import timed


class Dispatched:
    """A state whose computation takes CPU seconds once it is waited for."""

    def __init__(self, clock, seconds):
        self.clock, self.seconds = clock, seconds

    def block_until_ready(self):
        self.clock["now"] += self.seconds
        return self


def test_an_epoch_is_charged_with_its_own_steps(tmp_path, monkeypatch):
    clock = {"now": 100.0}
    costs = [5.0, 1.0, 4.0]

    def run(config, workdir, command, observe, quiet):
        del config, command, quiet
        for cost in costs:
            observe(None, [Dispatched(clock, cost)], None)
        lines = [json.dumps({"epoch": epoch}) + "\n" for epoch in range(4)]
        (workdir / "metrics.jsonl").write_text("".join(lines))
        return {"accuracy": 0.5}

    monkeypatch.setattr(timed.train, "run", run)
    monkeypatch.setattr(timed.time, "process_time", lambda: clock["now"])
    done = timed.run(["--config=configs/erm.py:digits,smoke"], tmp_path)
    assert done.summary == {"accuracy": 0.5}
    # The first epoch was of an earlier call.
    assert [epoch.get("cpu_seconds") for epoch in done.epochs] == [None, *costs]
