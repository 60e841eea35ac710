"""What turns text into ids and back."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any


class TextStream(ABC):
    """Turns ids into text as they come."""

    @abstractmethod
    def feed(self, token: int) -> str:
        """The text that is certain after one more id; empty in the middle of a character."""

    @abstractmethod
    def finish(self) -> str:
        """What remains when no id follows. All the pieces together are what `decode` gives at once."""


class Tokenizer(ABC):
    """Turns text into ids and back. Its special ids are None where it has none."""

    pad: int | None = None
    start: int | None = None
    """Opens a text: a model continues a prompt from here."""
    end: int | None = None
    """Follows a text: a model that gives it has finished."""

    @property
    def init_args(self) -> dict[str, Any]:
        """What the constructor was given, as plain values: a checkpoint keeps it."""
        return {}

    @property
    def learnt(self) -> str | None:
        """What it has learnt, as a `tokenizer.json` of the `tokenizers` library; None where it has nothing to learn."""
        return None

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, special ones included."""

    def train(self, texts: Callable[[], Iterable[str]]) -> None:  # noqa: B027 - most have nothing to learn
        """Learns from a split; nothing by default.

        Args:
            texts: opens the texts from the first, as often as it is called.
        """

    @abstractmethod
    def encode(self, text: str) -> list[int]:
        """The ids of a text, without special ones."""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text, without special ones."""
        return [self.encode(text) for text in texts]

    def encode_prompt(self, text: str) -> list[int]:
        """The ids of a text that a model is to continue, with the id that opens a text where there is one."""
        return [*([] if self.start is None else [self.start]), *self.encode(text)]

    @abstractmethod
    def decode(self, ids: Sequence[int]) -> str:
        """The text of a sequence of ids; what is no text becomes U+FFFD."""

    @abstractmethod
    def stream(self) -> TextStream:
        """A decoder for ids that arrive one at a time."""
