"""Batches of sequences of similar length within a token budget."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from lightning_xt.data.loading.random_numbers import split_mix_64

LEAST_WIDTH = 32
"""Smallest size of a sequence in the budget of an evaluation: the output of a short source may be long."""


class TokenBatches(Sampler[NDArray[np.int64]]):
    """Endless batches of pairs of similar length within a token budget, epoch by epoch.

    Every epoch takes every pair once. The grouping of pairs of equal length and the order of the batches are a pure
    function of the seed and the epoch. Global batches are cut first, by the budget of all processes together, and each
    of W processes takes every W-th pair. So one process trains on the same batches as several processes with the same
    total budget. If the pairs of a batch do not divide by W, some processes get one pair more.

    A position is the number of pairs in all batches before, over all epochs.

    Args:
        lengths: tokens of both sides of each pair, (pairs, 2); at least as many pairs as processes.
        max_tokens: tokens of the larger side of a batch of one process, padding included.
        seed: chooses the sequence of batches, 0 to 2**64 - 1.
        start: returns the first position; called at the start of each iteration (Lightning starts one every epoch).
        rank: number of this process, from 0.
        world: number of processes.
    """

    def __init__(
        self,
        lengths: NDArray[np.int64],
        max_tokens: int,
        *,
        seed: int = 0,
        start: Callable[[], int] = int,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.lengths = lengths
        self.seed = seed
        self.start = start
        self.rank = rank
        self.world = world
        # Shuffling swaps only pairs of equal length, so the batch sizes are the same in every epoch.
        order = _sort_by_length(lengths)[::-1]
        self.bounds = _balance_tail(_bound_batches(lengths[order].max(axis=1), max_tokens * world), world)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        epoch, batch = self._locate(self.start())
        while True:
            batches = self.epoch(epoch)
            for pairs in batches[batch:]:
                yield pairs[self.rank :: self.world]
            epoch, batch = epoch + 1, 0

    def samples_after(self, position: int, batches: int) -> int:
        """Return the position after a number of further batches."""
        if batches == 0:
            return position
        epoch, batch = self._locate(position)
        later, batch = divmod(batch + batches, len(self.bounds) - 1)
        return (epoch + later) * len(self.lengths) + int(self._batch_starts(epoch + later)[batch])

    def epoch(self, number: int) -> list[NDArray[np.int64]]:
        """Return the global batches of an epoch."""
        ties = split_mix_64(self._stream(number, 0), np.arange(len(self.lengths)))
        pairs = _sort_by_length(self.lengths, ties)[::-1]
        return [pairs[self.bounds[each] : self.bounds[each + 1]] for each in self._batch_order(number)]

    def _locate(self, position: int) -> tuple[int, int]:
        """Return epoch and number of the first batch that starts at or after a position."""
        epoch, pairs = divmod(position, len(self.lengths))
        batch = int(np.searchsorted(self._batch_starts(epoch), pairs))
        return (epoch, batch) if batch < len(self.bounds) - 1 else (epoch + 1, 0)

    def _batch_starts(self, epoch: int) -> NDArray[np.int64]:
        """Return the number of pairs of an epoch before each of its batches."""
        sizes = np.diff(self.bounds)[self._batch_order(epoch)]
        return np.cumsum(sizes) - sizes

    def _batch_order(self, epoch: int) -> NDArray[np.int64]:
        return np.argsort(split_mix_64(self._stream(epoch, 1), np.arange(len(self.bounds) - 1)))

    def _stream(self, epoch: int, purpose: int) -> NDArray[np.uint64]:
        return split_mix_64(self.seed, [2 * epoch + purpose])


def cut_by_count(lengths: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Cut sequences, shortest first, into batches of `size`; return the numbers of the sequences of each batch.

    The lengths are in tokens: (sequences,) or (sequences, 2).
    """
    order = _sort_by_length(lengths)
    return [order[first : first + size] for first in range(0, len(order), size)]


def cut_by_budget(lengths: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Cut sequences, shortest first, into batches within a token budget; return the numbers of each batch.

    The lengths are in tokens: (sequences,) or (sequences, 2). The budget `max_tokens` is for the larger side of a
    batch, padding included; a longer sequence is a batch by itself.
    """
    order = _sort_by_length(lengths)
    widths = np.atleast_2d(lengths.T).max(axis=0, initial=LEAST_WIDTH)
    bounds = _bound_batches(widths[order], max_tokens)
    return [order[start:stop] for start, stop in pairwise(bounds)]


def _sort_by_length(lengths: NDArray[np.int64], ties: NDArray[np.uint64] | None = None) -> NDArray[np.int64]:
    """Sort sequences by length, pairs by the length of the source, then of the target; return their numbers.

    Targets are sorted up and down in turn, so that neighbours are similar where the source length changes.
    """
    sides = np.atleast_2d(lengths.T)
    source, target = sides[0], sides[-1]
    last = np.arange(len(lengths), dtype=np.uint64) if ties is None else ties
    return np.lexsort((last, np.where(source % 2 == 1, target, -target), source))


def _bound_batches(widths: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Return the bounds of batches of as many neighbours as fit, padded to the widest; at least one each."""
    bounds = [0]
    while (first := bounds[-1]) < len(widths):
        most = max(1, budget // int(widths[first]))
        widest = np.maximum.accumulate(widths[first : first + most])
        fit = int(np.searchsorted(widest * np.arange(1, len(widest) + 1), budget, side="right"))
        bounds.append(first + max(1, fit))
    return np.asarray(bounds)


def _balance_tail(bounds: NDArray[np.int64], world: int) -> NDArray[np.int64]:
    """Split the last two batches evenly if the last is the smaller, so that it has a pair for each process.

    If there are too few pairs even so, merge the two.
    """
    if len(bounds) < 3 or bounds[-1] - bounds[-2] >= bounds[-2] - bounds[-3]:
        return bounds
    middle = -(-(bounds[-3] + bounds[-1]) // 2)
    inner = [middle] if bounds[-1] - middle >= world else []
    return np.asarray([*bounds[:-2], *inner, bounds[-1]])
