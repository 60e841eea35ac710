"""Hashes: right, and computed once."""

import hashlib
import os

import pytest

from lightning_xt.data.files import data_folder, file_digests
from lightning_xt.data.files.file_digests import hash_content, hash_file, hash_files
from lightning_xt.data.text.mapped_tokens import MappedTokens
from lightning_xt.data.text.splits import Splits

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
ABC = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture
def prepared(tmp_path, monkeypatch):
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "data" / "prepared"


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    return path


@pytest.fixture
def reads(monkeypatch):
    """Record the files that were read, in order; files count as old."""
    found = []

    def read_and_record(path, blocks=file_digests.read_raw_blocks):
        found.append(path.name)
        return blocks(path)

    monkeypatch.setattr(file_digests, "read_raw_blocks", read_and_record)
    monkeypatch.setattr(file_digests, "RECENT", -1.0)
    return found


def test_the_published_digests(prepared, file, tmp_path):
    assert hash_content([]) == EMPTY and hash_content([b"a", b"", b"bc"]) == ABC
    assert hash_file(file) == ABC
    assert hash_file(file, "md5") == "900150983cd24fb0d6963f7d28e17f72"
    (tmp_path / "empty").write_bytes(b"")
    assert hash_files([tmp_path / "empty", file, tmp_path / "empty"]) == [EMPTY, ABC, EMPTY]


def test_a_file_is_read_once(prepared, file, reads, tmp_path, monkeypatch):
    assert [hash_file(file) for _ in range(3)] == [ABC] * 3 and reads == ["file"]
    monkeypatch.chdir(tmp_path)
    assert hash_file(file.relative_to(tmp_path)) == ABC and reads == ["file"]
    # Other digests, and other lists, are other memos.
    hash_file(file, "md5")
    assert reads == ["file"] * 2
    other = tmp_path / "other"
    other.write_bytes(b"")
    for _ in range(2):
        assert hash_files([file, other]) == [ABC, EMPTY] and reads == ["file", "file", "file", "other"]
    assert len(os.listdir(prepared)) == 3


@pytest.mark.parametrize("change", ["content", "size", "time", "replaced"])
def test_a_file_that_changed_is_read_again(prepared, file, reads, tmp_path, change):
    hash_file(file)
    status = file.stat()
    if change == "time":
        os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
        assert hash_file(file) == ABC
    else:
        changed = tmp_path / "changed" if change == "replaced" else file
        changed.write_bytes(b"abcd" if change == "size" else b"abd")
        os.utime(changed, ns=(status.st_atime_ns, status.st_mtime_ns))
        os.replace(changed, file)
        assert hash_file(file) == hashlib.sha256(file.read_bytes()).hexdigest() != ABC
    assert reads == ["file"] * 2


def test_a_file_of_this_moment_is_not_remembered(prepared, file, reads, monkeypatch):
    """A new file is not remembered, because it may change again within a tick of the clock, with the same size."""
    monkeypatch.setattr(file_digests, "RECENT", 2.0)
    status = file.stat()
    for age, expected in ((1.9, False), (2.1, True)):
        monkeypatch.setattr(file_digests.time, "time", lambda age=age: max(status.st_mtime, status.st_ctime) + age)
        hash_file(file)
        assert prepared.exists() == expected


def test_a_file_that_changes_while_it_is_read(prepared, file, reads, monkeypatch):
    noted = file_digests.read_raw_blocks

    def growing(path):
        yield from noted(path)
        path.write_bytes(b"more")

    monkeypatch.setattr(file_digests, "read_raw_blocks", growing)
    hash_file(file)
    assert not prepared.exists()


@pytest.mark.parametrize("content", [b"", b"\xff", b"one two", b"a b c d"])
def test_a_memo_that_is_malformed(prepared, file, reads, content):
    hash_file(file)
    (memo,) = prepared.iterdir()
    memo.write_bytes(content)
    assert hash_file(file) == ABC and reads == ["file"] * 2
    assert hash_file(file) == ABC and reads == ["file"] * 2


def test_where_nothing_can_be_written(prepared, file, reads, tmp_path, monkeypatch):
    """Memos go to the cache if the data folder is read-only, or nowhere."""
    (tmp_path / "data").write_text("no folder")
    assert hash_file(file) == hash_file(file) == ABC and reads == ["file"]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "data"))
    assert data_folder.prepared_folders()[1] == tmp_path / "data" / "lightning-xt" / "prepared"
    assert hash_file(file) == hash_file(file) == ABC and reads == ["file"] * 3


def test_a_file_that_is_not_there(prepared, tmp_path):
    with pytest.raises(ValueError, match=r"cannot read .*none \(No such file or directory\)"):
        hash_file(tmp_path / "none")


def test_splits_are_distinguished_by_content(prepared, reads, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    one.write_bytes(b"0123456789")
    two.write_bytes(b"0123456789")
    first = Splits(MappedTokens(one, 0, 6), MappedTokens(one, 6, 8), MappedTokens(one, 8))
    assert first.hash == first.hash and reads == ["one"] and len(first.hash) == 64
    assert Splits(MappedTokens(two, 0, 6), MappedTokens(one, 6, 8), MappedTokens(two, 8)).hash == first.hash
    others = [
        Splits(MappedTokens(one, 0, 5), MappedTokens(one, 6, 8), MappedTokens(one, 8)),
        Splits(MappedTokens(one, 1, 6), MappedTokens(one, 6, 8), MappedTokens(one, 8)),
        Splits(MappedTokens(one, 0, 6), MappedTokens(one, 6, 8), None),
        Splits(MappedTokens(one, 0, 6), None, MappedTokens(one, 6, 8)),
        Splits(MappedTokens(one, 0, 6), MappedTokens(one, 8), MappedTokens(one, 6, 8)),
    ]
    two.write_bytes(b"012345678x")
    others.append(Splits(MappedTokens(two, 0, 6), MappedTokens(one, 6, 8), MappedTokens(one, 8)))
    assert len({first.hash, *(splits.hash for splits in others)}) == 7
