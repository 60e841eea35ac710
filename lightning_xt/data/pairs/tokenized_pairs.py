"""Texts of pairs turned into ids."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from lightning_xt.data.pairs.pair_files import PairLines
from lightning_xt.data.pairs.pair_table import Rows
from lightning_xt.data.tokenizers.base import Tokenizer

BLOCK = 10_000
"""Texts whose ids are lists at once, which takes many times the memory of an array."""


class Tokenized(NamedTuple):
    """Ids of pairs, special ones included.

    Args:
        source: the ids of each text and the end id.
        target: the start id, the ids of each text and the end id.
        too_long: how many pairs have a text of too many ids.
    """

    source: Rows
    target: Rows
    too_long: int


def tokenized(
    lines: PairLines, source: Tokenizer, target: Tokenizer, max_length: int, too_long: Literal["drop", "truncate"]
) -> Tokenized:
    """The pairs of all lines as ids.

    Args:
        lines: the texts.
        source: turns sources into ids.
        target: turns targets into ids; it has a start and an end id.
        max_length: ids that a text may have, special ones aside.
        too_long: whether a pair with a text of more ids is left out or its texts are cut.
    """
    sides = [_Side(source, [], _ids(source.end)), _Side(target, _ids(target.start), _ids(target.end))]
    longer = 0
    for first in range(0, len(lines.sources), BLOCK):
        texts = (lines.sources[first : first + BLOCK], lines.targets[first : first + BLOCK])
        ids = [side.tokenizer.encode_batch(part) for side, part in zip(sides, texts, strict=True)]
        long = np.asarray([max(map(len, pair)) > max_length for pair in zip(*ids, strict=True)])
        longer += int(long.sum())
        keep = np.flatnonzero(~long) if too_long == "drop" else np.arange(len(long))
        for side, rows in zip(sides, ids, strict=True):
            side.add([rows[number][:max_length] for number in keep])
    return Tokenized(sides[0].rows, sides[1].rows, longer)


class _Side:
    """The ids of one side as they come."""

    def __init__(self, tokenizer: Tokenizer, before: list[int], after: list[int]) -> None:
        self.tokenizer = tokenizer
        self.before = before
        self.after = after
        self._ids = [np.zeros(0, dtype=np.int32)]
        self._lengths = [np.zeros(0, dtype=np.int64)]

    def add(self, texts: Sequence[list[int]]) -> None:
        """Takes the ids of more texts."""
        rows = [[*self.before, *text, *self.after] for text in texts]
        self._ids.append(np.asarray([each for row in rows for each in row], dtype=np.int32))
        self._lengths.append(np.asarray([len(row) for row in rows], dtype=np.int64))

    @property
    def rows(self) -> Rows:
        return Rows.joined(np.concatenate(self._ids), np.concatenate(self._lengths))


def _ids(special: int | None) -> list[int]:
    return [] if special is None else [special]
