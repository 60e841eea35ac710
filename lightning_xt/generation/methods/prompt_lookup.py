from collections.abc import Sequence
from typing import ClassVar

from lightning_xt.generation.batching.row_state import RowState
from lightning_xt.generation.methods.speculative_decoding import Drafter, SpeculativeDecoding
from lightning_xt.generation.requests import SamplingParams
from lightning_xt.generation.search.repetition_index import RepetitionIndex
from lightning_xt.generation.search.speculated_rows import Moves, TrackedRow
from lightning_xt.system.option_checks import check_option


class PromptLookup(SpeculativeDecoding):
    """Speculative decoding that drafts the tokens which followed the last occurrence of the newest n-gram.

    Saxena, 2023. https://github.com/apoorvumang/prompt-lookup-decoding
    The completion equals that of plain decoding, token for token, with the same seed; if it repeats itself or its
    prompt, it takes fewer forwards. Departs from the original in that the occurrence with the longest repetition is
    chosen, and drafts are as long as recent predictions were right: without repetition nothing is drafted. A model with
    a running state cannot roll back rejected drafts and is refused.

    Args:
        ngram: newest tokens to look up.
        tokens: most tokens drafted at once.
    """

    rereads_prefix: ClassVar = False

    def __init__(self, ngram: int = 3, tokens: int = 24) -> None:
        check_option("method: PromptLookup", "ngram", ngram, least=1)
        check_option("method: PromptLookup", "tokens", tokens, least=1)
        super().__init__(tokens)
        self.ngram = ngram

    def make_drafter(self, rows: Sequence[TrackedRow], params: SamplingParams) -> Drafter:
        return _LookupDrafter(self.ngram, rows)


class _LookupDrafter:
    """Drafter with an index of each row, which drafts as many tokens as save most time."""

    def __init__(self, ngram: int, rows: Sequence[TrackedRow]) -> None:
        self.indices = {row.number: RepetitionIndex(ngram) for row in rows}

    def propose(self, rows: Sequence[TrackedRow], state: RowState, most: Sequence[int]) -> list[list[int]]:
        """Propose the tokens that followed the longest repetition, of most rows one number."""
        indices = [self.indices[row.number] for row in rows]
        for row, index in zip(rows, indices, strict=True):
            index.extend(row.tokens[len(index.tokens) :])
        number = choose_length([index.predict(limit) for index, limit in zip(indices, most, strict=True)])
        return [index.draft(min(number, limit)) for index, limit in zip(indices, most, strict=True)]

    def keep(self, rows: Sequence[TrackedRow], moves: Moves) -> None:
        """Do nothing: rows are known by their numbers."""


def choose_length(expected: Sequence[Sequence[float]]) -> int:
    """Return the length of drafts by which most tokens are generated in a time; 0 if drafts do not pay.

    Args:
        expected: of each row, how many tokens of a draft of 1, 2, ... tokens are accepted on average.
    """
    rows = len(expected)
    best, speed = 0, rows / estimate_time(rows, 1)
    for number in range(1, max(map(len, expected)) + 1):
        accepted = sum(each[min(number, len(each)) - 1] for each in expected if each)
        if (rows + accepted) / estimate_time(rows, number + 1) > speed:
            best, speed = number, (rows + accepted) / estimate_time(rows, number + 1)
    return best


def estimate_time(rows: int, tokens: int) -> float:
    """Estimate the time of a step of several tokens a row, relative to one of one token in one row.

    Measured on a CPU, between float32, where drafts cost less, and int8, where they cost more. Estimated and not timed,
    so that a text is always decoded by the same steps.
    """
    return 1.0 if rows == tokens == 1 else 1.6 + 0.1 * (rows - 1) + 0.1 * rows * tokens
