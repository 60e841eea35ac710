"""Plain and compressed files by read_blocks, and damaged ones."""

import gzip

import pytest

from lightning_xt.data.files import reading
from lightning_xt.data.files.reading import read_blocks

TEXT = bytes(range(251)) * 40


@pytest.fixture
def packed(tmp_path):
    path = tmp_path / "text.txt.GZ"
    path.write_bytes(gzip.compress(TEXT[:5000]) + gzip.compress(TEXT[5000:]))
    return path


def test_blocks(packed, tmp_path, monkeypatch):
    plain = tmp_path / "text.txt"
    plain.write_bytes(TEXT)
    for size in (64, 4096, 1 << 20):
        monkeypatch.setattr(reading, "BLOCK", size)
        for path in (plain, packed):
            found = list(read_blocks(path))
            assert b"".join(found) == TEXT and 0 < max(map(len, found)) <= size


@pytest.mark.parametrize("kept", [0, 5, 100, -1, -9])
def test_a_gzip_file_that_was_cut_off(packed, kept):
    packed.write_bytes(packed.read_bytes()[:kept])
    with pytest.raises(ValueError, match=r"text.txt.GZ ends too early: the download or copy was cut off; get it again"):
        list(read_blocks(packed))


def damage(content, what):
    if what == "checksum":
        return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]
    if what == "middle":
        return content[:60] + b"\xff" * 60 + content[120:]
    return {"text": TEXT, "more after it": content + b"more"}[what]


@pytest.mark.parametrize("what", ["checksum", "middle", "text", "more after it"])
def test_a_gzip_file_that_is_damaged(packed, what):
    packed.write_bytes(damage(gzip.compress(TEXT), what))
    with pytest.raises(ValueError, match=r"text.txt.GZ is cut off, damaged or not a gz file \(.+\); get it again"):
        list(read_blocks(packed))


def test_a_file_that_is_not_there(tmp_path):
    for name in ("a.txt", "a.gz"):
        with pytest.raises(ValueError, match=r"cannot read .* \(No such file or directory\); make it readable or omit"):
            list(read_blocks(tmp_path / name))


def test_a_bomb(tmp_path, monkeypatch):
    path = tmp_path / "zeros.gz"
    path.write_bytes(gzip.compress(bytes(1_000_000)))
    size = path.stat().st_size
    monkeypatch.setattr(reading, "BLOCK", 10_000)
    assert size * 200 < 1_000_000
    # Any ratio is allowed up to a harmless size.
    assert reading.FREE_OUTPUT == 64 << 20 and len(b"".join(read_blocks(path))) == 1_000_000
    monkeypatch.setattr(reading, "FREE_OUTPUT", 0)
    found = read_blocks(path)
    for _ in range(size * 200 // 10_000):
        assert next(found) == bytes(10_000)
    with pytest.raises(ValueError, match=rf"zeros.gz expands to more than {size * 200:,} bytes.*unpack it yourself"):
        next(found)
    monkeypatch.setattr(reading, "MAX_EXPANSION", 1_000_000 / size)
    assert len(b"".join(read_blocks(path))) == 1_000_000
