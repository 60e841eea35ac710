"""A text that a user and a language model write in turns."""

from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, cast

from lightning_xt.generation.models.prefix_reuse import PrefixReuse
from lightning_xt.inference.completion import TextCompleter
from lightning_xt.inference.detokenizer import TextPiece
from lightning_xt.inference.generation_options import GenerationOptions


@dataclass
class Turn:
    """What was there before a turn, and what the turn has added."""

    ids: list[int]
    text: str


class Conversation:
    """Appends what a user says to all that was read and drawn before, and goes on from there.

    A model reads each token once, whatever the number of turns, unless it must forget them or its method rereads. It
    goes on from what is shown and nothing else: what was drawn of a stop string, or behind one, is no part of the text.

    Args:
        continuer: what goes on.
        sampling: how; turn n draws with the seed and n more.
    """

    def __init__(self, continuer: TextCompleter, sampling: GenerationOptions) -> None:
        self.model = PrefixReuse(continuer.model)
        anew = continuer.open_session(sampling).method.rereads_prefix
        self._continuer = continuer if anew else continuer.with_model(cast(Any, self.model))
        self._sampling = sampling
        self._ids: list[int] = []
        self._turns: list[Turn] = []

    @property
    def text(self) -> str:
        """All of it so far."""
        return "".join(turn.text for turn in self._turns)

    def reply(self, text: str) -> Generator[TextPiece, None, None]:
        """What the model goes on with, as it becomes certain; what was shown stays if this is left early.

        Args:
            text: what comes next; empty = the model goes on from its own words.

        Raises:
            ValueError: there is nothing to go on from, or the text has become too long; the turn did not happen.
        """
        tokenizer = self._continuer.tokenizer
        new = tokenizer.encode(text) if self._ids else tokenizer.encode_prompt(text)
        if not self._ids and not new:
            raise ValueError("there is no text yet to go on from; write at least one character")
        turn = Turn(list(self._ids), text)
        sampling = replace(self._sampling, seed=self._sampling.seed + len(self._turns))
        self._ids = [*self._ids, *new]
        self._turns.append(turn)
        try:
            yield from self._drawn(turn, sampling)
        except ValueError:
            self.undo()
            raise

    def undo(self) -> bool:
        """Takes back the last turn; False where there is none."""
        if not self._turns:
            return False
        self._ids = self._turns.pop().ids
        return True

    def reset(self) -> None:
        """Begins anew."""
        self._ids, self._turns = [], []

    def _drawn(self, turn: Turn, sampling: GenerationOptions) -> Generator[TextPiece, None, None]:
        session = self._continuer.open_session(sampling)
        request = self._continuer.build_request(self._ids, session.sampling)
        self.model.expect(self._ids)
        detokenizer, before, said = session.new_detokenizer(), self._ids, turn.text
        ids: list[int] = []
        try:
            with closing(session.stream_tokens([request])) as drawn:
                for each in drawn:
                    # The text goes on behind an end, which is therefore none.
                    if each.token != session.end:
                        ids.append(each.token)
                    yield from self._kept(turn, detokenizer.push(each.token, each.log_prob))
            yield from self._kept(turn, detokenizer.finish())
        finally:
            self._ids = [*before, *self._shown(ids, turn.text.removeprefix(said))]

    def _shown(self, ids: list[int], text: str) -> list[int]:
        """The ids of what was shown: those that were drawn, and anew those of the part of a token."""
        tokenizer = self._continuer.tokenizer
        whole = next(n for n in range(len(ids), -1, -1) if text.startswith(tokenizer.decode(ids[:n])))
        rest = text.removeprefix(tokenizer.decode(ids[:whole]))
        return [*ids[:whole], *(tokenizer.encode(rest) if rest else [])]

    def _kept(self, turn: Turn, pieces: list[TextPiece]) -> Generator[TextPiece, None, None]:
        for piece in pieces:
            turn.text += piece.text
            yield piece
