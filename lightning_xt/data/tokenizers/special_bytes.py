"""Text as its UTF-8 bytes, with special ids before them."""

from collections.abc import Sequence

from lightning_xt.data.tokenizers.base import TextStream, Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes

SPECIALS = 3  # pad, start and end


class SpecialBytes(Tokenizer):
    """Reads text as UTF-8 bytes after three special ids: 0 pads, 1 opens a text, 2 ends it, byte b is id b + 3."""

    pad, start, end = 0, 1, 2

    def __init__(self) -> None:
        self._bytes = Bytes()

    @property
    def vocab_size(self) -> int:
        return self._bytes.vocab_size + SPECIALS

    def encode(self, text: str) -> list[int]:
        return [byte + SPECIALS for byte in self._bytes.encode(text)]

    def decode(self, ids: Sequence[int]) -> str:
        return self._bytes.decode([token - SPECIALS for token in ids if token >= SPECIALS])

    def stream(self) -> TextStream:
        return _SpecialByteStream(self._bytes.stream())


class _SpecialByteStream(TextStream):
    """Passes on the bytes among the ids."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream

    def feed(self, token: int) -> str:
        return self._stream.feed(token - SPECIALS) if token >= SPECIALS else ""

    def finish(self) -> str:
        return self._stream.finish()
