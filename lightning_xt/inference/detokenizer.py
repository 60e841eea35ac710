"""Incremental detokenization: characters of several ids, the end token, and stop strings."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_xt.data.tokenizers.base import TextStream, Tokenizer
from lightning_xt.generation.stop_strings import StopStrings


@dataclass(frozen=True)
class TextPiece:
    """Text that will not change any more.

    Args:
        text: at least one character.
        log_prob: log-probability of its ids in nats, with earlier ids that completed no character. None = it belongs to
            the prompt.
    """

    text: str
    log_prob: float | None = None


class IncrementalDetokenizer:
    """Text of one sequence while its ids are generated, until a stop string begins.

    The token `end`, if there is one, ends a sequence and has no text. The text continues that of the id `after`: some
    tokenizers write the first id of a text without its space. None = it begins a text.
    """

    def __init__(self, tokenizer: Tokenizer, end: int | None, stops: Sequence[str], after: int | None = None) -> None:
        self._stream, self._stops = stream_after(tokenizer, after), StopStrings(stops)
        self._end = end
        self._held: deque[TextPiece] = deque()
        """Pieces that may still be the beginning of a stop string."""
        self._log_prob = 0.0
        """Log-probability of ids that have completed no character yet."""

    @property
    def stopped(self) -> bool:
        """True once the text has met a stop string; later ids are ignored."""
        return self._stops.stopped

    def push(self, token: int, log_prob: float = 0.0) -> list[TextPiece]:
        """Add an id and return the text that has become certain."""
        if token == self._end:
            return []
        self._log_prob += log_prob
        return self._release(self._stops.push(self._hold(self._stream.push(token))))

    def finish(self) -> list[TextPiece]:
        """Return the rest of the text when no id follows."""
        certain = self._stops.push(self._hold(self._stream.finish()))
        return self._release(certain + self._stops.finish())

    def _hold(self, text: str) -> str:
        if text:
            self._held.append(TextPiece(text, self._log_prob))
            self._log_prob = 0.0
        return text

    def _release(self, certain: str) -> list[TextPiece]:
        """Cut the certain text where its ids end."""
        pieces, left = [], len(certain)
        while left > 0:
            piece = self._held.popleft()
            text, rest = piece.text[:left], piece.text[left:]
            pieces.append(TextPiece(text, piece.log_prob))
            if rest:
                self._held.appendleft(TextPiece(rest, piece.log_prob))
            left -= len(text)
        return pieces


def stream_after(tokenizer: Tokenizer, after: int | None) -> TextStream:
    """Return an incremental decoder of the ids that follow an id; None = of a text from its beginning."""
    stream = tokenizer.stream()
    if after is not None:
        stream.push(after)
    return stream


def decode_after(tokenizer: Tokenizer, ids: Sequence[int], after: int | None) -> str:
    """Decode the ids that follow an id; None = a text from its beginning."""
    stream = stream_after(tokenizer, after)
    return "".join(map(stream.push, ids)) + stream.finish()
