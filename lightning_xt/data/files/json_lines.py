"""JSON lines: one object per line."""

import codecs
import json
from collections.abc import Iterable, Iterator
from typing import Any

ENDINGS = (".jsonl", ".ndjson")
"""Endings of files of JSON lines."""

MAX_LINE = 256 << 20  # bytes of a line, which is held in memory


def _reject_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build a JSON object; ValueError if a field occurs twice (Python takes the last, other readers the first)."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"it has the field {twice[:40]!r} twice")
    return found


def _reject_constant(name: str) -> float:
    """Refuse NaN and Infinity, which Python reads as numbers."""
    raise ValueError(f"it has {name}, which is not JSON")


DECODER = json.JSONDecoder(object_pairs_hook=_reject_duplicates, parse_constant=_reject_constant)


def is_json_lines(file: str) -> bool:
    """Return True for the name of a file of JSON lines, plain or `.gz`."""
    return file.lower().removesuffix(".gz").endswith(ENDINGS)


def split_lines(content: bytes) -> list[bytes]:
    """Split a file into lines, which end in a newline, or a carriage return and a newline; an empty file has none.

    The last line may lack its newline; a carriage return at its end is dropped all the same.
    """
    # Some Windows programs start a file with a byte order mark.
    content = content.removeprefix(codecs.BOM_UTF8)
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return [line.removesuffix(b"\r") for line in lines]


def read_texts(blocks: Iterable[bytes], name: str, field: str) -> Iterator[bytes]:
    """Yield one field of every line of a file called `name`, as UTF-8; blank lines are skipped.

    Raises:
        ValueError: a line is not UTF-8, is not a JSON object, is too long, or has no such field with a string.
    """
    for number, line in enumerate(_split_lines(blocks, name), start=1):
        # Some Windows programs start a file with a byte order mark.
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if line.strip():
            yield parse_field(line, f"{name}, line {number}", field).encode("utf-8")


def parse_field(line: bytes, place: str, field: str, *, chosen: bool = True) -> str:
    """Parse one field of the object on a line.

    Args:
        line: a line that is not blank.
        place: name of the line in messages.
        field: the field of the text.
        chosen: whether the user chose the field with `--data.field`, which messages then propose to change.

    Raises:
        ValueError: the line is not UTF-8, is not a JSON object, or has no such field with a string.
    """
    reading = "with --data.field " if chosen else ""
    way_out = "fix the line, or omit --data.field for plain text" if chosen else "fix the line"
    other_field = "set --data.field to one that holds text" if chosen else f'write {{"{field}": "..."}} there'
    return require_string(_parse_object(line, place, reading, way_out), field, place, other_field)


def read_objects(blocks: Iterable[bytes], name: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the place and the object of every line of a file called `name`; blank lines are skipped.

    Raises:
        ValueError: a line is not UTF-8, is not a JSON object, or is too long.
    """
    for number, line in enumerate(_split_lines(blocks, name, "split it into several lines"), start=1):
        line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
        if line.strip():
            place = f"{name}, line {number}"
            yield place, _parse_object(line, place, "", "fix or remove the line")


def require_string(record: dict[str, Any], field: str, place: str, way_out: str) -> str:
    """Return a field of an object; ValueError, with the way out, if it is missing or not a string of characters."""
    if field not in record:
        raise ValueError(f"{place} has no field {field!r} but {list_fields(record)}; {way_out}")
    value = record[field]
    if not isinstance(value, str):
        raise ValueError(f"{place}: the field {field!r} is {describe_type(value)}, not a string; {way_out}")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{place}: character {error.start} of the field {field!r} is half a character (a lone surrogate); fix or "
            "remove the line"
        ) from error
    return value


def _parse_object(line: bytes, place: str, reading: str, way_out: str) -> dict[str, Any]:
    text = decode_line(line, place)
    try:
        record = DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        # Also raised for numbers of thousands of digits and a thousand nested brackets.
        raise ValueError(
            f"{place} is not JSON ({error}), but {reading}every line must be an object; {way_out}"
        ) from None
    if not isinstance(record, dict):
        raise ValueError(f"{place} is {describe_type(record)}, but {reading}every line must be an object; {way_out}")
    return record


def decode_line(line: bytes, place: str) -> str:
    """Decode a line as UTF-8; ValueError if it is not."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place}: byte {error.start} of the line is not UTF-8; save the file as UTF-8") from error


def _split_lines(
    blocks: Iterable[bytes],
    name: str,
    way_out: str = "split the document into several lines, or omit --data.field for plain text",
) -> Iterator[bytes]:
    begun: list[bytes] = []
    number, size = 1, 0
    for block in blocks:
        *ends, rest = block.split(b"\n")
        for end in ends:
            yield b"".join([*begun, end])
            begun, number, size = [], number + 1, 0
        begun.append(rest)
        size += len(rest)
        if size > MAX_LINE:
            raise ValueError(f"{name}, line {number} is longer than {MAX_LINE:,} bytes; {way_out}")
    yield b"".join(begun)


def describe_type(value: Any) -> str:
    """Return the JSON name of a value's type."""
    if value is None:
        return "null"
    names = {bool: "true or false", str: "a string", list: "a list", dict: "an object"}
    return names.get(type(value), "a number")


def list_fields(record: dict[str, Any]) -> str:
    """List the names of the first fields of an object."""
    names = ", ".join(repr(name[:40]) for name in list(record)[:5])
    more = f" and {len(record) - 5} more" if len(record) > 5 else ""
    return f"{names}{more}" if names else "none at all"
