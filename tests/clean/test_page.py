"""The page for reviews, in a headless Chromium as a person uses it."""

import csv
import os
import re
import time

import numpy as np
import pytest

from jaxnlt import clean
from tests.clean import browser, fake_runs
from tests.data import fakes

NAMES = ("cat", "dog", "=1+<_script><b>x", 'ü, "q"')
BAD = "train/dog/broken.png"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A folder with a run on odd names and the page for it."""
    at = tmp_path_factory.mktemp("page")
    rows = []
    for c, name in enumerate(NAMES):
        for k in range(3):
            path = f"train/{name}/</script>it's {k}, <i>&amp;.png"
            fake_runs.picture(at / "photos" / path, 10 * c + k)
            kind = "mislabelled" if k == 0 else ""
            rows.append((path, name, NAMES[0], kind))
    rows.sort(key=lambda row: row[3] == "")
    (at / "photos" / BAD).write_bytes(b"")
    rows.append((BAD, "dog", "", "unreadable"))
    fake_runs.write(at / "run", "folder", at / "photos", NAMES, rows)
    return at


def review(at, out, *flags):
    flags = ["clean", f"--workdir={at / 'run'}", f"--out={at / out}", *flags]
    assert clean.main(flags) == 0
    return at / out


@pytest.fixture(scope="module")
def page(run):
    return review(run, "page", "--action=review") / "review.html"


def test_the_page_is_one_file_that_runs_nothing_of_the_data(page):
    text = page.read_text()
    assert "default-src 'none'" in text and "unsafe" not in text
    assert not re.search(r"https?://|<b>x|<i>&amp", text)
    # The two scripts' own ends, and no more.
    assert text.count("</script") == text.count("<script") == 2


def test_the_worst_and_all_flagged_are_shown_first(run, capsys):
    review(run, "few", "--action=review", "--most=5")
    assert "5 of 13 labels" in capsys.readouterr().out
    text = (run / "few/review.html").read_text()
    assert text.count('"flagged": true') == 4
    assert text.count('"unreadable": true') == 1


needs_chromium = pytest.mark.skipif(
    not browser.there(), reason="needs Debian's chromium and chromium-driver"
)


@needs_chromium
def test_a_person_reviews(run, page, tmp_path):
    with browser.opened(tmp_path) as window:
        window.open(f"file://{page}")
        ids = window.run(
            "return JSON.parse(document.getElementById('data').textContent)"
            ".rows.map(row => row.id);"
        )
        # What cannot be read is decided from the start, and comes last.
        assert ids[-1] == BAD and window.text("#count") == "1 of 13 decided"
        # The first: cat, suggested cat, so there is nothing to accept.
        assert not window.run("return document.querySelector('b, i');")
        window.press("k")
        window.click("#sheet button:nth-child(2)")
        window.press(browser.ENTER)
        window.press("c")
        window.press("=", "1", browser.ENTER)  # keeps what the third is
        assert window.text("#count") == "4 of 13 decided"
        window.press("d", "u", "c")
        window.press(browser.DOWN, browser.ENTER)
        window.press(browser.RIGHT, "d", "d")
        window.click("#undo")
        assert window.text("#count") == "6 of 13 decided"
        # Progress is kept; the browser writes it down in its own time.
        deadline = time.monotonic() + 20
        window.open(f"file://{page}")
        while "6 of" not in window.text("#count"):
            assert time.monotonic() < deadline
            window.open(f"file://{page}")
        assert window.run("return document.title;") == window.text("#title")
        window.click("#download")
        file = tmp_path / "review.csv"
        deadline = time.monotonic() + 20
        while not file.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        # No script was refused by the page's own rules, none of the names'.
        assert window.errors() == []
    data = file.read_bytes()
    assert data.startswith(b"\xef\xbb\xbf") and data.count(b"\r\n") == 7
    with open(file, encoding="utf-8-sig", newline="") as lines:
        rows = list(csv.reader(lines))
    assert rows[0] == ["path", "label", "action", "given_label"]
    assert rows[1] == [ids[0], "cat", "keep", "cat"]
    assert rows[2] == [ids[1], "cat", "relabel", "dog"]
    assert rows[3] == [ids[2], f"'{NAMES[2]}", "keep", f"'{NAMES[2]}"]
    assert rows[4] == [ids[3], "dog", "relabel", NAMES[3]]
    assert rows[5][1:3] == ["", "drop"]
    assert rows[6] == [BAD, "", "drop", "dog"]
    # The command and the reader take it back, and agree.
    copy = review(run, "mended", f"--review={file}")
    ours = fakes.read("images", copy)
    direct = fakes.read("images", run / "photos", labels_file=file)
    assert np.bincount(ours.train.labels).tolist() == [3, 3, 3, 2]
    assert ours.class_names == direct.class_names
    counts = np.bincount(direct.train.labels)
    assert (np.bincount(ours.train.labels) == counts).all()
    assert BAD not in direct.train.ids and ids[1] in direct.train.ids


def test_features_have_rows_in_place_of_pictures(tmp_path):
    file = tmp_path / "f.npz"
    labels = np.arange(8) % 2
    np.savez(file, train_features=np.ones((8, 3)), train_labels=labels)
    rows = [(k, str(k % 2), "0", "mislabelled" * (k % 2)) for k in range(8)]
    fake_runs.write(tmp_path / "run", "npz", file, "01", rows, key="index")
    text = review(tmp_path, "page", "--action=review") / "review.html"
    assert text.read_text().count('"picture": ""') == 8
    assert os.path.getsize(text) < 60_000
