"""Ids written as decimal numbers."""

from collections.abc import Sequence
from typing import Any

from lightning_xt.data.tokenizers.base import TextStream, Tokenizer

MAX_DIGITS = 18  # longest number that is parsed; Python refuses thousands of digits


class Numbers(Tokenizer):
    """Encode decimal numbers separated by spaces: '5 3 17' is the ids 5, 3 and 17.

    Args:
        vocab_size: number of ids; every number is below it.
        pad: the padding id; None means none.
        start: the start id of a sequence, which may be the padding id; None means none.
        end: the end id of a sequence; None means none.
    """

    def __init__(self, vocab_size: int, *, pad: int | None = 0, start: int | None = 1, end: int | None = None) -> None:
        specials = {"pad": pad, "start": start, "end": end}
        chosen = [token for token in specials.values() if token is not None]
        # The start may be the padding, as in T5: it opens a target, and no loss is taken of it.
        if (end is not None and end in (pad, start)) or any(not 0 <= token < vocab_size for token in chosen):
            shown = ", ".join(f"{name} {token}" for name, token in specials.items() if token is not None)
            raise ValueError(
                f"--data.tokenizer.vocab_size {vocab_size} with {shown}: special ids must be different numbers from 0 "
                f"to {vocab_size - 1}; change them or raise --data.tokenizer.vocab_size"
            )
        self.pad, self.start, self.end = pad, start, end
        self._vocab_size = vocab_size

    @property
    def init_args(self) -> dict[str, Any]:
        return {"vocab_size": self._vocab_size, "pad": self.pad, "start": self.start, "end": self.end}

    @property
    def vocab_size(self) -> int:
        return self._vocab_size

    @property
    def unused(self) -> Sequence[int]:
        # Sequences of numbers may contain the start id.
        return [] if self.pad is None else [self.pad]

    def encode(self, text: str) -> list[int]:
        return [self._parse(word) for word in text.split()]

    def decode(self, ids: Sequence[int]) -> str:
        return " ".join(str(token) for token in ids if not self._is_special(token))

    def spell(self, token: int) -> str:
        text = self.decode([token])
        return f" {text}" if text else ""

    def stream(self) -> TextStream:
        return _NumberStream(self)

    def _parse(self, word: str) -> int:
        if word.isascii() and word.isdecimal() and len(word) <= MAX_DIGITS and int(word) < self._vocab_size:
            return int(word)
        shown = ascii(word if len(word) <= 40 else f"{word[:40]}...")
        raise ValueError(
            f"{shown} is not one of the {self._vocab_size} ids; write numbers from 0 to {self._vocab_size - 1}, "
            "separated by spaces, such as '5 3 17'"
        )

    def _is_special(self, token: int) -> bool:
        return token in (self.pad, self.start, self.end)


class _NumberStream(TextStream):
    """Incremental decoder that puts a space before each number but the first."""

    def __init__(self, numbers: Numbers) -> None:
        self._numbers = numbers
        self._has_text = False

    def push(self, token: int) -> str:
        text = self._numbers.decode([token])
        if text and self._has_text:
            text = f" {text}"
        self._has_text = self._has_text or bool(text)
        return text
