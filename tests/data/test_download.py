"""The download of CIFAR, from a server on this machine."""

import contextlib
import hashlib
import http.server
import io
import re
import resource
import shutil
import tarfile
import tempfile
import threading

import numpy as np
import pytest

from jaxnlt.data import download
from jaxnlt.runtime.errors import UserError
from tests.data import fakes

# Parts of the binary versions, and bytes of labels before the pixels.
LAYOUTS = {
    "cifar10": (
        "cifar-10-batches-bin",
        [*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin"],
        {"batches.meta.txt": 10},
    ),
    "cifar100": (
        "cifar-100-binary",
        ["train.bin", "test.bin"],
        {"coarse_label_names.txt": 20, "fine_label_names.txt": 100},
    ),
}
# Images of a file: no class may lack one.
SIZES = {"cifar10": 20, "cifar100": 200}
VERSION = "3.0.2"


def archive(name: str, leave_out: str = "") -> tuple[bytes, np.ndarray]:
    """A tar.gz of the true layout, and all its records."""
    folder, files, names = LAYOUTS[name]
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
            info = tarfile.TarInfo(f"{folder}/{file}")
            info.size = len(content[file])
            tar.addfile(info, io.BytesIO(content[file]))
    return out.getvalue(), rows


class Server(http.server.ThreadingHTTPServer):
    """Serves `content` by path and counts; sends but half of `/cut`."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content: dict[str, bytes] = {}
        self.served = 0

    def put(self, path: str, content: bytes) -> download.Archive:
        self.content[path] = content
        url = f"http://127.0.0.1:{self.server_port}{path}"
        sha256 = hashlib.sha256(content).hexdigest()
        return download.Archive(url, len(content), sha256)


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        assert isinstance(self.server, Server)
        self.server.served += 1
        content = self.server.content.get(self.path)
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(ConnectionError):
            half = len(content) // 2 if "cut" in self.path else None
            self.wfile.write(content[:half])

    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def server():
    with Server() as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture(scope="module")
def copies(server, tmp_path_factory):
    """Folder with copies of both sets, and the records of their archives."""
    out, rows = tmp_path_factory.mktemp("copies") / "deep" / "er", {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "*")
        for name in LAYOUTS:
            content, rows[name] = archive(name)
            sent = server.put(f"/{name}.tar.gz", content)
            copy = download.prepare(name, out, sent)
            assert copy == out / name / VERSION
    return out, rows


def call(monkeypatch, archive_, name="cifar10", *more) -> int:
    monkeypatch.setitem(download.ARCHIVES, name, archive_)
    return download.main(["download", f"--dataset={name}", *more])


def split_of(name, rows):
    """Images and the last, fine labels of the training and the test rows."""
    labels = len(LAYOUTS[name][2])
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
    with pytest.raises(UserError, match=f"^{copy}: damaged") as error:
        fakes.read("cifar10", tmp_path)
    assert "\n" not in str(error.value)
    info = copy / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(
        UserError, match=f"^config.data.path: .*{copy} is in tf"
    ):
        fakes.read("cifar10", tmp_path)
    info.write_text("{")
    with pytest.raises(UserError, match=f"^config.data.path: .*{info}: "):
        fakes.read("cifar10", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_the_stock_library_reads_the_copy(copies, name):
    """Unmodified, and in its own, shuffled order: only `id` tells ours."""
    import tensorflow_datasets as tfds

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
    copies, server, monkeypatch, capfd
):
    out, _ = copies
    for name in LAYOUTS:
        assert [p.name for p in (out / name).iterdir()] == [VERSION]
    assert {p.name for p in out.iterdir()} == set(LAYOUTS)
    server.served = 0
    sent = server.put("/cifar10.tar.gz", server.content["/cifar10.tar.gz"])
    assert call(monkeypatch, sent, "cifar10", f"--out={out}") == 0
    text = capfd.readouterr()
    assert server.served == 0
    assert "is there already" in text.err
    assert text.out == (
        f"{out}/cifar10/{VERSION}: ready for --config=configs/dasc.py:cifar10 "
        f"--config.data.path={out}\n"
    )


def test_command_prints_nothing_of_the_library(
    server, monkeypatch, tmp_path, capfd
):
    """Nor does it leave temporary folders, as the library's own way does."""
    sent = server.put("/again.tar.gz", archive("cifar10")[0])
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "there"))
    assert call(monkeypatch, sent) == 0
    text = capfd.readouterr()
    assert text.err == ""
    assert text.out == (
        f"{tmp_path}/there/cifar10/{VERSION}: ready for "
        "--config=configs/dasc.py:cifar10\n"
    )
    assert not list(elsewhere.iterdir())


