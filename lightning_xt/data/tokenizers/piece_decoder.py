"""Decoding of sub-words one at a time."""

import codecs
from collections.abc import Callable, Sequence
from typing import NamedTuple

from lightning_xt.data.tokenizers.base import TextStream

ANCHOR = "x"
"""A neighbour that no library changes."""


class Spelling(NamedTuple):
    """The UTF-8 bytes that a piece adds to a text.

    Args:
        inside: the bytes if another piece follows.
        last: the bytes if none does.
    """

    inside: bytes
    last: bytes


class PieceDecoder:
    """Decoder of ids to text, whole or one at a time.

    What a piece adds to a text may depend on its place: first, last or between others. Half a character becomes U+FFFD.

    Args:
        join: decodes pieces as the tokenizer's library does.
        read: returns the piece of an id, bytes for a part of a character, or None for an id without text.
        trims: whether all spaces at the beginning of a text are removed, not only those of its first piece.
    """

    def __init__(
        self, join: Callable[[list[str]], str], read: Callable[[int], str | bytes | None], *, trims: bool = False
    ) -> None:
        self._join, self._read, self.trims = join, read, trims
        self._known: dict[tuple[int, bool], Spelling | None] = {}
        self._anchor = join([ANCHOR])
        self._end = join([ANCHOR, ANCHOR]).removeprefix(self._anchor)

    def spell(self, token: int, first: bool) -> Spelling | None:
        """Return the bytes of an id, at the beginning of a text or later; None for an id without text."""
        key = token, first
        if key not in self._known:
            self._known[key] = self._find(token, first)
        return self._known[key]

    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids."""
        stream = PieceStream(self)
        return "".join(map(stream.push, ids)) + stream.finish()

    def _find(self, token: int, first: bool) -> Spelling | None:
        piece = self._read(token)
        if piece is None:
            return None
        if isinstance(piece, bytes):
            return Spelling(piece, piece)
        before, known = ([], "") if first else ([ANCHOR], self._anchor)
        last = self._join([*before, piece]).removeprefix(known)
        inside = self._join([*before, piece, ANCHOR]).removeprefix(known).removesuffix(self._end)
        return Spelling(inside.encode("utf-8", "replace"), last.encode("utf-8", "replace"))


class PieceStream(TextStream):
    """Incremental decoder that holds back what the next piece may change."""

    def __init__(self, decoder: PieceDecoder) -> None:
        self._decoder = decoder
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._first = True
        self._held = Spelling(b"", b"")

    def push(self, token: int) -> str:
        found = self._decoder.spell(token, self._first)
        if found is None:
            return ""
        certain = _count_equal(*found)
        text = self._utf8.decode(self._held.inside + found.inside[:certain])
        self._held = Spelling(found.inside[certain:], found.last[certain:])
        self._first = self._first and self._decoder.trims and not found.inside
        return text

    def finish(self) -> str:
        return self._utf8.decode(self._held.last, final=True)


def _count_equal(one: bytes, other: bytes) -> int:
    """Return the length of the longest shared prefix."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))
