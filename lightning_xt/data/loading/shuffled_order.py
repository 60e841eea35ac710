"""Shuffled order of a data set."""

from typing import Any

import numpy as np

from lightning_xt.data.loading.random_numbers import split_mix_64


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
        if self._order[0] != epoch:
            numbers = np.arange(self.size, dtype=np.uint64) + np.uint64(epoch * self.size)
            self._order = epoch, np.argsort(split_mix_64(self.seed, numbers), kind="stable")
        return int(self._order[1][place])
