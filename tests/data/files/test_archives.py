"""Zip archives: their entries, their order, and refusals."""

import io
import stat
import struct
import zipfile

import pytest

from lightning_xt.data.files import reading
from lightning_xt.data.files.archives import read_entries


def write(path, files, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, content in files:
            archive.writestr(name, content)
    return path


@pytest.fixture
def path(tmp_path):
    return tmp_path / "corpus.zip"


def contents(path):
    return [(name, b"".join(blocks)) for name, blocks in read_entries(path)]


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_files_in_the_order_of_their_names(path, method, monkeypatch):
    monkeypatch.setattr(reading, "BLOCK", 7)
    files = [("b.txt", b"b" * 100), ("a/z.txt", b"z"), ("a/", b""), ("a-b.txt", b""), ("\u00e9.txt", b"e")]
    left_out = [(".hidden", b"no"), (".git/x", b"no"), ("a/.b/c", b"no"), ("__MACOSX/a/z.txt", b"no")]
    write(path, left_out + files, method)
    kept = [("a-b.txt", b""), ("a/z.txt", b"z"), ("b.txt", b"b" * 100), ("\u00e9.txt", b"e")]
    assert contents(path) == kept


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../up.txt", "a/../../up.txt", "C:/x.txt", "c:x", "a\\..\\b.txt", "..", ".hid/../../x"]
)
def test_an_entry_that_points_outside(path, name):
    write(path, [("a.txt", b"a"), (name, b"x")])
    with pytest.raises(
        ValueError, match=r"corpus.zip: the entry .* points outside the archive; get .* you trust"
    ) as told:
        next(read_entries(path))
    assert repr(name) in str(told.value)


def test_an_entry_without_a_name(path):
    content = write(path, [("a", b"text")], zipfile.ZIP_STORED).read_bytes()
    # The length of the name, in the directory at the end.
    start = content.index(b"PK\x01\x02") + 28
    path.write_bytes(content[:start] + struct.pack("<HH", 0, 1) + content[start + 4 :])
    with pytest.raises(ValueError, match=r"the entry '' points outside the archive"):
        contents(path)


def test_a_link(path):
    info = zipfile.ZipInfo("link")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    write(path, [(info, b"/etc/passwd")])
    with pytest.raises(ValueError, match=r"the entry 'link' is a link; get the archive from a source you trust"):
        contents(path)


@pytest.mark.parametrize("name", ["inner.zip", "a/b.TXT.GZ", "c.tar.xz"])
def test_an_archive_in_an_archive(path, name):
    write(path, [("a.txt", b"a"), (name, b"x")])
    with pytest.raises(ValueError, match="is an archive itself; unpack the archive yourself and name the folder"):
        next(read_entries(path))


def test_an_encrypted_entry(path):
    content = bytearray(write(path, [("secret.txt", b"text")]).read_bytes())
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(mark) + offset] |= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"the entry 'secret.txt' is encrypted; unpack the archive yourself"):
        contents(path)


def test_another_method(path):
    write(path, [("a.txt", b"a" * 100)], zipfile.ZIP_BZIP2)
    with pytest.raises(ValueError, match=r"the entry 'a.txt' is compressed by another method than deflate; unpack"):
        contents(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
def test_a_damaged_entry(path, method):
    content = bytearray(write(path, [("a.txt", bytes(range(256)) * 9)], method).read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"corpus.zip is cut off, damaged or not a zip file \(.+\); get it again"):
        contents(path)


@pytest.mark.parametrize("kept", [0, 1, 100, -1, -30])
def test_an_archive_that_was_cut_off(path, kept):
    path.write_bytes(write(path, [("a.txt", bytes(range(256)) * 9)]).read_bytes()[:kept])
    with pytest.raises(
        ValueError, match=r"corpus.zip is cut off, damaged or not a zip file \(File is not a zip file\)"
    ):
        contents(path)


def test_entries_that_are_cut_off_though_the_directory_is_there(path):
    """Entries are checked against a directory that promises more than there is."""
    content = bytearray(write(path, [("a.txt", b"text")], zipfile.ZIP_STORED).read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 20 : start + 28] = struct.pack("<II", 1000, 1000)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"corpus.zip (ends too early|is cut off)"):
        contents(path)


@pytest.mark.parametrize(
    ("offset", "value"),
    [(6, struct.pack("<H", 99)), (46, b"\xff")],
    ids=["a version of the future", "an empty name"],
)
def test_a_forged_directory(path, offset, value):
    content = bytearray(write(path, [("\u00e9.txt", b"text")]).read_bytes())
    start = content.index(b"PK\x01\x02") + offset
    content[start : start + len(value)] = value
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"corpus.zip is cut off, damaged or not a zip file"):
        contents(path)


def test_a_bomb_of_many_entries(path, monkeypatch):
    """Entries count together: each is small, but the sum is not."""
    monkeypatch.setattr(reading, "FREE_OUTPUT", 0)
    write(path, [(f"{n:02}.txt", bytes(100_000)) for n in range(20)])
    monkeypatch.setattr(reading, "MAX_EXPANSION", 1_950_000 / path.stat().st_size)
    found = read_entries(path)
    for _ in range(19):
        assert len(b"".join(next(found)[1])) == 100_000
    _, last = next(found)
    with pytest.raises(ValueError, match=r"corpus.zip expands to more than 1,9.*unpack it yourself and name"):
        b"".join(last)


def test_a_size_that_is_a_lie(path):
    content = bytearray(write(path, [("a.txt", bytes(100_000))]).read_bytes())
    start = content.index(b"PK\x01\x02")
    content[start + 24 : start + 28] = struct.pack("<I", 10)
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"corpus.zip is cut off, damaged or not a zip file \(Bad CRC"):
        contents(path)


def test_unreadable(path, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(io, "open", refuse)
    with pytest.raises(ValueError, match=r"cannot read .*corpus.zip \(Permission denied\); make it readable or omit"):
        contents(path)
