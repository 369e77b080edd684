import base64
import io
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from jaxnlt.data.records import Dataset, Split
from jaxnlt.results import report
from tests.auditing import made


def run(classes=10, epochs=4, truth=True, channels=3, n=300):
    rng = np.random.default_rng(0)
    names = [f"class {c}" for c in range(classes - 1)] + ["<b>&last"]
    record = {"phase": "warm_up", "loss_midl": None, "accuracy_many": 0.9}
    record |= {"accuracy_few": None}
    record["accuracy_per_class"] = [None, *rng.random(classes - 1).tolist()]
    records = [record | {"epoch": epoch} for epoch in range(epochs)]
    for epoch, record in enumerate(records):
        record["loss"] = 1.0 / (1 + epoch)
        record["test_accuracy"] = 0.5 + 0.1 * (epoch % 3)
        if epoch >= 2:
            record |= {"phase": "semi_supervised", "loss_midl": 3.0}
            if truth:
                record |= {"selection_auc": 0.9, "clean_precision": 0.8}
    train = Split(
        images=rng.integers(0, 256, (n, 8, 8, channels), np.uint8),
        labels=rng.integers(0, classes, n),
        true_labels=rng.integers(0, classes, n) if truth else None,
        ids=np.arange(n) + 1000,
    )
    summary = {"method": "dasc", "benchmark": "npz", "accuracy_few": None}
    summary |= {"mean_last10_test_accuracy": 0.61234, "seconds": 7321.0}
    summary |= {"noise_rate_realised": 0.371}
    summary |= {"command": "python -m jaxnlt.main --config='a<b'"}
    test, scale = train.take(np.arange(5)), (0.5,) * channels
    return {
        "dataset": Dataset(train, test, tuple(names), scale, scale, "test"),
        "config": {"method": "dasc", "drops": (1, 2)},
        "records": records,
        "summary": summary,
        "audit": made.audit(train.labels, classes),
    }


def write(tmp_path, **arguments) -> str:
    path = tmp_path / "report.html"
    report.write_report(path, **arguments)
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]
    return path.read_text("utf-8")


def titles(page):
    return re.findall("<h2>(.*?)</h2>", page)


ALWAYS = ["Accuracy per epoch", "Training losses"]
REST = ["Accuracy of every class", "Given against suggested labels"]
REST += ["Most suspicious labels"]


def test_everything_is_there(tmp_path):
    page = write(tmp_path, **run())
    quality = "Quality of the selection"
    assert titles(page) == [*ALWAYS, quality, "Clean probability", *REST]
    assert "61.23&nbsp;%" in page and "2 h 02 min" in page
    assert "37.10 %" in page and "--config=&#x27;a&lt;b&#x27;" in page
    assert "truly class" in page and "&lt;b&gt;&amp;last" in page
    assert "<b>&last" not in page and "None" not in page
    # Self-contained: no network, no scripts.
    sources = re.findall(r'(?:src|href)="([^"]{0,40})', page)
    assert sources and all(s.startswith("data:image/") for s in sources)
    assert not re.search("<script|url\\(|@import", page)


@pytest.mark.parametrize("classes, epochs", [(2, 1), (13, 4), (101, 4)])
def test_any_number_of_classes_without_truth(tmp_path, classes, epochs):
    page = write(tmp_path, **run(classes, epochs, truth=False, channels=1))
    assert titles(page) == [*ALWAYS, "Clean probability", *REST]
    assert page.count("<h3>") == min(classes, report.MOST_CLASSES)
    assert "truly" not in page
    assert ("suggested most often" in page) == (classes > 12)


def test_without_a_test_set(tmp_path):
    arguments = run()
    held_out = replace(arguments["dataset"], test_kind="held_out")
    page = write(tmp_path, **arguments | {"dataset": held_out})
    assert "There is no test set" in page


def test_the_least_trusted_come_first_with_their_own_pixels(tmp_path):
    arguments = run(classes=2, truth=True, n=40)
    train, audit = arguments["dataset"].train, arguments["audit"]
    page = write(tmp_path, **arguments)
    shown = re.findall(
        r'<figure title="(\d+)"><img alt="" '
        r'src="data:image/png;base64,([^"]*)"><figcaption>(.*?)<small>(.*?)<',
        page,
    )
    order = np.argsort(audit.label_quality)
    classes = (order[train.labels[order] == c] for c in range(2))
    expected = [i for rows in classes for i in rows[: report.SHOWN]]
    assert [int(id_) - 1000 for id_, *_ in shown] == expected
    names = ["class 0", "&lt;b&gt;&amp;last"]
    for i, (_, picture, label, probability) in zip(
        expected, shown, strict=True
    ):
        pixels = Image.open(io.BytesIO(base64.b64decode(picture)))
        assert (np.asarray(pixels) == train.images[i]).all()
        given, suggested = names[train.labels[i]], names[audit.suggested[i]]
        assert label == f"{given} → {suggested}"
        assert probability == f"{audit.clean_probability[i]:.3f}"


def test_pyplot_stays_untouched():
    code = (
        "import sys, tempfile\n"
        "from jaxnlt.results import report\n"
        "assert 'matplotlib' not in sys.modules\n"
        "from tests.results.test_report import run\n"
        "with tempfile.TemporaryDirectory() as d:\n"
        "    report.write_report(d + '/r.html', **run())\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def legend(page):
    """The texts of the first figure, which matplotlib leaves as comments."""
    (svg, *_) = re.findall(r"data:image/svg\+xml;base64,([^\"]*)", page)
    return re.findall("<!-- (.*?) -->", base64.b64decode(svg).decode())


def test_a_line_for_every_other_test_set(tmp_path):
    arguments = run(epochs=2)
    alone = write(tmp_path, **arguments)
    assert "Dashed" not in alone
    for i, record in enumerate(arguments["records"]):
        record |= {"imagenet_accuracy": 0.3 + 0.1 * i, "val_accuracy": None}
        record |= {"imagenet_top5_accuracy": 0.9}
    dataset = arguments["dataset"]
    more = {"imagenet": dataset.test, "val": dataset.test}
    arguments["dataset"] = replace(dataset, more_tests=more)
    page = write(tmp_path, **arguments)
    assert "Dashed: the same networks on imagenet and val." in page
    assert "The checkpoint kept as best is that of validation." in page
    # A set without a figure has no line.
    added = set(legend(page)) - set(legend(alone))
    assert [name for name in added if name.isalpha()] == ["imagenet"]
