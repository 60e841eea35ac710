"""UTF-8 bytes and special ids as tokens."""

from collections.abc import Sequence

from lightning_xt.data.tokenizers.base import TextStream, Tokenizer
from lightning_xt.data.tokenizers.bytes import Bytes

SPECIALS = 3  # pad, start and end


class SpecialBytes(Tokenizer):
    """Encode text as UTF-8 bytes, byte b as id b + 3; ids 0, 1 and 2 are the pad, start and end ids."""

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
    """Incremental decoder of the bytes among the ids."""

    def __init__(self, stream: TextStream) -> None:
        self._stream = stream

    def push(self, token: int) -> str:
        return self._stream.push(token - SPECIALS) if token >= SPECIALS else ""

    def finish(self) -> str:
        return self._stream.finish()
