"""Tokenization of text pairs."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from lightning_xt.data.loading.progress import count_progress
from lightning_xt.data.pairs.pair_files import PairLines
from lightning_xt.data.pairs.pair_table import RaggedIds
from lightning_xt.data.tokenizers.base import Tokenizer
from lightning_xt.data.tokenizers.repetition import refuse_random

BLOCK = 10_000
"""Texts tokenized at once: lists of ids take many times the memory of an array."""
CHECKED = 100
"""Texts that are tokenized twice, to refuse a tokenizer that draws random numbers."""


class TokenizedPairs(NamedTuple):
    """Token ids of pairs, special tokens included.

    Args:
        source: the ids of each text and the end id.
        target: the start id, the ids of each text and the end id.
        too_long: number of pairs with a text that is too long.
    """

    source: RaggedIds
    target: RaggedIds
    too_long: int


def tokenize(
    lines: PairLines, source: Tokenizer, target: Tokenizer, max_length: int, too_long: Literal["drop", "truncate"]
) -> TokenizedPairs:
    """Tokenize pairs of texts; the target's tokenizer has a start and an end id.

    A pair with a text of more than `max_length` tokens, special tokens excluded, is dropped or its texts are cut.
    """
    sides = [_Side(source, [], _as_list(source.end)), _Side(target, _as_list(target.start), _as_list(target.end))]
    longer = 0
    blocks = range(0, len(lines.sources), BLOCK)
    for first in count_progress(blocks, f"tokenizing {len(lines.sources):,} pairs", len(blocks)):
        texts = (lines.sources[first : first + BLOCK], lines.targets[first : first + BLOCK])
        ids = [side.tokenizer.encode_batch(part) for side, part in zip(sides, texts, strict=True)]
        if first == 0:
            for side, part, rows in zip(sides, texts, ids, strict=True):
                refuse_random(side.tokenizer, part[:CHECKED], rows[:CHECKED])
        long = np.asarray([max(map(len, pair)) > max_length for pair in zip(*ids, strict=True)])
        longer += int(long.sum())
        keep = np.flatnonzero(~long) if too_long == "drop" else np.arange(len(long))
        for side, rows in zip(sides, ids, strict=True):
            side.add([rows[number][:max_length] for number in keep])
    return TokenizedPairs(sides[0].rows, sides[1].rows, longer)


class _Side:
    """Builder of the ids of one side."""

    def __init__(self, tokenizer: Tokenizer, before: list[int], after: list[int]) -> None:
        self.tokenizer = tokenizer
        self.before = before
        self.after = after
        self._ids = [np.zeros(0, dtype=np.int32)]
        self._lengths = [np.zeros(0, dtype=np.int64)]

    def add(self, texts: Sequence[list[int]]) -> None:
        """Append the ids of texts."""
        pad = self.tokenizer.pad
        if pad is not None and (text := next((text for text in texts if pad in text), None)):
            raise ValueError(
                f"--data.tokenizer {type(self.tokenizer).__name__} gives the padding id {pad} at place "
                f"{text.index(pad)} of a text, but the loss skips padding; let its encode give other ids"
            )
        rows = [[*self.before, *text, *self.after] for text in texts]
        self._ids.append(np.asarray([each for row in rows for each in row], dtype=np.int32))
        self._lengths.append(np.asarray([len(row) for row in rows], dtype=np.int64))

    @property
    def rows(self) -> RaggedIds:
        return RaggedIds.from_lengths(np.concatenate(self._ids), np.concatenate(self._lengths))


def _as_list(special: int | None) -> list[int]:
    return [] if special is None else [special]
