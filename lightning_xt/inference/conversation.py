"""A text that a user and a language model write in turns."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

from lightning_xt.generation.models.prefix_reuse import PrefixReuse
from lightning_xt.inference.detokenizer import TextPiece, decode_after
from lightning_xt.inference.generation_options import GenerationOptions
from lightning_xt.inference.text_completer import TextCompleter


@dataclass
class Turn:
    """Ids before a turn, and the text that the turn has added."""

    ids: list[int]
    text: str


class Conversation:
    """Conversation: appends the user's text to all earlier ids and continues from there.

    Each token is run once, whatever the number of turns, unless the cache cannot keep it, the method rereads the
    prefix, or prompts are visible to all their tokens. A turn continues the text that was shown: ids of a stop string,
    or generated after one, are dropped.

    Args:
        completer: continues the text.
        options: generation options; turn n samples with seed + n.
    """

    def __init__(self, completer: TextCompleter, options: GenerationOptions) -> None:
        self.model = PrefixReuse(completer.model)
        # In a prefix language model the vectors of a text change with the text after it.
        rereads = completer.visible_prompts or completer.open_session(options).method.rereads_prefix
        self._completer = completer if rereads else completer.replace_model(cast(Any, self.model))
        self._options = options
        self._ids: list[int] = []
        self._turns: list[Turn] = []

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(turn.text for turn in self._turns)

    def reply(self, text: str) -> Generator[TextPiece, None, None]:
        """Yield the model's continuation once it is certain; if this is closed early, the shown part stays.

        Args:
            text: next text of the user; empty = the model continues its own.

        Raises:
            ValueError: there is nothing to continue, or the text has become too long; the turn is undone.
        """
        tokenizer = self._completer.tokenizer
        new = tokenizer.encode(text) if self._ids else tokenizer.encode_prompt(text)
        if not self._ids and not new:
            raise ValueError("there is no text to continue yet; write at least one character")
        turn = Turn(list(self._ids), text)
        options = replace(self._options, seed=self._options.seed + len(self._turns))
        self._ids = [*self._ids, *new]
        self._turns.append(turn)
        try:
            yield from self._generate(turn, options)
        except ValueError:
            self.undo()
            raise

    def undo(self) -> bool:
        """Undo the last turn; return False if there is none."""
        if not self._turns:
            return False
        self._ids = self._turns.pop().ids
        return True

    def reset(self) -> None:
        """Start again without any text."""
        self._ids, self._turns = [], []

    def _generate(self, turn: Turn, options: GenerationOptions) -> Generator[TextPiece, None, None]:
        session = self._completer.open_session(options)
        request = self._completer.build_request(self._ids, session.options)
        self.model.expect(self._ids)
        detokenizer, before, user_text = session.new_detokenizer(request.after), self._ids, turn.text
        ids: list[int] = []
        try:
            with closing(session.stream_tokens([request])) as tokens:
                for each in tokens:
                    # The conversation continues after an end token, so it is not kept.
                    if each.token != session.end:
                        ids.append(each.token)
                    yield from self._append(turn, detokenizer.push(each.token, each.log_prob))
            yield from self._append(turn, detokenizer.finish())
        finally:
            self._ids = [*before, *self._cut_to_text(ids, turn.text.removeprefix(user_text), request.after)]

    def _cut_to_text(self, ids: list[int], text: str, after: int | None) -> list[int]:
        """Return the ids of the shown text: the generated ones, then a new encoding of the shown part of a token."""
        tokenizer = self._completer.tokenizer

        def decode(ids: list[int]) -> str:
            return decode_after(tokenizer, ids, after)

        shown = next(n for n in range(len(ids), -1, -1) if text.startswith(decode(ids[:n])))
        # Some tokenizers put a space before all that they encode, and one may be the last shown token.
        for n in range(shown, max(-1, shown - 2), -1):
            rest = text.removeprefix(decode(ids[:n]))
            for part in (rest, rest.removeprefix(" ")):
                found = [*ids[:n], *(tokenizer.encode(part) if part else [])]
                if decode(found) == text:
                    return found
        return [*ids[:shown], *tokenizer.encode(text.removeprefix(decode(ids[:shown])))]

    def _append(self, turn: Turn, pieces: list[TextPiece]) -> Generator[TextPiece, None, None]:
        for piece in pieces:
            turn.text += piece.text
            yield piece
