"""JSON lines: read_texts, and every kind of line without a text."""

import json

import pytest

from lightning_xt.data.files import json_lines
from lightning_xt.data.files.json_lines import read_objects, read_texts

LINES = b'{"id": 1, "text": "one\\n\\u20ac"}\r\n\n  \t\n{"text": "", "id": 2}\n{"text": "\xc3\xa9 \\ud83d\\ude00"}'


@pytest.mark.parametrize("size", [1, 3, 1000])
@pytest.mark.parametrize("end", [b"", b"\n"])
@pytest.mark.parametrize("begin", [b"", b"\xef\xbb\xbf"])
def test_the_field_of_every_line(size, end, begin):
    content = begin + LINES + end
    blocks = [content[first : first + size] for first in range(0, len(content), size)]
    assert [text.decode() for text in read_texts(blocks, "x", "text")] == ["one\n\u20ac", "", "\u00e9 \U0001f600"]


def test_no_lines():
    for content in ([], [b"\xef\xbb\xbf"], [b"\xef\xbb\xbf \r\n\n"]):
        assert list(read_texts(content, "x", "text")) == []


OBJECT = "but with --data.field every line must be an object; fix the line, or omit --data.field"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"text": "x"', rf"^corpus.jsonl, line 3 is not JSON \(Expecting ',' delimiter.*\), {OBJECT}"),
        (b"plain text", rf"line 3 is not JSON \(Expecting value.*\), {OBJECT}"),
        (b"[" * 100_000, rf"line 3 is not JSON \(maximum recursion.*\), {OBJECT}"),
        (b'{"n": ' + b"1" * 5000 + b"}", r"line 3 is not JSON \(Exceeds the limit"),
        (b"[1, 2]", rf"^corpus.jsonl, line 3 is a list, {OBJECT}"),
        (b'"text"', "line 3 is a string,"),
        (b"1.5", "line 3 is a number,"),
        (b"true", "line 3 is true or false,"),
        (b"null", "line 3 is null,"),
        (b"{}", "line 3 has no field 'text' but none at all; set --data.field to one that holds text"),
        (b'{"body": 1, "b\\nc": 2}', r"line 3 has no field 'text' but 'body', 'b\\nc'; set --data.field to one"),
        (
            json.dumps(dict.fromkeys(["a" * 99, *"bcdefg"])).encode(),
            rf"no field 'text' but '{'a' * 40}', 'b', 'c', 'd', 'e' and 2 more; set",
        ),
        (b'{"text": null}', "line 3: the field 'text' is null, not a string; set --data.field to one that holds"),
        (b'{"text": ["x"]}', "line 3: the field 'text' is a list, not a string"),
        (b'{"text": {}}', "line 3: the field 'text' is an object, not a string"),
        (b'{"text": 7}', "line 3: the field 'text' is a number, not a string"),
        (b'{"text": "a\\ud800"}', "line 3: character 1 of the field 'text' is half a character .* fix or remove"),
        (b'{"text": "\xff"}', "line 3: byte 10 of the line is not UTF-8; save the file as UTF-8"),
    ],
    ids=range(18),
)
def test_a_line_without(line, message):
    found = read_texts([b'{"text": "x"}\n\n' + line + b"\n{}"], "corpus.jsonl", "text")
    assert next(found) == b"x"
    with pytest.raises(ValueError, match=message):
        next(found)


def test_a_line_without_end(monkeypatch):
    monkeypatch.setattr(json_lines, "MAX_LINE", 1000)
    good = b'{"text": "' + b"x" * 900 + b'"}\n'
    assert len(list(read_texts([good] * 3, "x", "text"))) == 3
    endless = iter([good, *[b"x" * 100] * 10, b"x"])
    with pytest.raises(
        ValueError, match=r"x, line 2 is longer than 1,000 bytes; split the document into several lines"
    ):
        list(read_texts(endless, "x", "text"))
    assert list(endless) == []


def test_objects_with_their_places(monkeypatch):
    lines = [b'\xef\xbb\xbf{"a": 1}\n\n{"b', b'": 2}\n']
    assert list(read_objects(lines, "x")) == [("x, line 1", {"a": 1}), ("x, line 3", {"b": 2})]
    with pytest.raises(ValueError, match="x, line 2: byte 1 of the line is not UTF-8; save the file as UTF-8"):
        list(read_objects([b"{}\n{\xff}"], "x"))
    monkeypatch.setattr(json_lines, "MAX_LINE", 10)
    with pytest.raises(ValueError, match="x, line 2 is longer than 10 bytes; split it into several lines"):
        list(read_objects([b"{}\n", b" " * 11], "x"))
