from collections.abc import Sequence
from typing import ClassVar

from lightning_xt.generation.batching.row_state import RowState
from lightning_xt.generation.methods.speculative_decoding import Drafter, SpeculativeDecoding
from lightning_xt.generation.requests import SamplingParams
from lightning_xt.generation.search.speculated_rows import Moves, TrackedRow
from lightning_xt.system.option_checks import check_option


class PromptLookup(SpeculativeDecoding):
    """Speculative decoding that drafts the tokens which followed the last occurrence of the newest n-gram.

    Saxena, 2023. https://github.com/apoorvumang/prompt-lookup-decoding
    The completion equals that of plain decoding, token for token, with the same seed; if it repeats itself or its
    prompt, it takes fewer forwards. A model with a running state cannot roll back rejected drafts and is refused.

    Args:
        ngram: newest tokens to look up; if they are new and the last draft was accepted, shorter n-grams are tried.
        tokens: most tokens drafted at once.
    """

    rereads_prefix: ClassVar = False

    def __init__(self, ngram: int = 3, tokens: int = 8) -> None:
        check_option("method: PromptLookup", "ngram", ngram, least=1)
        check_option("method: PromptLookup", "tokens", tokens, least=1)
        super().__init__(tokens)
        self.ngram = ngram

    def make_drafter(self, rows: Sequence[TrackedRow], params: SamplingParams) -> Drafter:
        return _LookupDrafter(self.ngram, rows)


class _LookupDrafter:
    """Index of the n-grams of each row, of at most `ngram` tokens, and the places that followed them."""

    def __init__(self, ngram: int, rows: Sequence[TrackedRow]) -> None:
        self.ngram = ngram
        self.followed: dict[int, dict[tuple[int, ...], int]] = {row.number: {} for row in rows}
        self.indexed = {row.number: 1 for row in rows}

    def propose(self, rows: Sequence[TrackedRow], state: RowState, most: Sequence[int]) -> list[list[int]]:
        """Propose the tokens that followed the last time."""
        return [self._propose(row, number) for row, number in zip(rows, most, strict=True)]

    def keep(self, rows: Sequence[TrackedRow], moves: Moves) -> None:
        """Do nothing: rows are known by their numbers."""

    def _propose(self, row: TrackedRow, most: int) -> list[int]:
        tokens, followed = row.tokens, self.followed[row.number]
        # If nothing repeats, short matches are chance, and rejected drafts cost time.
        shortest = self.ngram if len(tokens) == self.indexed[row.number] + 1 else 1
        for place in range(self.indexed[row.number], len(tokens)):
            for n in range(1, min(self.ngram, place) + 1):
                followed[tuple(tokens[place - n : place])] = place
        self.indexed[row.number] = len(tokens)
        for n in range(min(self.ngram, len(tokens)), shortest - 1, -1):
            then = followed.get(tuple(tokens[-n:]))
            if then is not None:
                # A draft may run into itself, so a short period repeats.
                period = len(tokens) - then
                return [tokens[then + step % period] for step in range(most)]
        return []
