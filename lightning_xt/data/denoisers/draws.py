"""Random numbers of one sample."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lightning_xt.data.loading.random_numbers import split_mix_64


@dataclass
class Draws:
    """Random numbers of one sample, one after another, as a pure function of its seed.

    Args:
        seed: seed of the sample.
        used: number of those that are drawn already.
    """

    seed: int
    used: int = 0

    def draw_bits(self, count: int) -> NDArray[np.uint64]:
        """Draw 64 random bits, several times."""
        numbers = np.arange(self.used, self.used + count)
        self.used += count
        return split_mix_64(self.seed, numbers)

    def draw_uniform(self, count: int) -> NDArray[np.float64]:
        """Draw numbers from 0, inclusive, to 1."""
        return (self.draw_bits(count) >> np.uint64(11)).astype(np.float64) / 2**53

    def choose(self, count: int, among: int) -> NDArray[np.int64]:
        """Choose some of the numbers 0 .. among - 1, each once, in ascending order; all choices are equally likely."""
        order: NDArray[np.int64] = np.argsort(self.draw_bits(among), kind="stable")
        return np.sort(order[:count])

    def split(self, total: int, parts: int) -> NDArray[np.int64]:
        """Split a total into parts of at least 1; all ways to do so are equally likely."""
        ends = np.concatenate(([0], self.choose(parts - 1, total - 1) + 1, [total]))
        return np.diff(ends)
