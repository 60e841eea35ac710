"""Random sequences of symbols, split so that no sequence is in two splits."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_xt.data.loading.random_numbers import split_mix_64

FIRST = 2
"""The id of the first symbol."""
SPLITS = ("test", "validation", "train")
"""Of ten sequences, one belongs to the first split, one to the second and eight to the last."""
FEW = 2000
"""Up to this number of different sequences, each is checked; with more, no split is empty."""
ATTEMPTS = 10_000
"""Candidates for a sequence, after which a split is empty."""


class Symbols(NamedTuple):
    """Sequences of ids.

    Args:
        ids: (sequences, longest), padded on the right by zeros.
        lengths: number of ids of each sequence.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]


class SymbolSequences:
    """Random sequences of a split; sequence n is a pure function of the seed and n.

    All lengths and all symbols are equally likely. The content of a sequence decides its split: sequence n is the first
    of a stream of random candidates that belongs to the split.

    Args:
        split: train, validation or test.
        num_symbols: number of different symbols.
        lengths: symbols of the shortest and the longest sequence, at least 1.
        seed: chooses the sequences, 0 to 2**64 - 1.

    Raises:
        ValueError: no sequence belongs to the split.
    """

    def __init__(self, split: str, num_symbols: int, lengths: tuple[int, int], seed: int) -> None:
        self.split = SPLITS.index(split)
        self.num_symbols = num_symbols
        self.lengths = lengths
        self.seed = seed
        if self._is_empty():
            raise ValueError(self._describe_shortage())

    def draw(self, numbers: NDArray[np.int64]) -> Symbols:
        """Draw the sequences of these numbers."""
        ids, lengths = draw_split(self._draw_candidates, SPLITS[self.split], numbers, self._describe_shortage())
        return Symbols(ids[:, : lengths.max(initial=0)], lengths)

    def _draw_candidates(self, numbers: NDArray[np.int64], attempt: int) -> Symbols:
        stream = split_mix_64(self.seed, [attempt * len(SPLITS) + self.split])
        least, most = self.lengths
        random = split_mix_64(split_mix_64(stream, numbers)[:, None], np.arange(most + 1))
        # The bias of the remainders is below 2**-40.
        lengths = least + (random[:, 0] % np.uint64(most - least + 1)).astype(np.int64)
        ids = FIRST + (random[:, 1:] % np.uint64(self.num_symbols)).astype(np.int64)
        return Symbols(np.where(np.arange(most) < lengths[:, None], ids, 0), lengths)

    def _describe_shortage(self) -> str:
        least, most = self.lengths
        return (
            f"--data.num_symbols {self.num_symbols} gives too few sequences of {least} to {most} symbols to leave any "
            f"for the {SPLITS[self.split]} split; set a larger --data.num_symbols or --data.max_length"
        )

    def _is_empty(self) -> bool:
        """Return True if there are few different sequences and none belongs to the split."""
        least, most = self.lengths
        counts = [self.num_symbols**length for length in range(least, min(most, least + FEW) + 1)]
        if sum(counts) > FEW:
            return False
        for length in range(least, most + 1):
            number = np.arange(self.num_symbols**length)[:, None]
            ids = FIRST + number // self.num_symbols ** np.arange(length) % self.num_symbols
            if (assign_splits(Symbols(ids, np.full(len(ids), length))) == self.split).any():
                return False
        return True


def draw_split(
    draw: Callable[[NDArray[np.int64], int], tuple[NDArray[Any], ...]],
    split: str,
    numbers: NDArray[np.int64],
    shortage: str,
) -> tuple[NDArray[Any], ...]:
    """Draw the sequences of these numbers: each the first of a stream of candidates that belongs to the split.

    Args:
        draw: from numbers of sequences and of an attempt to arrays with a row for each: its ids, its length and more.
        split: train, validation or test.
        numbers: numbers of the sequences.
        shortage: message if no candidate belongs to the split.

    Raises:
        ValueError: no candidate belongs to the split.
    """
    found = draw(numbers, 0)
    fits = assign_splits(Symbols(*found[:2])) == SPLITS.index(split)
    pending = np.flatnonzero(~fits)
    for attempt in range(1, ATTEMPTS):
        if not len(pending):
            return found
        candidates = draw(numbers[pending], attempt)
        fits = assign_splits(Symbols(*candidates[:2])) == SPLITS.index(split)
        for kept, new in zip(found, candidates, strict=True):
            kept[pending[fits]] = new[fits]
        pending = pending[~fits]
    raise ValueError(shortage)


def assign_splits(symbols: Symbols) -> NDArray[np.int64]:
    """Return the index in `SPLITS` of each sequence's split, independent of the padding."""
    ids, lengths = symbols
    terms = split_mix_64(ids.astype(np.uint64), np.arange(ids.shape[1]))
    whole = np.where(ids == 0, np.uint64(0), terms).sum(axis=1, dtype=np.uint64)
    tenth = split_mix_64(whole, lengths) % np.uint64(10)
    return np.minimum(tenth, np.uint64(len(SPLITS) - 1)).astype(np.int64)
