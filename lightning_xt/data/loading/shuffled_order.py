"""Shuffled order of a data set."""

from typing import Any

import numpy as np

from lightning_xt.data.loading.random_numbers import split_mix_64

MOST_SORTED = 2**24
"""Most items whose order is held in memory, 8 bytes each; that of more is computed item by item."""
ROUNDS = 6


class ShuffledOrder:
    """Endless order of items: each epoch has every item once, and sample n is a pure function of the seed and n.

    Args:
        size: number of items, at least one.
        seed: chooses the order, 0 to 2**64 - 1.
    """

    def __init__(self, size: int, seed: int) -> None:
        self.size, self.seed = size, seed
        self._order: tuple[int, Any] = (-1, None)

    def locate(self, sample: int) -> int:
        """Return the item of a sample."""
        epoch, place = divmod(sample, self.size)
        large = self.size > MOST_SORTED
        if self._order[0] != epoch:
            numbers = np.arange(ROUNDS if large else self.size, dtype=np.uint64) + np.uint64(epoch * self.size)
            drawn = split_mix_64(self.seed, numbers)
            self._order = epoch, drawn.tolist() if large else np.argsort(drawn, kind="stable")
        return _permute(place, self.size, self._order[1]) if large else int(self._order[1][place])


def _permute(number: int, size: int, keys: list[int]) -> int:
    """Return the number that takes the place of one below `size`, by a permutation that keys choose.

    A Feistel network permutes the numbers of an even number of bits; one that leaves the range is permuted again.
    """
    half = ((size - 1).bit_length() + 1) // 2
    mask = (1 << half) - 1
    while True:
        left, right = number >> half, number & mask
        for key in keys:
            left, right = right, left ^ (_mix(right ^ key) & mask)
        number = left << half | right
        if number < size:
            return number


def _mix(z: int) -> int:
    """Apply SplitMix64's output function to 64 bits."""
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
    return z ^ (z >> 31)
