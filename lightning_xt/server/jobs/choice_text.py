"""Text of one completion, with the log-probabilities of its tokens, while its events arrive."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lightning_xt.inference.detokenizer import stream_after
from lightning_xt.inference.serving.events import Scores, SequenceEnd, TokenEvent
from lightning_xt.server.served_model import ServedModel


@dataclass(frozen=True)
class TokenEntry:
    """One token of an answer.

    Args:
        text: its text, or a name for a token that is not a text by itself.
        log_prob: log-probability in nats. None = the first token of a prompt.
        alternatives: most likely tokens of its place, each with its log-probability.
        offset: number of characters before it in the answer's text.
    """

    text: str
    log_prob: float | None
    alternatives: tuple[tuple[str, float], ...]
    offset: int


@dataclass(frozen=True)
class TextDelta:
    """Part of a completion that has become certain.

    Args:
        text: its text.
        entries: its tokens.
        reason: reason for the end, "stop" or "length", with the last part only.
    """

    text: str = ""
    entries: list[TokenEntry] = field(default_factory=list)
    reason: str | None = None


class ChoiceText:
    """Text of one completion.

    A token is given out with the first of its characters: it may be held back, because it may begin a stop string, or
    because its character has other tokens. Tokens of a stop string are dropped.

    Args:
        model: model of the completion.
        log_probs: whether tokens are given out.
        start: number of characters before the completion, those of an echoed prompt.
        after: last id of the prompt that the text continues. None = it begins a text.
    """

    def __init__(self, model: ServedModel, *, log_probs: bool, start: int = 0, after: int | None = None) -> None:
        self._model, self._log_probs = model, log_probs
        self._stream = stream_after(model.tokenizer, after)
        self._decoded = self._certain = start
        """Characters of all tokens, and of the text that was given out."""
        self._held: list[TokenEntry] = []
        self._last = -1

    def push(self, event: TokenEvent | SequenceEnd) -> TextDelta:
        """Add an event; return what has become certain."""
        if isinstance(event, SequenceEnd):
            return self._end(event)
        self._certain += len(event.text)
        if not self._log_probs:
            return TextDelta(event.text)
        self._last = event.token
        alternatives = tuple((self._model.decode_token(token), value) for token, value in event.alternatives)
        text = self._model.decode_token(event.token)
        self._held.append(TokenEntry(text, event.log_prob, alternatives, self._decoded))
        if event.token != self._model.tokenizer.end:
            self._decoded += len(self._stream.push(event.token))
        return TextDelta(event.text, self._release(self._certain))

    def _end(self, event: SequenceEnd) -> TextDelta:
        self._certain += len(event.text)
        stopped = event.reason == "stop" and self._last != self._model.tokenizer.end
        return TextDelta(event.text, self._release(self._certain if stopped else None), event.reason)

    def _release(self, before: int | None) -> list[TokenEntry]:
        """Give out the tokens that begin before a number of characters. None = all."""
        count = sum(before is None or entry.offset < before for entry in self._held)
        released, self._held = self._held[:count], self._held[count:]
        return released


def make_prompt_entries(model: ServedModel, scores: Scores) -> list[TokenEntry]:
    """Return the tokens of a prompt."""
    stream, offset, entries = model.tokenizer.stream(), 0, []
    alternatives: Sequence[tuple[tuple[int, float], ...]] = scores.alternatives or [()] * len(scores.tokens)
    for token, log_prob, others in zip(scores.tokens, scores.log_probs, alternatives, strict=True):
        named = tuple((model.decode_token(each), value) for each, value in others)
        entries.append(TokenEntry(model.decode_token(token), log_prob, named, offset))
        offset += len(stream.push(token))
    return entries
