"""Which pairs go into which batch, those of like length together."""

from collections.abc import Callable, Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Sampler

from lightning_xt.data.text.windows import split_mix_64

LEAST_WIDTH = 32
"""A sequence to evaluate counts for so many ids at least: what is written for a short one may be long."""


class TokenBatches(Sampler[NDArray[np.int64]]):
    """Cuts pairs into batches of like length by a budget of ids, epoch by epoch without end.

    Every epoch takes every pair once. Which pairs of equal length share a batch, and the order of the batches, are a
    pure function of the seed and the epoch. Global batches are cut first, by the budgets of all processes together,
    and of W processes each takes every W-th pair. So one process trains on the same batches as several that have the
    same budget together. Where the pairs of a batch do not divide, some processes have one more than others.

    The position is the number of pairs in the batches before, all epochs together.

    Args:
        lengths: ids of both sides of each pair, (pairs, 2); at least as many pairs as processes.
        max_tokens: padded ids that the larger side of a batch of one process may have.
        seed: chooses the sequence of batches, 0 to 2**64 - 1.
        start: the position to begin at, asked each time an iteration begins, as Lightning begins one with every epoch.
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
        # Sorted by length, pairs of equal length may change places, so the sizes of batches are those of every epoch.
        order = _by_length(lengths)[::-1]
        self.bounds = _evened(_cut(lengths[order].max(axis=1), max_tokens * world), world)

    def __iter__(self) -> Iterator[NDArray[np.int64]]:
        epoch, batch = self._place(self.start())
        while True:
            batches = self.epoch(epoch)
            for pairs in batches[batch:]:
                yield pairs[self.rank :: self.world]
            epoch, batch = epoch + 1, 0

    def samples_after(self, position: int, batches: int) -> int:
        """The position after so many batches more."""
        if batches == 0:
            return position
        epoch, batch = self._place(position)
        later, batch = divmod(batch + batches, len(self.bounds) - 1)
        return (epoch + later) * len(self.lengths) + int(self._starts(epoch + later)[batch])

    def epoch(self, number: int) -> list[NDArray[np.int64]]:
        """The global batches of an epoch."""
        ties = split_mix_64(self._stream(number, 0), np.arange(len(self.lengths)))
        pairs = _by_length(self.lengths, ties)[::-1]
        return [pairs[self.bounds[each] : self.bounds[each + 1]] for each in self._order(number)]

    def _place(self, position: int) -> tuple[int, int]:
        """Epoch and number of the first batch that begins at the position or, had batches another size, after it."""
        epoch, pairs = divmod(position, len(self.lengths))
        batch = int(np.searchsorted(self._starts(epoch), pairs))
        return (epoch, batch) if batch < len(self.bounds) - 1 else (epoch + 1, 0)

    def _starts(self, epoch: int) -> NDArray[np.int64]:
        """Pairs of an epoch before each of its batches."""
        sizes = np.diff(self.bounds)[self._order(epoch)]
        return np.cumsum(sizes) - sizes

    def _order(self, epoch: int) -> NDArray[np.int64]:
        return np.argsort(split_mix_64(self._stream(epoch, 1), np.arange(len(self.bounds) - 1)))

    def _stream(self, epoch: int, purpose: int) -> NDArray[np.uint64]:
        return split_mix_64(self.seed, [2 * epoch + purpose])


def by_count(lengths: NDArray[np.int64], size: int) -> list[NDArray[np.int64]]:
    """Numbers of the sequences in each batch of `size`, the shortest first.

    Args:
        lengths: of the sequences, (sequences,) or (sequences, 2).
        size: sequences a batch.
    """
    order = _by_length(lengths)
    return [order[first : first + size] for first in range(0, len(order), size)]


def by_budget(lengths: NDArray[np.int64], max_tokens: int) -> list[NDArray[np.int64]]:
    """Numbers of the sequences in each batch to evaluate, the shortest first.

    Args:
        lengths: of the sequences, (sequences,) or (sequences, 2).
        max_tokens: padded ids that the larger side of a batch may have; one that has more is alone.
    """
    order = _by_length(lengths)
    widths = np.atleast_2d(lengths.T).max(axis=0, initial=LEAST_WIDTH)
    bounds = _cut(widths[order], max_tokens)
    return [order[start:stop] for start, stop in pairwise(bounds)]


def _by_length(lengths: NDArray[np.int64], ties: NDArray[np.uint64] | None = None) -> NDArray[np.int64]:
    """Numbers of the sequences by their length, of pairs by that of the source, then of the target.

    Targets are sorted upwards and downwards in turn, so that neighbours are alike where the source's length changes.
    """
    sides = np.atleast_2d(lengths.T)
    source, target = sides[0], sides[-1]
    last = np.arange(len(lengths), dtype=np.uint64) if ties is None else ties
    return np.lexsort((last, np.where(source % 2 == 1, target, -target), source))


def _cut(widths: NDArray[np.int64], budget: int) -> NDArray[np.int64]:
    """Bounds of batches of as many neighbours as fit, each padded to the widest; one at least."""
    bounds = [0]
    while (first := bounds[-1]) < len(widths):
        most = max(1, budget // int(widths[first]))
        widest = np.maximum.accumulate(widths[first : first + most])
        fit = int(np.searchsorted(widest * np.arange(1, len(widest) + 1), budget, side="right"))
        bounds.append(first + max(1, fit))
    return np.asarray(bounds)


def _evened(bounds: NDArray[np.int64], world: int) -> NDArray[np.int64]:
    """The bounds, where the last two batches share their pairs evenly if the last is the smaller.

    So it has a pair for each process, as the others have. Where there are too few even so, the two are one.
    """
    if len(bounds) < 3 or bounds[-1] - bounds[-2] >= bounds[-2] - bounds[-3]:
        return bounds
    middle = -(-(bounds[-3] + bounds[-1]) // 2)
    inner = [middle] if bounds[-1] - middle >= world else []
    return np.asarray([*bounds[:-2], *inner, bounds[-1]])
