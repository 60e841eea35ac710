"""Random numbers of a probe's sequences."""

import numpy as np
from numpy.typing import NDArray

from lightning_xt.data.loading.random_numbers import split_mix_64

Ids = NDArray[np.int64]


class Draws:
    """Random numbers of some sequences, each a pure function of the sequence's seed, a purpose and a place.

    Args:
        seeds: seed of each sequence.
    """

    def __init__(self, seeds: NDArray[np.uint64]) -> None:
        self.seeds = seeds

    def draw_integers(self, purpose: int, count: int, limit: int) -> Ids:
        """Draw `count` integers from 0 to `limit` - 1 for each sequence."""
        # The bias of the remainders is below 2**-40.
        return (self._draw_bits(purpose, count) % np.uint64(limit)).astype(np.int64)

    def shuffle(self, purpose: int, count: int, valid: NDArray[np.bool_] | None = None) -> Ids:
        """Shuffle the integers from 0 to `count` - 1 for each sequence; those that are not valid come last."""
        bits = self._draw_bits(purpose, count)
        if valid is not None:
            bits = np.where(valid, bits >> np.uint64(1), np.iinfo(np.uint64).max)
        return np.argsort(bits, axis=1, kind="stable")

    def _draw_bits(self, purpose: int, count: int) -> NDArray[np.uint64]:
        return split_mix_64(split_mix_64(self.seeds, [purpose])[:, None], np.arange(count))
