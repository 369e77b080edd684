"""The download of CIFAR, from a server on this machine."""

import contextlib
import functools
import hashlib
import http.server
import io
import re
import resource
import shutil
import tarfile
import tempfile
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.image_classification import cifar

from jaxnlt.data import download
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

BUILDERS = {"cifar10": cifar.Cifar10, "cifar100": cifar.Cifar100}
#: Classes of every label, and images of a file: no class may lack one.
CLASSES = {"cifar10": [10], "cifar100": [20, 100]}
SIZES = {"cifar10": 20, "cifar100": 200}
VERSION = "3.0.2"
# Port 9 of this machine: nothing listens.
NOWHERE = download.Archive("http://127.0.0.1:9/a.tar.gz", 1, "")


def archive(name: str, leave_out: str = "") -> tuple[bytes, np.ndarray]:
    """A tar.gz of the true layout, and all its records."""
    layout = BUILDERS[name]._cifar_info.fget(SimpleNamespace(name=name))
    files = layout.train_files + layout.test_files
    names = dict(zip(layout.label_files, CLASSES[name], strict=True))
    count, width = SIZES[name] * len(files), 3072 + len(names)
    rows = np.random.default_rng(7).integers(0, 256, (count, width), np.uint8)
    for column, classes in enumerate(names.values()):
        rows[:, column] = np.random.default_rng(column).permutation(count)
        rows[:, column] %= classes
    parts = np.split(rows, len(files))
    content = dict(zip(files, (p.tobytes() for p in parts), strict=True))
    for file, classes in names.items():
        lines = [f"{file[:4]}{k}" for k in range(classes)]
        content[file] = ("\n".join(lines) + "\n\n").encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz", compresslevel=1) as tar:
        for file in sorted(set(content) - {leave_out}):
            info = tarfile.TarInfo(layout.prefix + file)
            info.size = len(content[file])
            tar.addfile(info, io.BytesIO(content[file]))
    return out.getvalue(), rows


class Handler(http.server.SimpleHTTPRequestHandler):
    """Sends but half of `/cut.tar.gz`."""

    def copyfile(self, source, outputfile):
        content = source.read()
        half = len(content) // 2 if "cut" in self.path else None
        with contextlib.suppress(ConnectionError):
            outputfile.write(content[:half])

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Puts a file on a server."""
    folder = tmp_path_factory.mktemp("served")
    handler = functools.partial(Handler, directory=folder)

    def put(name: str, content: bytes) -> download.Archive:
        (folder / name).write_bytes(content)
        url = f"http://127.0.0.1:{server.server_port}/{name}"
        sha256 = hashlib.sha256(content).hexdigest()
        return download.Archive(url, len(content), sha256)

    with (
        pytest.MonkeyPatch.context() as patch,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server,
    ):
        patch.setenv("no_proxy", "*")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield put
        server.shutdown()


@pytest.fixture(scope="module")
def sent(serve):
    return serve("a.tar.gz", archive("cifar10")[0])


@pytest.fixture(scope="module")
def copies(serve, tmp_path_factory):
    """Folder with copies of both sets, and the records of their archives."""
    out, rows = tmp_path_factory.mktemp("copies") / "deep" / "er", {}
    for name in BUILDERS:
        content, rows[name] = archive(name)
        copy = download.prepare(name, out, serve(f"{name}.tar.gz", content))
        assert copy == out / name / VERSION
    return out, rows


def call(monkeypatch, archive_, *more) -> int:
    monkeypatch.setitem(download.ARCHIVES, "cifar10", archive_)
    return download.main(["download", "--dataset=cifar10", *more])


def split_of(name, rows):
    """Images and the last, fine labels of the training and the test rows."""
    labels = len(CLASSES[name])
    images = rows[:, labels:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    test = len(rows) - SIZES[name]
    return [
        (images[p], rows[p, labels - 1])
        for p in np.split(range(len(rows)), [test])
    ]


@pytest.mark.parametrize("name, human", [("cifar10", ""), ("cifar100", "n")])
def test_training_finds_the_copy_in_official_order(
    copies, monkeypatch, name, human
):
    out, rows = copies
    monkeypatch.setenv("TFDS_DATA_DIR", str(out))
    monkeypatch.setenv("HOME", str(out / "home"))
    monkeypatch.chdir(out)
    source = fakes.read(name + human)
    for split, (images, labels) in zip(
        (source.train, source.test), split_of(name, rows[name]), strict=True
    ):
        np.testing.assert_array_equal(split.images, images)
        np.testing.assert_array_equal(split.labels, labels)
        np.testing.assert_array_equal(split.ids, np.arange(len(labels)))
    start = "batc" if name == "cifar10" else "fine"
    assert source.class_names[-1] == f"{start}{len(source.class_names) - 1}"


def test_damaged_or_foreign_copies_are_not_read(copies, tmp_path):
    copy = tmp_path / "cifar10" / VERSION
    shutil.copytree(copies[0] / "cifar10" / VERSION, copy)
    for path in (tmp_path, copy):
        assert fakes.read("cifar10", path).path == str(copy)
    file = next(copy.glob("*train*"))
    file.write_bytes(file.read_bytes()[:1000])
    info = copy / "dataset_info.json"
    foreign = info.read_text().replace("array_record", "tfrecord")
    for content, words in (
        (info.read_text(), f"{copy}: damaged"),
        (foreign, f"config.data.path: .*{copy} is in tf"),
        ("{", f"config.data.path: .*{info}: "),
    ):
        info.write_text(content)
        with pytest.raises(UserError, match=rf"^{words}.*\Z"):
            fakes.read("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_stock_library_reads_the_copy(copies, name):
    """Unmodified, and in its own, shuffled order: only `id` tells ours."""
    out, rows = copies
    for split, (images, labels) in zip(
        ("train", "test"), split_of(name, rows[name]), strict=True
    ):
        records = list(tfds.data_source(name, data_dir=out, split=split))
        places = [int(r["id"].decode().split("_")[1]) for r in records]
        assert places != sorted(places)
        records.sort(key=lambda record: record["id"])
        assert records[0]["id"] == f"{split}_00000".encode()
        assert len(records) == len(labels)
        for record, image, label in zip(records, images, labels, strict=True):
            np.testing.assert_array_equal(record["image"], image)
            assert record["label"] == label
    if name == "cifar100":
        coarse = rows[name][-SIZES[name] :, 0]
        assert [r["coarse_label"] for r in records] == coarse.tolist()


def test_command_says_where_and_does_not_download_twice(
    copies, monkeypatch, capfd
):
    out, _ = copies
    for name in BUILDERS:
        assert [p.name for p in (out / name).iterdir()] == [VERSION]
    assert {p.name for p in out.iterdir()} == set(BUILDERS)
    assert call(monkeypatch, NOWHERE, f"--out={out}") == 0
    text = capfd.readouterr()
    assert "is there already" in text.err
    assert text.out == (
        f"{out}/cifar10/{VERSION}: ready for --config=configs/dasc.py:cifar10 "
        f"--config.data.path={out}\n"
    )


def test_command_prints_nothing_of_the_library(
    sent, monkeypatch, tmp_path, capfd
):
    """Nor does it leave temporary folders, as the library's own way does."""
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "there"))
    assert call(monkeypatch, sent) == 0
    text = capfd.readouterr()
    assert text.err == ""
    assert text.out.endswith("ready for --config=configs/dasc.py:cifar10\n")
    assert (tmp_path / "there" / "cifar10" / VERSION).is_dir()
    assert not list(elsewhere.iterdir())


