"""One workdir, one run."""

import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys

import pytest

from jaxnlt.runtime import lock
from jaxnlt.runtime.errors import UserError

HOLDS = """
import pathlib, signal, sys
from jaxnlt.runtime import lock
held = lock.Lock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
signal.pause()
"""


def test_another_process_is_named_and_its_death_frees_the_workdir(tmp_path):
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"held\n"
        named = f"{tmp_path}: process {process.pid} on {socket.gethostname()} "
        for take in (lock.Lock, lock.check_free):
            with pytest.raises(UserError, match=named):
                take(tmp_path)
        process.send_signal(signal.SIGKILL)
    assert json.loads((tmp_path / lock.FILE).read_text())[1] == process.pid
    lock.check_free(tmp_path)
    with lock.Lock(tmp_path):
        content = json.loads((tmp_path / lock.FILE).read_text())
        assert content[:2] == [socket.gethostname(), os.getpid()]
    assert (tmp_path / lock.FILE).read_text() == ""


@pytest.mark.parametrize("age, refused", [(5, True), (300, False)])
def test_another_host_is_believed_while_it_shows_life(tmp_path, age, refused):
    file = tmp_path / lock.FILE
    file.write_text(json.dumps(["elsewhere", 7, "99"]))
    then = file.stat().st_mtime - age
    os.utime(file, (then, then))
    if refused:
        with pytest.raises(UserError, match="process 7 on elsewhere .*remove"):
            lock.Lock(tmp_path)
        assert json.loads(file.read_text())[0] == "elsewhere"
    else:
        lock.Lock(tmp_path).release()


@pytest.mark.parametrize("alive", [True, False])
def test_where_the_file_system_has_no_locks_the_content_decides(
    tmp_path, monkeypatch, alive
):
    def missing(*_):
        raise OSError("no locks available")

    monkeypatch.setattr(lock.fcntl, "flock", missing)
    with lock.Lock(tmp_path):
        if alive:
            with pytest.raises(UserError, match=f"process {os.getpid()} on"):
                lock.Lock(tmp_path)
        else:  # another process has got the number since
            host = socket.gethostname()
            content = json.dumps([host, os.getpid(), "0"])
            (tmp_path / lock.FILE).write_text(content)
            lock.Lock(tmp_path).release()


@pytest.mark.parametrize(
    "content", [b"", b"\xff", b"[" * 4000, b'["a", "b", "c"]', b"{}", b"[1]"]
)
def test_content_that_names_nobody_holds_nothing(tmp_path, content):
    (tmp_path / lock.FILE).write_bytes(content)
    lock.Lock(tmp_path).release()


def test_a_pipe_in_its_place_is_refused(tmp_path):
    os.mkfifo(tmp_path / lock.FILE)
    with pytest.raises(UserError, match="is not a file"):
        lock.Lock(tmp_path)


def delete(path: pathlib.Path):
    shutil.rmtree(path)


def replace(path: pathlib.Path):
    shutil.rmtree(path)
    path.mkdir()
    (path / lock.FILE).touch()


@pytest.mark.parametrize("change", [delete, replace])
def test_a_workdir_that_is_gone_is_not_written_to(tmp_path, change):
    workdir = tmp_path / "run"
    workdir.mkdir()
    with lock.Lock(workdir) as held:
        held.check()
        change(workdir)
        with pytest.raises(UserError, match=f"{workdir}: was deleted"):
            held.check()
