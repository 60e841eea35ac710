"""JSON lines: one object a line, of which one field is text."""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

ENDINGS = (".jsonl", ".ndjson")
"""How names of such files end."""

MOST_LINE = 256 << 20  # bytes of a line, which is held in memory


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON.

    Raises:
        ValueError: it has a field twice, of which Python would take the last and others the first.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the field {twice[:40]!r} twice")
    return found


def _no_constant(name: str) -> float:
    """Python reads NaN and Infinity as numbers.

    Raises:
        ValueError: always.
    """
    raise ValueError(f"it has {name}, which is no JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_no_constant)


def texts(blocks: Iterable[bytes], name: str, field: str) -> Iterator[bytes]:
    """The named field of every line, as UTF-8; blank lines are skipped.

    Args:
        blocks: the content of the file.
        name: what messages call the file.
        field: which field holds the text.

    Raises:
        ValueError: a line is not UTF-8, no JSON object, too long, or has no such field with a text.
    """
    for number, line in enumerate(_lines(blocks, name), start=1):
        # Some programs of Windows open a file with a mark of its encoding.
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if line.strip():
            yield text_of(line, f"{name}, line {number}", field).encode("utf-8")


def text_of(line: bytes, place: str, field: str, *, chosen: bool = True) -> str:
    """The named field of the object on a line.

    Args:
        line: the line, which is not blank.
        place: what messages call it.
        field: which field holds the text.
        chosen: whether it was named by `--data.field`, which messages then propose to change.

    Raises:
        ValueError: the line is not UTF-8, no JSON object, or has no such field with a text.
    """
    reading = "with --data.field " if chosen else ""
    way_out = "mend the line, or leave --data.field away for plain text" if chosen else "mend the line"
    other_field = "set --data.field to one that holds text" if chosen else f'write {{"{field}": "..."}} there'
    text = decoded(line, place)
    try:
        record = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        # Also numbers of thousands of digits and a thousand brackets, which Python does not read.
        raise ValueError(
            f"{place} is not JSON ({error}), but {reading}every line is to be an object; {way_out}"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(f"{place} is {_kind(record)}, but {reading}every line is to be an object; {way_out}")
    if field not in record:
        raise ValueError(f"{place} has no field {field!r} but {_names(record)}; {other_field}")
    value = record[field]
    if not isinstance(value, str):
        raise ValueError(f"{place}: the field {field!r} is {_kind(value)}, not a string; {other_field}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: character {error.start} of the field {field!r} is half a character (a lone surrogate); mend or "
            "remove the line"
        ) from error
    return value


def decoded(line: bytes, place: str) -> str:
    """A line as text.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: byte {error.start} of the line is not UTF-8; save the file as UTF-8") from error


def _lines(blocks: Iterable[bytes], name: str) -> Iterator[bytes]:
    begun: list[bytes] = []
    number, size = 1, 0
    for block in blocks:
        *ends, rest = block.split(b"\n")
        for end in ends:
            yield b"".join([*begun, end])
            begun, number, size = [], number + 1, 0
        begun.append(rest)
        size += len(rest)
        if size > MOST_LINE:
            raise ValueError(
                f"{name}, line {number} is longer than {MOST_LINE:,} bytes; cut the document into several lines, or "
                "leave --data.field away for plain text"
            )
    yield b"".join(begun)


def _kind(value: Any) -> str:
    """What JSON calls a value."""
    if value is None:
        return "null"
    names = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def _names(record: dict[str, Any]) -> str:
    """The names of the first fields of an object."""
    names = ", ".join(repr(name[:40]) for name in list(record)[:5])
    more = f" and {len(record) - 5} more" if len(record) > 5 else ""
    return f"{names}{more}" if names else "none at all"
