"""The data folder: complete files or no file."""

import errno
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lightning_xt.data.files import data_folder as folders
from lightning_xt.data.files.data_folder import data_folder, store

KEY = "0123456789abcdef" + "f" * 48


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data" / "prepared"


@pytest.fixture
def elsewhere(tmp_path):
    """Return the folder of the user's cache."""
    return tmp_path / "cache" / "lightning-xt" / "prepared"


def forbid(monkeypatch, folder, number=errno.EACCES):
    """Make a folder read-only, which file modes do not for root."""
    opened = os.open
    Path(folder).mkdir(parents=True, exist_ok=True)

    def refuse(path, flags, *args, **options):
        if flags & (os.O_WRONLY | os.O_RDWR) and Path(os.fspath(path)).parent == folder:
            raise OSError(number, os.strerror(number), str(path))
        return opened(path, flags, *args, **options)

    monkeypatch.setattr(os, "open", refuse)


def test_where_data_lives(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setenv("LIGHTNING_XT_DATA", "~/corpora")
    assert data_folder() == Path("/home/ada/corpora")
    monkeypatch.setenv("LIGHTNING_XT_DATA", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "/scratch")
    assert data_folder() == Path("/scratch/lightning-xt")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert data_folder() == Path("/home/ada/.cache/lightning-xt")


def test_a_file_is_named_for_its_key_and_written_once(folder):
    opened = []

    def chunks():
        opened.append(1)
        yield from (b"ab", b"c")

    path = store("x", KEY, chunks)
    assert path == folder / "x-0123456789abcdef.bin"
    assert path.read_bytes() == b"abc"
    assert store("x", KEY, chunks) == path and len(opened) == 1
    assert os.listdir(folder) == [path.name]


def test_an_error_leaves_nothing_behind(folder):
    def chunks():
        yield b"abc"
        raise ValueError("broken source")

    with pytest.raises(ValueError, match="broken source"):
        store("x", KEY, chunks)
    assert os.listdir(folder) == []


def test_a_folder_that_is_not_one(folder, tmp_path):
    (tmp_path / "data").write_text("")
    with pytest.raises(OSError, match=r"cannot write prepared data to .*data.prepared \(.*LIGHTNING_XT_DATA to a fold"):
        store("x", KEY, lambda: [b"abc"])


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_data_folder_that_must_not_be_written(folder, elsewhere, monkeypatch, number):
    (folder / "y-0123456789abcdef.bin").parent.mkdir(parents=True)
    (folder / "y-0123456789abcdef.bin").write_bytes(b"there")
    forbid(monkeypatch, folder, number)
    assert store("x", KEY, lambda: [b"abc"]) == elsewhere / "x-0123456789abcdef.bin"
    assert store("x", KEY, lambda: pytest.fail("prepared twice")).read_bytes() == b"abc"
    # An existing file needs neither a lock nor a right to write.
    assert store("y", KEY, lambda: pytest.fail("prepared twice")).read_bytes() == b"there"
    forbid(monkeypatch, elsewhere, number)
    with pytest.raises(OSError, match=rf"to {elsewhere} \({os.strerror(number)}\); free it or make it writable"):
        store("z", KEY, lambda: [b"abc"])
    assert os.listdir(elsewhere) == ["x-0123456789abcdef.bin"]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_no_space_left(folder, elsewhere, monkeypatch, number):
    def full(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=rf"cannot write prepared data to {folder} \({os.strerror(number)}\); free it"):
        store("x", KEY, lambda: [b"abc"])
    assert os.listdir(folder) == [] and not elsewhere.exists()


def test_sources_are_closed_with_the_first_error(folder):
    closed = []

    def chunks():
        try:
            yield "no bytes"
        finally:
            closed.append(1)

    # The kept error holds the frames with the stream.
    with pytest.raises(TypeError) as kept:
        store("x", KEY, chunks)
    assert closed == [1] and kept.traceback and os.listdir(folder) == []


def test_a_file_larger_than_the_system_allows(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write prepared data to .*File too large"):
            store("x", KEY, lambda: [bytes(600), bytes(600)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(folder) == []


PROCESS = """
import sys
from lightning_xt.data.files.data_folder import store

def chunks():
    print("opened", flush=True)
    for n in range(64):
        yield bytes([n]) * 65536
        if n == 32 and sys.argv[1] == "stop":
            sys.stdin.readline()

print("ready", flush=True)
sys.stdin.readline()
key = sys.argv[2]
print(store("x", key, chunks).read_bytes() == b"".join(bytes([n]) * 65536 for n in range(64)))
"""


def start(how):
    command = [sys.executable, "-c", PROCESS, how, KEY]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def go(process):
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_prepare_at_once(folder):
    processes = [start("on"), start("on")]
    for process in processes:
        go(process)
    outputs = [process.communicate(timeout=60)[0] for process in processes]
    assert sorted(outputs) == ["True\n", "opened\nTrue\n"]
    assert os.listdir(folder) == ["x-0123456789abcdef.bin"]


def test_a_writer_that_is_killed(folder):
    process = start("stop")
    go(process)
    assert process.stdout.readline() == "opened\n"
    while not any(path.stat().st_size > 2**20 for path in folder.glob(".*.part")):
        pass
    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)
    (part,) = folder.glob(".*.part")
    path = store("x", KEY, lambda: [b"abc"])
    assert path.read_bytes() == b"abc" and sorted(folder.iterdir()) == [path]
    # The same holds if another process has written the file meanwhile.
    part.touch()
    other = part.with_name(part.name.replace(KEY[:16], "0" * 16))
    other.touch()
    assert store("x", KEY, lambda: pytest.fail("prepared twice")) == path
    assert sorted(folder.iterdir()) == [other, path]


@pytest.mark.parametrize("writer", ["here.alive", "elsewhere.999999999", "999999999"])
def test_a_writer_that_may_be_at_work(folder, writer):
    writer = writer.replace("here.alive", f"{socket.gethostname()}.{os.getpid()}")
    path = store("x", KEY, lambda: [b"abc"])
    part = path.with_name(f".{path.name}.{writer}.01234567.part")
    part.touch()
    store("x", KEY, lambda: pytest.fail("prepared twice"))
    assert sorted(folder.iterdir()) == [part, path]
    # An hour without a write.
    os.utime(part, (time.time() - folders.ABANDONED - 60,) * 2)
    store("x", KEY, lambda: pytest.fail("prepared twice"))
    assert sorted(folder.iterdir()) == [path]
    assert folders.ABANDONED == 3600


@pytest.mark.parametrize("error", [PermissionError, FileNotFoundError])
def test_a_part_that_cannot_be_removed(folder, monkeypatch, error):
    path = store("x", KEY, lambda: [b"abc"])
    part = path.with_name(f".{path.name}.elsewhere.1.01234567.part")
    part.touch()
    os.utime(part, (0, 0))

    def refuse(self, missing_ok=False):
        raise error(self)

    monkeypatch.setattr(Path, "unlink", refuse)
    assert store("x", KEY, lambda: pytest.fail("prepared twice")) == path and part.exists()
