"""Pieces of a long text that a tokenizer encodes one by one."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

PIECE = 1 << 17
"""Most bytes of a piece."""
TAIL = 1 << 12
"""Last bytes of a piece in which a space, or else a newline, is looked for."""


class Piece(NamedTuple):
    """A part of a text.

    Args:
        opens: whether a separated document begins with it.
        content: bytes of whole characters, if the text is UTF-8.
    """

    opens: bool
    content: bytes


def cut_pieces(blocks: Iterable[bytes], separator: int | None) -> Iterator[Piece]:
    """Cut a text at its separators, and longer documents before the space of a word.

    There the pre-tokenizers of byte-level BPE cut too, so that the tokens are those of the whole document. Without a
    space, a document is cut after a newline, else between characters. The cuts depend on the text, not on its blocks.

    Args:
        blocks: the text.
        separator: the byte before each document. None = there is none.
    """
    held, opens = b"", False
    for block in blocks:
        held += block
        *ended, held = [held] if separator is None else held.split(bytes([separator]))
        for document in ended:
            yield from _cut_document(opens, document)
            opens = True
        *whole, last = _cut_document(opens, held)
        yield from whole
        opens, held = last
    if opens or held:
        yield Piece(opens, held)


def _cut_document(opens: bool, document: bytes) -> Iterator[Piece]:
    """Yield the pieces of a document; the last may be empty."""
    begin = 0
    while len(document) - begin > PIECE:
        end = begin + _find_cut(document[begin : begin + PIECE])
        yield Piece(opens, document[begin:end])
        begin, opens = end, False
    yield Piece(opens, document[begin:])


def _find_cut(content: bytes) -> int:
    """Return the length of the longest part of a full piece after which a text may be cut."""
    first = len(content) - TAIL
    space = content.rfind(b" ", first)
    while space > first:
        before = content[space - 1 : space]
        if before.isalnum() or before >= b"\x80":
            return space
        space = content.rfind(b" ", first, space)
    if (newline := content.rfind(b"\n", first)) >= 0:
        return newline + 1
    end = len(content) - 1
    # The bytes of a character after its first are 10xxxxxx.
    while end > len(content) - 4 and content[end] & 0xC0 == 0x80:
        end -= 1
    return end
