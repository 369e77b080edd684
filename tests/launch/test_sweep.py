"""Results tables: command lines, what labels.csv tells, the gathered rows."""

import json
import subprocess
import sys

import pytest

from jaxnlt import command_line
from launch import sweep

START = "python -m jaxnlt.main --config=configs/"
LABELS = """\
index,given_label,is_label_issue,clean_probability,predicted_label,true_label
0,a,False,0.9,a,a
1,a,True,0.1,b,b
2,a,True,0.4,a,a
3,b,True,0.2,b,c
4,b,False,0.8,b,b
5,c,False,0.7,c,a
6,c,False,,unreadable,a
"""


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs a line, and words more; exit status, stdout's lines, stderr's."""

    def run(line, *words):
        words = ["sweep.py", *line.split(), *words]
        monkeypatch.setattr(sys, "argv", words)
        try:
            status = sweep.main()
        except SystemExit as end:
            status = end.code
        captured = capsys.readouterr()
        return status, captured.out.splitlines(), captured.err.splitlines()

    return run


def test_prints_every_command_once(command):
    status, lines, _ = command("digits --out=OUT")
    assert status == 0
    table = sweep.TABLES["digits"]
    a_row = table.seeds + sum(table.also.values())
    assert len(lines) == len(set(lines)) == len(table.rows) * a_row
    config, workdir = "erm.py:digits,seed=0", "erm-digits-seed=0"
    assert lines[0] == f"{START}{config} --workdir=OUT/{workdir}"


def test_only_some_seeds(command):
    _, every, _ = command("digits-h2e")
    _, lines, _ = command("digits-h2e --seeds 4 1")
    assert lines == [x for x in every if "seed=1" in x or "seed=4" in x]
    assert len(lines) == 6


def test_a_product_has_every_cell_once(command):
    _, lines, _ = command(
        "--benchmarks cifar10 cifar100 --imb 0.1 0.02 --rate 0.4 0.6 "
        "--noise none sym human:noisy --seeds 1 5 --out=OUT "
        "--methods dasc mixup",
        "H2E, two rounds",
    )
    # None and human noise take no rate: 1 + 2 + 1.
    assert len(lines) == len(set(lines)) == 3 * 2 * 2 * 4 * 2
    assert lines[0] == (
        f"{START}dasc.py:cifar10,imb=0.1,noise=none,seed=1 "
        "--workdir=OUT/dasc-cifar10-imb=0.1-noise=none-seed=1"
    )
    for cell in (
        "erm.py:cifar100,loss=mixup,imb=0.02,noise=sym,rate=0.6,seed=5 ",
        "h2e.py:cifar10,rounds=2,imb=0.1,noise=human:noisy,seed=1 ",
    ):
        assert any(line.startswith(START + cell) for line in lines)
    # Rows are paired: every cell of a seed before the next seed.
    assert [("seed=5" in line) for line in lines] == [False] * 48 + [True] * 48


def test_a_product_of_nothing_else_is_the_defaults(command):
    _, lines, _ = command("--methods smr --out=OUT")
    run = "smr.py:digits,seed=0 --workdir=OUT/smr-digits-seed=0"
    assert lines == [f"{START}{run}"]


def test_submits_what_is_missing(command, tmp_path):
    """One job a run, with the arguments of jaxnlt.main alone."""
    for seed, content in enumerate(('{"mean_last10_test_accuracy": 1}', "{}")):
        folder = tmp_path / f"dasc-digits-seed={seed}"
        folder.mkdir()
        (folder / "summary.json").write_text(content)  # the second is none
    noted = tmp_path / "noted"
    note = "import sys; print(*sys.argv[1:], file=open(sys.argv[1], 'a'))"
    queue = f'"{sys.executable}" -c "{note}" "{noted}"'
    words = (f"--methods dasc --seeds 0 1 2 --out={tmp_path} --submit", queue)
    status, printed, _ = command(*words, "--dry-run")
    assert status == 0 and len(printed) == 2 and not noted.exists()
    assert command(*words)[:2] == (0, printed)
    assert noted.read_text().splitlines() == [
        f"{noted} --config=configs/dasc.py:digits,seed={seed} "
        f"--workdir={tmp_path}/dasc-digits-seed={seed}"
        for seed in (1, 2)
    ]
    # The queue's own failure ends the submission.
    status, printed, _ = command(*words[:-1], "false")
    assert status == 1 and len(printed) == 1


def test_runs_one_after_the_other_then_gathers(command, monkeypatch, tmp_path):
    started = []

    def run(arguments, check):
        started.append(arguments)
        return subprocess.CompletedProcess(arguments, 75 * (len(started) > 2))

    monkeypatch.setattr(sweep.subprocess, "run", run)
    words = f"--methods ce --out={tmp_path} --run"
    assert command(f"{words} --dry-run")[0] == 0 and not started
    status, lines, _ = command(words)
    assert status == 0
    assert started[0][:3] == [sys.executable, "-m", "jaxnlt.main"]
    assert lines[0].startswith("python -m")
    assert lines[1:] == [f"0 of 1 finished in {tmp_path}."]
    # A run that was stopped stops them all.
    status, lines, err = command(f"{words} --seeds 0 1 2")
    assert (status, len(started), len(lines)) == (75, 3, 2)
    assert err == [f"0 of 3 finished in {tmp_path}."]


def test_overrides_reach_every_run(command):
    words = "--methods ce sfa --out=OUT --seeds 0 1"
    fields = ("--config.data.path=/d/x", "--noconfig.deterministic")
    _, lines, _ = command(words, *fields)
    assert len(lines) == 4
    assert lines[1] == (
        "python -m jaxnlt.main --config=configs/sfa.py:digits,seed=0 "
        f"{' '.join(fields)} "
        "--workdir=OUT/sfa-digits-seed=0-data.path=_d_x-nodeterministic"
    )
    _, lines, _ = command("digits-h2e", fields[1])
    assert len(lines) == 15 and all(fields[1] in line for line in lines)
    # A field that only one of the methods has.
    status, lines, err = command(words, "--config.sfa.phi=1")
    assert (status, lines) == (2, []) and "config.sfa.phi" in err[-1]


@pytest.mark.parametrize(
    ("words", "part"),
    [
        ("", "either a table or --methods"),
        ("digits --imb 0.1", "either a table or --methods"),
        ("--methods dasq", "--methods dasq: "),
        ("--methods ce --benchmarks cifr", "benchmark 'cifr'"),
        ("--methods ce --imb x", "imb"),
        ("digits --submit no-such-queue", "no such command"),
        ("digits --run --gather", "not allowed with"),
        ("digits --sed=1", "--sed=1: is not known"),
        ("digits --config.sed=1", "config.sed: no such field"),
    ],
)
def test_mistakes(words, part, command):
    status, out, err = command(words)
    assert (status, out) == (2, [])
    assert part in err[-1]


@pytest.mark.parametrize("name", sweep.TABLES)
def test_every_command_is_a_config_and_a_folder_of_its_own(name, tmp_path):
    found = list(sweep.runs(sweep.TABLES[name], tmp_path))
    assert len({workdir for *_, workdir, _ in found}) == len(found)
    for *_, (config, *rest) in found:
        if config.endswith("seed=0"):
            command_line.parse(["main", config, *rest])


def test_what_labels_tell(tmp_path):
    (tmp_path / "labels.csv").write_text(LABELS)
    facts = sweep.from_labels(tmp_path)
    # Wrong are rows 1, 3 and 5; called wrong 1, 2 and 3.
    for name in ("flag_precision", "flag_recall", "wrong_learnt"):
        assert facts[name] == pytest.approx(2 / 3)
    assert facts["right_flagged"] == pytest.approx(1 / 3)
    assert facts["right_learnt"] == 1
    # Thirds by size of the given classes: a, b, c.
    assert facts["flag_recall_head"] == facts["flag_recall_middle"] == 1
    assert facts["flag_recall_tail"] == 0
    assert facts["flag_precision_head"] == 0.5
    assert facts["flag_precision_tail"] is None


def test_gathers_rows_columns_and_their_seeds(tmp_path):
    table = sweep.Table(
        {"CE": [sweep.ERM], "never run": [sweep.DASC]}, 2, {"imb=1": 1}
    )
    for i, (_, _, workdir, _) in enumerate(sweep.runs(table, tmp_path)):
        if "dasc" in workdir.name:
            continue
        workdir.mkdir()
        (workdir / "labels.csv").write_text(LABELS)
        (workdir / "config.json").write_text('{"method": "erm", "erm": {}}')
        summary = {
            "mean_last10_test_accuracy": 0.5 + 0.1 * i,
            "networks_voting": 1,
            "seconds": 10.0,
            "noise_rate_realised": 0.25,
            "device": "CPU",
        }
        (workdir / "summary.json").write_text(json.dumps(summary))
    found = sorted(path.name for path in tmp_path.iterdir())
    ends = ("imb=1-seed=0", "seed=0", "seed=1")
    assert found == [f"erm-digits-{end}" for end in ends]
    head, _, row, *rest = sweep.gather(table, tmp_path).splitlines()
    assert head.startswith("|  | seeds | last 10 |")
    assert head.endswith("| imb=1, last 10 |")
    # Seed 0 is the first run, seed 1 comes after both of DaSC's first.
    assert row.startswith("| CE | 2 | 70.0 ± 28.3 |")
    assert row.endswith("| 1 | – | 10 | 60.0 (1) |")
    assert "never run" not in "".join(rest)
