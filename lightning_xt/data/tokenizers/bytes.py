"""Text as its UTF-8 bytes."""

import codecs
from collections.abc import Sequence
from typing import Any

from lightning_xt.data.tokenizers.base import TextStream, Tokenizer


class Bytes(Tokenizer):
    """Reads text as UTF-8 bytes: the 256 byte values are the ids.

    Args:
        separator: the byte that opens each document, and so ends the one before; the only special id. None = none.
    """

    def __init__(self, *, separator: int | None = None) -> None:
        self.start = self.end = separator

    @property
    def init_args(self) -> dict[str, Any]:
        return {"separator": self.end}

    @property
    def vocab_size(self) -> int:
        return 256

    def encode(self, text: str) -> list[int]:
        # A byte on the command line that is not UTF-8 reaches Python as a lone surrogate; this gives it back.
        return list(text.encode("utf-8", errors="surrogateescape"))

    def decode(self, ids: Sequence[int]) -> str:
        return bytes(ids).decode("utf-8", errors="replace")

    def stream(self) -> TextStream:
        return _ByteStream()


class _ByteStream(TextStream):
    """Holds back the bytes of a character until its last one."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, token: int) -> str:
        return self._decoder.decode(bytes([token]))

    def finish(self) -> str:
        return self._decoder.decode(b"", final=True)
