"""From ids to text as they come: characters that several ids make, the end, and stop strings."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.generation.stop_strings import StopStrings


@dataclass(frozen=True)
class TextPiece:
    """Text that will not change any more.

    Args:
        text: at least one character.
        log_prob: of the ids that made it, in nats, those of earlier ones included that were no text by themselves. None
            = it was given, not drawn.
    """

    text: str
    log_prob: float | None = None


class IncrementalDetokenizer:
    """The text of one sequence while its ids are drawn.

    Args:
        tokenizer: turns ids into text.
        end: id with which a sequence ends, which is no text. None = none.
        stops: texts before which it ends.
    """

    def __init__(self, tokenizer: Tokenizer, end: int | None, stops: Sequence[str]) -> None:
        self._stream, self._stops = tokenizer.stream(), StopStrings(stops)
        self._end = end
        self._held: deque[TextPiece] = deque()
        """What may still turn out to be the beginning of a stop string."""
        self._log_prob = 0.0
        """Of ids that have made no text yet."""

    @property
    def stopped(self) -> bool:
        """Whether a stop string was met; what follows counts for nothing."""
        return self._stops.stopped

    def push(self, token: int, log_prob: float = 0.0) -> list[TextPiece]:
        """The text that is certain after one more id."""
        if token == self._end:
            return []
        self._log_prob += log_prob
        return self._pieces(self._stops.push(self._take(self._stream.push(token))))

    def finish(self) -> list[TextPiece]:
        """The rest of the text, when no id follows."""
        certain = self._stops.push(self._take(self._stream.finish()))
        return self._pieces(certain + self._stops.finish())

    def _take(self, text: str) -> str:
        if text:
            self._held.append(TextPiece(text, self._log_prob))
            self._log_prob = 0.0
        return text

    def _pieces(self, certain: str) -> list[TextPiece]:
        """What is certain, cut where the ids cut it."""
        pieces, left = [], len(certain)
        while left > 0:
            piece = self._held.popleft()
            text, rest = piece.text[:left], piece.text[left:]
            pieces.append(TextPiece(text, piece.log_prob))
            if rest:
                self._held.appendleft(TextPiece(rest, piece.log_prob))
            left -= len(text)
        return pieces