# Every way in which an archive cannot be had: what is changed in it, and what
# the one line says.
BROKEN = {
    "hash": "whole.tar.gz: has SHA-256 .* expected is 0000",
    "short": "whole.tar.gz: .* bytes came",
    "long": "whole.tar.gz: more than 99 bytes came",
    "cut": "cut.tar.gz: .* bytes came",
    "absent": "absent: the server answers 404",
    "unreachable": "a.tar.gz: cannot be downloaded .*refused",
    "no archive": "text: damaged archive",
    "a file is missing": "less: holds no .*data_batch_4.bin",
}


def broken(server, how: str) -> download.Archive:
    whole, _ = archive("cifar10")
    sent = server.put("/whole.tar.gz", whole)
    less, _ = archive("cifar10", leave_out="data_batch_4.bin")
    return {
        "hash": lambda: sent._replace(sha256="0" * 64),
        "short": lambda: sent._replace(size=sent.size + 1),
        "long": lambda: sent._replace(size=99),
        "cut": lambda: server.put("/cut.tar.gz", whole),
        "absent": lambda: sent._replace(
            url=f"http://127.0.0.1:{server.server_port}/absent"
        ),
        # Port 9 of this machine: nothing listens.
        "unreachable": lambda: sent._replace(url="http://127.0.0.1:9/a.tar.gz"),
        "no archive": lambda: server.put("/text", b"x" * 99),
        "a file is missing": lambda: server.put("/less", less),
    }[how]()


@pytest.mark.parametrize("how", BROKEN)
def test_failures_are_one_line_and_leave_nothing(
    server, monkeypatch, tmp_path, capfd, how
):
    sent = broken(server, how)
    out = tmp_path / "new" / "folder"
    assert call(monkeypatch, sent, "cifar10", f"--out={out}") == 2
    text = capfd.readouterr()
    assert text.out == ""
    assert re.fullmatch(rf"jaxnlt: error: .*{BROKEN[how]}.*\n", text.err)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("moment", ["download", "preparing"])
def test_full_disk(server, monkeypatch, tmp_path, capfd, moment):
    """No file may grow beyond a limit, as on a disk without space."""
    sent = server.put("/a.tar.gz", archive("cifar10")[0])
    (tmp_path / "cifar10").mkdir()
    (tmp_path / "other").write_text("kept")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))

    prepare = download.write_copy
    if moment == "preparing":
        monkeypatch.setattr(
            download, "write_copy", lambda *a: (limit(), prepare(*a))
        )
    else:
        limit()
    try:
        status = call(monkeypatch, sent, "cifar10", f"--out={tmp_path}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    text = capfd.readouterr()
    assert status == 2
    assert re.fullmatch(r"jaxnlt: error: .*[Ff]ile too large.*\n", text.err)
    assert sorted(p.name for p in tmp_path.rglob("*")) == ["cifar10", "other"]


def test_interrupt_leaves_nothing(server, monkeypatch, tmp_path, capfd):
    def interrupt(*_):
        raise KeyboardInterrupt

    sent = server.put("/a.tar.gz", archive("cifar10")[0])
    monkeypatch.setattr(download, "_examples", interrupt)
    out = tmp_path / "out"
    assert call(monkeypatch, sent, "cifar10", f"--out={out}") == 130
    text = capfd.readouterr()
    assert text.err == "jaxnlt: interrupted; nothing was kept\n"
    assert not out.exists()


def test_other_copies_are_not_touched(tmp_path):
    version = tmp_path / "cifar10" / VERSION
    version.mkdir(parents=True)
    info = version / "dataset_info.json"
    sent = download.Archive("http://127.0.0.1:9/", 1, "")
    info.write_text('{"name": "cifar10", "fileFormat": "tfrecord"}')
    with pytest.raises(UserError, match="in tfrecord format.*--out"):
        download.prepare("cifar10", tmp_path, sent)
    info.write_text("{")
    with pytest.raises(UserError, match="damaged copy .*remove it"):
        download.prepare("cifar10", tmp_path, sent)
    assert info.read_text() == "{"


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
    from tensorflow_datasets.image_classification import cifar as stock

    for name, builder in (
        ("cifar10", stock.Cifar10),
        ("cifar100", stock.Cifar100),
    ):
        ours = download.ARCHIVES[name]
        theirs = builder.url_infos[ours.url]
        assert (ours.size, ours.sha256) == (theirs.size, theirs.checksum)
    assert set(download.ARCHIVES) == {"cifar10", "cifar100"}
