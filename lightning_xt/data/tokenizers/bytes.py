"""UTF-8 bytes as tokens."""

import codecs
from collections.abc import Sequence
from typing import Any, Self

from lightning_xt.data.tokenizers.base import TextStream, Tokenizer

SEPARATOR = 255
"""Byte before each separated document; UTF-8 text never contains it."""


class Bytes(Tokenizer):
    """Encode text as UTF-8 bytes: the 256 byte values are the ids.

    Args:
        separator: the byte before each document, which also ends the one before; the only special id. None = none.
    """

    def __init__(self, *, separator: int | None = None) -> None:
        self.start = self.end = separator

    @property
    def init_args(self) -> dict[str, Any]:
        return {"separator": self.end}

    @property
    def vocab_size(self) -> int:
        return 256

    def for_text(self, separated: bool) -> Self:
        return type(self)(separator=SEPARATOR if separated else self.end)

    def for_examples(self) -> Self:
        return self.for_text(separated=True)

    def encode(self, text: str) -> list[int]:
        # Command-line bytes that are not UTF-8 reach Python as lone surrogates; this restores them.
        ids = text.encode("utf-8", errors="surrogateescape")
        if self.end is not None and self.end in ids:
            raise ValueError(
                f"byte {ids.index(self.end)} of a text is {self.end}, which separates documents; remove it"
            )
        return list(ids)

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")

    def stream(self) -> TextStream:
        return _ByteStream()


class _ByteStream(TextStream):
    """Incremental decoder that holds bytes back until a character is complete."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token: int) -> str:
        return self._decoder.decode(bytes([token]))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)
