"""The sources of `predict`: every line gets an answer, and an invalid line does not stop the others."""

import gzip
from pathlib import Path

import pytest

from lightning_xt.data.pairs.source_files import read_sources


def texts(*found):
    return [{"id": number, "text": text, "problem": None} for number, text in enumerate(found)]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "new.en"


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("end", [b"", b"\n", b"\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_one_source_a_line(file, packed, end, mark):
    content = mark + "one\r\n\n \u20ac\u2028x\x0c\ry \nlast".encode() + end
    file = file.with_suffix(".gz") if packed else file
    file.write_bytes(gzip.compress(content) if packed else content)
    assert read_sources(str(file)) == texts("one", "", " \u20ac\u2028x\x0c\ry ", "last")
    # A field is for JSON lines.
    assert len(read_sources(str(file), "en")) == 4


@pytest.mark.parametrize(
    ("content", "expected"),
    [(b"\n", [""]), (b"\n\n", ["", ""]), (b"\r\n", [""]), (b"a", ["a"]), (b" \n", [" "]), (b"a\n\n", ["a", ""])],
)
def test_empty_lines_are_sources(file, content, expected):
    file.write_bytes(content)
    assert read_sources(str(file)) == texts(*expected)


@pytest.mark.parametrize("name", ["new.jsonl", "new.NDJSON", "new.jsonl.gz"])
def test_json_lines(tmp_path, name):
    file = tmp_path / name
    content = b'\xef\xbb\xbf{"en": "a\\nb", "de": 1}\r\n\n \t\n{"en": ""}\n'
    file.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    assert read_sources(str(file), "en") == texts("a\nb", "", "", "")


def test_a_bad_line_stops_nothing(file):
    file.write_bytes(b"one\n\xc3\xa9\xff\nthree\n\xff")
    first, second, third, fourth = read_sources(str(file))
    assert [first, third] == [{"id": 0, "text": "one", "problem": None}, {"id": 2, "text": "three", "problem": None}]
    place = f"--data.predict_source {file}: line"
    problem = f"{place} 2: byte 2 of the line is not UTF-8; save the file as UTF-8"
    assert second == {"id": 1, "text": None, "problem": problem}
    assert fourth["problem"] == f"{place} 4: byte 0 of the line is not UTF-8; save the file as UTF-8"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"plain", " is not JSON (Expecting value"),
        (b"[" * 100_000, " is not JSON (maximum recursion"),
        (b"3", " is a number, but every line must be an object; fix the line"),
        (b'{"de": "b"}', " has no field 'en' but 'de'; write {\"en\": \"...\"} there"),
        (b'{"en": null}', ": the field 'en' is null, not a string"),
        (b'{"en": "\\ud800"}', ": character 0 of the field 'en' is half a character"),
        (b'{"en": "\xff"}', ": byte 8 of the line is not UTF-8"),
    ],
    ids=range(7),
)
def test_a_bad_object_stops_nothing(tmp_path, line, problem):
    file = tmp_path / "new.jsonl"
    file.write_bytes(b'{"en": "a"}\n' + line + b'\n{"en": "c"}\n')
    first, second, third = read_sources(str(file), "en")
    assert (first["text"], third["text"]) == ("a", "c")
    assert second["id"] == 1 and second["text"] is None
    assert second["problem"].startswith(f"--data.predict_source {file}: line 2{problem}")


def test_no_file_named():
    with pytest.raises(ValueError, match=r"^predict needs sources: give a text file .*, --data.predict_source FILE$"):
        read_sources(None)


def test_missing_file(tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"^--data.predict_source .*none.en: no such file; give"):
        read_sources(str(tmp_path / "none.en"))
    with pytest.raises(FileNotFoundError, match=r"no such file"):
        read_sources(str(tmp_path))
    (tmp_path / "new.en").write_text("one\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert read_sources("~/new.en") == texts("one")


@pytest.mark.parametrize("content", [b"", b"\xef\xbb\xbf"])
def test_empty_files(file, content):
    file.write_bytes(content)
    with pytest.raises(ValueError, match=rf"^--data.predict_source {file}: the file is empty; write one source per"):
        read_sources(str(file))


def test_json_lines_without_a_field(tmp_path):
    file = tmp_path / "new.jsonl"
    file.write_text("{}")
    with pytest.raises(
        ValueError, match=rf"^--data.predict_source {file} is JSON lines, but the field of the source is not known"
    ):
        read_sources(str(file))


def test_a_damaged_file(tmp_path):
    file = tmp_path / "new.gz"
    file.write_bytes(gzip.compress(b"one\n" * 1000)[:-9])
    with pytest.raises(ValueError, match=rf"^--data.predict_source: {file} ends too early"):
        read_sources(str(file))


def test_a_file_that_cannot_be_read(file, monkeypatch):
    def refuse(path, *others):
        raise PermissionError(13, "Permission denied", str(path))

    file.write_text("one\n")
    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(ValueError, match=rf"^--data.predict_source: cannot read {file} \(Permission denied\); make it"):
        read_sources(str(file))
    monkeypatch.setattr(Path, "is_file", refuse)
    with pytest.raises(ValueError, match=rf"^--data.predict_source {file}: Permission denied; make it readable$"):
        read_sources(str(file))
