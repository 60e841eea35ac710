"""Documents in files, and streams of documents."""

import codecs
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

from lightning_xt.data.files.archives import ARCHIVES, read_entries
from lightning_xt.data.files.json_lines import ENDINGS, read_texts
from lightning_xt.data.files.reading import read_blocks, read_raw_blocks

Document = Iterable[bytes]
"""The text of a document in blocks."""

WAY_OUT = "save the file as UTF-8, or set --data.documents joined"

CHECKED = 64
"""Blocks of 1 MiB at the beginning of a file that decide if it is UTF-8."""


def read_documents(path: Path, field: str | None = None, separator: int | None = None) -> Iterator[Document]:
    """Yield the documents of a file: each line of JSON lines, else the whole file; likewise for files in a `.zip`.

    Read each document before taking the next.

    Args:
        path: the file; plain, `.gz` or `.zip`.
        field: the field of each JSON line that holds the text; None for plain text.
        separator: the byte that will open each document; None if there is none.

    Raises:
        ValueError: the file, or a file in it, cannot be read as text or contains the separator.
    """
    require_text(path, field)
    if path.suffix.lower() == ".zip":
        for name, content in read_entries(path):
            _require_text(f"{name} in {path}", name, field)
            yield from _split_documents(f"{name} in {path}", content, field, separator)
    else:
        yield from _split_documents(str(path), read_blocks(path), field, separator)


def require_text(path: Path, field: str | None) -> None:
    """Raise a ValueError for a file that is not text by its name, or is JSON lines while no field is named."""
    packed = path.suffix.lower() in (".gz", ".zip")
    _require_text(str(path), path.stem if packed else path.name, field)


def join_documents(documents: Iterable[Document]) -> Iterator[bytes]:
    """Concatenate documents, with a newline after each that does not end in one (except the last)."""
    ended = True
    for document in documents:
        for number, block in enumerate(filter(None, document)):
            if number == 0 and not ended:
                yield b"\n"
            yield block
            ended = block.endswith(b"\n")


def separate_documents(documents: Iterable[Document], separator: int) -> Iterator[bytes]:
    """Concatenate documents, each opened by the separator; empty documents are omitted."""
    for document in documents:
        for number, block in enumerate(filter(None, document)):
            if number == 0:
                yield bytes([separator])
            yield block


def require_separated_utf8(path: Path, separator: int) -> None:
    """Raise a ValueError for a plain file that is not UTF-8 between its separators, and may contain them as text."""
    held, offset = b"", 0
    for block in islice(read_raw_blocks(path), CHECKED):
        # A newline in the separator's place: no character may reach across it.
        text = held + block.replace(bytes([separator]), b"\n")
        try:
            _, used = codecs.utf_8_decode(text)
        except UnicodeDecodeError as error:
            raise ValueError(
                f"{path}: byte {offset + error.start} is not UTF-8, so a byte {separator} in this file may be text "
                f"instead of a boundary between documents; {WAY_OUT}"
            ) from None
        held, offset = text[used:], offset + used


def _split_documents(
    name: str, content: Iterator[bytes], field: str | None, separator: int | None
) -> Iterator[Document]:
    if field is None:
        return iter([content if separator is None else _refuse_byte(name, content, separator)])
    # UTF-8, which contains no separator.
    return ([text] for text in read_texts(content, name, field))


def _refuse_byte(name: str, content: Iterator[bytes], separator: int) -> Iterator[bytes]:
    offset = 0
    for block in content:
        if (found := block.find(separator)) >= 0:
            raise ValueError(
                f"{name}: byte {offset + found} is {separator}, which separates documents and never occurs in UTF-8; "
                f"{WAY_OUT}"
            )
        offset += len(block)
        yield block


def _require_text(name: str, unpacked: str, field: str | None) -> None:
    if unpacked.lower().endswith(ARCHIVES):
        raise ValueError(f"{name} is an archive, which is not read here; unpack it and name its files, or omit it")
    if field is None and unpacked.lower().endswith(ENDINGS):
        raise ValueError(f"{name} is JSON lines; name the field of the text, such as --data.field text")
