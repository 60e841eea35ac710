"""Base classes of tokenizers."""

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

Specials = Literal["pairs", "documents", "none"]
"""Special ids in use: those of texts in pairs, one that opens and ends each document of a long text, or none."""


class TextStream(ABC):
    """Incremental decoder: ids in, text out."""

    @abstractmethod
    def push(self, token: int) -> str:
        """Add one id; return the text that is now complete, empty in the middle of a character."""

    def finish(self) -> str:
        """Return the rest of the text, if any. All returned texts together equal the result of `decode`."""
        return ""


class Tokenizer(ABC):
    """Tokenizer: text to ids and back. Special ids that it lacks are None."""

    pad: int | None = None
    start: int | None = None
    """The start id, which opens a text."""
    end: int | None = None
    """The end id: a model that generates it has finished."""
    saved_name: str = "tokenizer.json"
    """The usual name of its file."""

    @property
    def init_args(self) -> dict[str, Any]:
        """The constructor's arguments as plain values, for checkpoints."""
        return {}

    @property
    def trained_state(self) -> str | None:
        """The trained tokenizer as text, such as a `tokenizer.json`; None if it does not learn."""
        return None

    @property
    def saved_content(self) -> bytes | None:
        """The trained tokenizer as a file of its library; None if it does not learn."""
        return None if self.trained_state is None else self.trained_state.encode("utf-8")

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, special ids included."""

    @property
    def unused(self) -> Sequence[int]:
        """Ids that no text has before its end: pad, start, and ids that stand for nothing. They are not generated."""
        return [each for each in (self.pad, self.start) if each is not None and each != self.end]

    def for_text(self, separated: bool) -> Self:
        """Return a tokenizer of a long text: without pad id, and with one id for start and end, or with neither.

        Args:
            separated: whether that id opens each document, which ends the one before.

        Raises:
            ValueError: the tokenizer is not one of text.
        """
        name = type(self).__name__
        raise ValueError(f"--data.tokenizer {name} does not read long texts; set --data.tokenizer Bytes or BPE")

    def for_examples(self) -> Self:
        """Return a tokenizer of texts that each begin with the start id and end with the end id, if there are such."""
        return self

    def describe_changes(self) -> str | None:
        """Describe what decoding does not restore of a text, as a sentence; None if every text comes back unchanged."""
        return None

    @property
    def is_ready(self) -> bool:
        """True if it encodes texts; False if it must learn first."""
        return True

    def train(self, texts: Callable[[], Iterable[str]]) -> None:  # noqa: B027 - most tokenizers do not learn
        """Train on texts, which may be opened several times; by default, do nothing."""

    def restore(self, state: str) -> None:  # noqa: B027 - most tokenizers do not learn
        """Learn what a tokenizer with equal options has learned, from its `trained_state`; by default, do nothing."""

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """Encode a text, without special ids."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Encode each text, without special ids."""
        return [self.encode(text) for text in texts]

    def encode_arrays(self, texts: Sequence[str]) -> list[NDArray[np.uint32]]:
        """Encode each text, without special ids, as arrays: much text at once, on all cores if the tokenizer can."""
        return [as_array(ids) for ids in self.encode_batch(texts)]

    def encode_prompt(self, text: str) -> list[int]:
        """Encode a prompt, with the start id first if the tokenizer has one."""
        return [*([] if self.start is None else [self.start]), *self.encode(text)]

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """Decode ids; bytes that are not text become U+FFFD."""

    def spell(self, token: int) -> str:
        """Return what one id adds to a text that others begin; U+FFFD for a part of a character."""
        return self.decode([token])

    @abstractmethod
    def stream(self) -> TextStream:
        """Return an incremental decoder."""


def as_array(ids: Sequence[int]) -> NDArray[np.uint32]:
    """Return ids as an array; several times faster than numpy does."""
    return np.array(array("I", ids), dtype=np.uint32)
