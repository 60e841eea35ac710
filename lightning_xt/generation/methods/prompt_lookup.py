from collections.abc import Sequence
from typing import ClassVar

from lightning_xt.generation.batching.row_state import RowState
from lightning_xt.generation.requests import SamplingParams
from lightning_xt.generation.search.speculated_rows import Moves, TrackedRow
from lightning_xt.generation.search.speculation import Drafter, SpeculativeDecoding
from lightning_xt.system.option_checks import check_option


class PromptLookup(SpeculativeDecoding):
    """Guesses that a text goes on as it did after the last place where its last tokens stood before.

    Saxena, 2023. https://github.com/apoorvumang/prompt-lookup-decoding
    The text is that of plain decoding, token for token, with the same seed; where it repeats itself or its prompt it
    takes fewer forwards. A model with a running state cannot take back wrong guesses and is refused.

    Args:
        ngram: last tokens that are looked for; where they are new and the last guess was of use, fewer and fewer of
            them.
        tokens: most tokens guessed at once.
    """

    rereads_prefix: ClassVar = False

    def __init__(self, ngram: int = 3, tokens: int = 8) -> None:
        check_option("method: PromptLookup", "ngram", ngram, least=1)
        check_option("method: PromptLookup", "tokens", tokens, least=1)
        super().__init__(tokens)
        self.ngram = ngram

    def guesser(self, texts: Sequence[TrackedRow], choices: SamplingParams) -> Drafter:
        """What guesses for these rows, whose prompts are known."""
        return _Lookup(self.ngram, texts)


class _Lookup:
    """Where in each row what followed.

    Args:
        ngram: most tokens looked for.
        texts: the rows.
    """

    def __init__(self, ngram: int, texts: Sequence[TrackedRow]) -> None:
        self.ngram = ngram
        self.followed: dict[int, dict[tuple[int, ...], int]] = {text.number: {} for text in texts}
        self.known = {text.number: 1 for text in texts}

    def guess(self, texts: Sequence[TrackedRow], rows: RowState, most: Sequence[int]) -> list[list[int]]:
        """What followed the last time, as far as it is of use."""
        return [self._guess(text, number) for text, number in zip(texts, most, strict=True)]

    def keep(self, texts: Sequence[TrackedRow], moves: Moves) -> None:
        """Rows are known by their numbers."""

    def _guess(self, text: TrackedRow, most: int) -> list[int]:
        tokens, followed = text.tokens, self.followed[text.number]
        # Where nothing repeats, short matches are chance, and wrong guesses are not free.
        shortest = self.ngram if len(tokens) == self.known[text.number] + 1 else 1
        for place in range(self.known[text.number], len(tokens)):
            for n in range(1, min(self.ngram, place) + 1):
                followed[tuple(tokens[place - n : place])] = place
        self.known[text.number] = len(tokens)
        for n in range(min(self.ngram, len(tokens)), shortest - 1, -1):
            then = followed.get(tuple(tokens[-n:]))
            if then is not None:
                # What has been guessed is read on from, so a short period goes round.
                period = len(tokens) - then
                return [tokens[then + step % period] for step in range(most)]
        return []
