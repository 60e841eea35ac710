"""Plain and compressed files by read_blocks, and damaged ones."""

import gzip

import pytest

from lightning_xt.checkpoints.runs import find_checkpoint
from lightning_xt.commands.comparison.run_records import find_runs
from lightning_xt.data.files import reading
from lightning_xt.data.files.data_folder import data_folder
from lightning_xt.data.files.paths import find_files
from lightning_xt.data.files.reading import read_blocks, read_whole
from lightning_xt.data.pairs.multi30k import Multi30k

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


def test_what_is_not_a_regular_file_is_named():
    with pytest.raises(ValueError, match=r"^--prompts /dev/null is not a regular file; save its content in one first$"):
        read_whole("--prompts", "/dev/null", "prompts")


def test_an_unknown_home_folder_is_named(monkeypatch):
    message = (
        "~nobody-here/a: the home folder ~nobody-here is unknown; write the whole path, or ./~nobody-here/a for a f"
    )
    monkeypatch.setenv("LIGHTNING_XT_DATA", "~nobody-here/a")
    for read, place in (
        (lambda: read_whole("--prompts", "~nobody-here/a", "prompts"), "--prompts "),
        (lambda: find_files("--data.path", "~nobody-here/a"), "--data.path "),
        (lambda: Multi30k(path="~nobody-here/a").lines("train"), "--data.path "),
        (lambda: find_checkpoint("~nobody-here/a"), ""),
        (lambda: list(find_runs("~nobody-here/a")), "compare: "),
        (data_folder, "LIGHTNING_XT_DATA="),
    ):
        with pytest.raises(ValueError, match=f"^{place}{message}"):
            read()


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
