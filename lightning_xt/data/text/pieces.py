"""Pieces of a long text that a tokenizer encodes one by one."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

PIECE = 1 << 17
"""Most bytes of a piece."""
LEARNED_PIECE = 1 << 14
"""Most bytes of a piece from which a tokenizer learns; the library holds many of them at once."""
TAIL = 1 << 12
"""Last bytes of a piece in which a space, or else a newline, is looked for."""


class TextPart(NamedTuple):
    """A part of a text.

    Args:
        opens: whether a separated document begins with it.
        content: bytes of whole characters, if the text is UTF-8.
    """

    opens: bool
    content: bytes


def cut_pieces(blocks: Iterable[bytes], separator: int | None, most: int | None = None) -> Iterator[TextPart]:
    """Cut a text at its separators, and longer documents before the space of a word.

    There the pre-tokenizers of byte-level BPE cut too, so that the tokens are those of the whole document. Without a
    space, a document is cut after a newline, else between characters. The cuts depend on the text, not on its blocks.
    A tokenizer that marks the beginning of a text, as that of Llama 2 does, marks that of each piece.

    Args:
        blocks: the text.
        separator: the byte before each document. None = there is none.
        most: most bytes of a piece. None = as many as suit encoding.
    """
    most = PIECE if most is None else most
    held, opens = b"", False
    for block in blocks:
        held += block
        *ended, held = [held] if separator is None else held.split(bytes([separator]))
        for document in ended:
            yield from _cut_document(opens, document, most)
            opens = True
        *whole, last = _cut_document(opens, held, most)
        yield from whole
        opens, held = last
    if opens or held:
        yield TextPart(opens, held)


def _cut_document(opens: bool, document: bytes, most: int) -> Iterator[TextPart]:
    """Yield the pieces of a document; the last may be empty."""
    begin = 0
    while len(document) - begin > most:
        end = begin + _find_cut(document[begin : begin + most])
        yield TextPart(opens, document[begin:end])
        begin, opens = end, False
    yield TextPart(opens, document[begin:])


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
