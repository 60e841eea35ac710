"""Files of pairs: every format, and invalid files."""

import gzip

import pytest

from lightning_xt.data.pairs.pair_files import PairLines, drop_blank, read_aligned, read_pairs
from lightning_xt.system.messages import find_own_sentence

SOURCES = ["one\u2028more", " two\x85\x0c ", "", "fo\u00fcr\rx"]
TARGETS = ["eins", "zwei", "drei", "vier"]
PAIRS = PairLines(SOURCES, TARGETS)
FIELDS = ("en", "de")


@pytest.fixture(autouse=True)
def folders(tmp_path, monkeypatch):
    """Return the current folder, and a data folder next to it."""
    (tmp_path / "here").mkdir()
    (tmp_path / "data").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("LIGHTNING_XT_DATA", str(tmp_path / "data"))
    return tmp_path


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.suffix.lower() == ".gz" else content)
    return str(path)


@pytest.mark.parametrize("packed", ["", ".gz", ".GZ"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_two_files_of_lines(tmp_path, packed, end, last, mark):
    source = write(tmp_path / f"x.en{packed}", mark + end.join(SOURCES) + end * last)
    target = write(tmp_path / "x.de", end.join(TARGETS) + end)
    assert read_pairs("--data.path", source, target, None) == PAIRS


@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz", "x.TSV"])
def test_two_columns(tmp_path, name):
    rows = [f"{source}\t{target}" for source, target in zip(*PAIRS, strict=True)]
    assert read_pairs("--data.path", write(tmp_path / name, "\r\n".join(rows)), None, None) == PAIRS


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.ndjson"])
def test_two_fields(tmp_path, name):
    content = '\ufeff{"de": "eins", "en": "one\\n"}\r\n\n  \n{"id": 7, "en": "", "de": "\u00fc\u2028"}'
    path = write(tmp_path / name, content)
    assert read_pairs("--data.path", path, None, FIELDS) == (["one\n", ""], ["eins", "\u00fc\u2028"])
    assert read_pairs("--data.path", path, None, ("de", "en")).sources == ["eins", "\u00fc\u2028"]


def test_what_is_not_here_is_looked_for_in_the_data_folder(folders, monkeypatch):
    write(folders / "data" / "x.en", "there\n")
    write(folders / "here" / "x.de", "da\n")
    assert read_pairs("--data.path", "x.en", "x.de", None) == (["there"], ["da"])
    monkeypatch.setenv("HOME", str(folders / "data"))
    assert read_pairs("--data.path", "~/x.en", "x.de", None).sources == ["there"]


def test_files_of_different_line_counts(tmp_path):
    source = write(tmp_path / "x.en", "one\n" * 1001)
    target = write(tmp_path / "x.de", "eins\n" * 1000)
    with pytest.raises(ValueError, match=rf"^{source} has 1,001 lines, but {target} has 1,000; give two files with "):
        read_pairs("--data.path", source, target, None)


@pytest.mark.parametrize("content", ["", "\ufeff"])
def test_empty_files(tmp_path, content):
    full = write(tmp_path / "full", "one\n")
    for name in ("x.en", "x.en.gz"):
        empty = write(tmp_path / name, content)
        for first, second in ((empty, full), (full, empty)):
            with pytest.raises(ValueError, match=rf"^{empty} is empty; give pairs$"):
                read_pairs("--data.path", first, second, None)
    for name in ("x.tsv", "x.jsonl"):
        empty = write(tmp_path / name, content)
        with pytest.raises(ValueError, match=rf"^{empty} is empty; give pairs$"):
            read_pairs("--data.path", empty, None, FIELDS)
    blank = write(tmp_path / "blank.jsonl", "\n \r\n")
    with pytest.raises(ValueError, match=rf"^{blank} is empty; give pairs$"):
        read_pairs("--data.path", blank, None, FIELDS)


@pytest.mark.parametrize(
    ("name", "line", "message"),
    [
        ("x.jsonl", b'{"en": "b", "fr": "c"}', ", line 3 has no field 'de' but 'en', 'fr'; write"),
        ("x.jsonl", b'{"en": "b", "de": 1}', ", line 3: the field 'de' is a number, not a string; write"),
        ("x.jsonl", b'{"en": ', r", line 3 is not JSON \(Expecting value.*\), but every line must be an object; fix"),
        ("x.jsonl", b'["b", "c"]', ", line 3 is a list, but every line must be an object; fix the line"),
        ("x.jsonl", b'{"en": "\xff"}', ", line 3: byte 8 of the line is not UTF-8; save the file as UTF-8"),
        ("x.tsv.gz", b"\xc3\xa9\xe9\tb", ", line 3: byte 2 of the line is not UTF-8; save the file as UTF-8"),
        ("x.tsv", b"b", ", line 3 has 1 column, not 2; write a source, one tab and its target there"),
        ("x.tsv", b"b\tc\t", ", line 3 has 3 columns, not 2; write a source, one tab"),
        ("x.tsv", b"", ", line 3 has 1 column, not 2; write a source"),
    ],
)
def test_a_line_that_is_not_a_pair(tmp_path, name, line, message):
    good = b'{"en": "a", "de": "b"}\n' if "jsonl" in name else b"a\tb\n"
    path = write(tmp_path / name, good * 2 + line + b"\n" + good)
    with pytest.raises(ValueError, match=rf"^{path}{message}") as caught:
        read_pairs("--data.path", path, None, FIELDS)
    assert find_own_sentence(caught.value)


def test_a_line_that_is_not_utf8(tmp_path):
    good = write(tmp_path / "x.en", "one\n" * 3)
    bad = write(tmp_path / "x.de", b"eins\nzw\xe9i\n\xff\n")
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(ValueError, match=rf"^{bad}, line 2: byte 2 of the line is not UTF-8; save the file"):
            read_pairs("--data.path", *pair, None)


def test_a_damaged_file(tmp_path):
    full = write(tmp_path / "x.de", "eins\n")
    cut = tmp_path / "x.en.gz"
    cut.write_bytes(gzip.compress(b"one\n" * 1000)[:-9])
    with pytest.raises(ValueError, match=rf"^{cut} ends too early"):
        read_aligned(cut, tmp_path / "x.de")
    with pytest.raises(ValueError, match=rf"^{cut} ends too early"):
        read_pairs("--data.path", str(cut), full, None)


@pytest.mark.parametrize(
    ("option", "other"),
    [("--data.path", "--data.target_path"), ("--data.validation", "--data.validation_target_path")],
)
def test_files_that_are_not_named_as_they_should_be(tmp_path, option, other):
    plain, table = write(tmp_path / "x.en", "one\n"), write(tmp_path / "x.tsv", "one\teins\n")
    with pytest.raises(FileNotFoundError, match=rf"^{option} none.en: no such file or folder, here or in"):
        read_pairs(option, "none.en", plain, None)
    with pytest.raises(FileNotFoundError, match=rf"^{other} none.de: no such file or folder, here or in"):
        read_pairs(option, plain, "none.de", None)
    with pytest.raises(ValueError, match=rf"^{option} {plain} holds one side of the pairs; name the file .* {other}"):
        read_pairs(option, plain, None, FIELDS)
    with pytest.raises(ValueError, match=rf"^{option} {table} holds sources and targets; omit {other}, or name"):
        read_pairs(option, table, plain, None)
    with pytest.raises(ValueError, match=rf"^{option} {tmp_path} names 2 files; name one$"):
        read_pairs(option, str(tmp_path), None, None)


def test_kinds_of_files_that_are_not_read(tmp_path):
    lines = write(tmp_path / "x.jsonl.gz", "{}")
    with pytest.raises(ValueError, match=rf"^{lines} is JSON lines; name the fields .* --data.fields '\[en, de\]'$"):
        read_pairs("--data.path", lines, None, None)
    for name in ("x.zip", "x.tar.gz"):
        archive = write(tmp_path / name, "PK")
        with pytest.raises(ValueError, match=rf"^{archive} is an archive, which is not read here; unpack it and name"):
            read_pairs("--data.path", archive, archive, None)


@pytest.fixture
def messages(monkeypatch):
    messages = []
    monkeypatch.setattr("lightning_xt.data.pairs.pair_files.rank_zero_info", messages.append)
    return messages


def test_pairs_with_a_blank_side_are_skipped_and_counted(messages):
    pairs = PairLines(["one", "", "three", "\u00a0\t"], ["eins", "zwei", " ", ""])
    assert drop_blank(pairs, "--data.path x") == (["one"], ["eins"])
    assert messages == ["--data.path x: 3 of 4 training pairs have a blank side and are dropped"]


def test_nothing_is_said_of_pairs_that_are_whole(messages):
    pairs = PairLines(["one"], ["eins"])
    assert drop_blank(pairs, "x") is pairs
    assert messages == []


def test_nothing_but_blank_pairs(messages):
    with pytest.raises(ValueError, match=r"^--data.path x: every pair has a blank side; give pairs with text"):
        drop_blank(PairLines(["one", ""], ["", "zwei"]), "--data.path x")
    assert messages == []