@pytest.mark.parametrize(
    "change, words",
    [
        (lambda a, put: a._replace(sha256="0" * 64), "a.tar.gz: has SHA-256"),
        (lambda a, put: a._replace(size=a.size + 1), "a.tar.gz: .* bytes came"),
        (lambda a, put: a._replace(size=99), "a.tar.gz: more than 99 bytes"),
        (
            lambda a, put: put("cut.tar.gz", archive("cifar10")[0]),
            "cut.tar.gz: .* bytes came",
        ),
        (lambda a, put: a._replace(url=f"{a.url}s"), "gzs: the server .* 404"),
        (lambda a, put: NOWHERE, "a.tar.gz: cannot be downloaded .*refused"),
        (lambda a, put: put("text", b"x" * 99), "text: damaged archive"),
        (
            lambda a, put: put(
                "less", archive("cifar10", leave_out="data_batch_4.bin")[0]
            ),
            "less: holds no .*data_batch_4.bin",
        ),
    ],
)
def test_failures_are_one_line_and_leave_nothing(
    sent, serve, monkeypatch, tmp_path, capfd, change, words
):
    out = tmp_path / "new" / "folder"
    assert call(monkeypatch, change(sent, serve), f"--out={out}") == 2
    text = capfd.readouterr()
    assert text.out == ""
    assert re.fullmatch(rf"jaxnlt: error: .*{words}.*\n", text.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["fetch", "write_copy"])
def test_full_disk(sent, monkeypatch, tmp_path, capfd, moment):
    """No file may grow beyond a limit, as on a disk without space."""
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "other").write_text("kept")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    step = getattr(download, moment)

    def limited(*args):
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
        step(*args)

    monkeypatch.setattr(download, moment, limited)
    try:
        status = call(monkeypatch, sent, f"--out={tmp_path}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = capfd.readouterr()
    assert status == 2
    assert re.fullmatch(r"jaxnlt: error: .*[Ff]ile too large.*\n", text.err)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar10", "other"]


def test_interrupt_leaves_nothing(sent, monkeypatch, tmp_path, capfd):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(download, "_examples", interrupt)
    out = tmp_path / "out"
    assert call(monkeypatch, sent, f"--out={out}") == 130
    text = capfd.readouterr()
    assert text.err == "jaxnlt: interrupted; nothing was kept\n"
    assert not out.exists()


@pytest.mark.parametrize(
    "content, words",
    [
        (
            '{"name": "cifar10", "fileFormat": "tfrecord"}',
            "in tfrecord .*--out",
        ),
        ("{", "damaged copy .*remove it"),
    ],
)
def test_other_copies_are_not_touched(tmp_path, content, words):
    info = tmp_path / "cifar10" / VERSION / "dataset_info.json"
    info.parent.mkdir(parents=True)
    info.write_text(content)
    with pytest.raises(UserError, match=words):
        download.prepare("cifar10", tmp_path, NOWHERE)
    assert info.read_text() == content


@pytest.mark.parametrize(
    "argv, words",
    [
        ([], "--dataset: "),
        (["--dataset=cifar10n"], "--dataset: 'cifar10n' "),
        (["--data=cifar10"], "--data: "),
    ],
)
def test_command_line(argv, words, capsys):
    assert download.main(["download", *argv]) == 2
    text = capsys.readouterr().err
    assert text.startswith(f"jaxnlt: error: {words}") and text.count("\n") == 1
    assert download.main(["download", "--help"]) == 0
    assert "--dataset=NAME" in capsys.readouterr().out


def test_archives_are_those_of_the_library():
    assert set(download.ARCHIVES) == set(BUILDERS)
    for name, ours in download.ARCHIVES.items():
        theirs = BUILDERS[name].url_infos[ours.url]
        assert (ours.size, ours.sha256) == (theirs.size, theirs.checksum)
