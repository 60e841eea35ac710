"""Training windows that cover a text once an epoch, in another order each time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.loading.shuffled_order import ShuffledOrder
from lightning_xt.data.text.windows import SampledWindows, TokenArray


class ShuffledWindows(SampledWindows):
    """Windows that predict every token once an epoch; see `SampledWindows`.

    An epoch cuts the text into windows, one after the other, from an offset below `seq_len` that is drawn for it, and
    shuffles them. So the windows of another epoch end elsewhere. Fewer than two windows of tokens, at the beginning and
    the end of the text, are omitted in an epoch.

    Args:
        tokens: at least `seq_len + 1` tokens.
        seq_len: tokens that a window predicts; it holds one more.
        seed: chooses the sequence of windows, 0 to 2**64 - 1.
    """

    def __init__(self, tokens: TokenArray, seq_len: int, seed: int = 0) -> None:
        super().__init__(tokens, seq_len, seed)
        # One fewer than fit at an offset of 0, so that every epoch has the same number at any offset.
        self.per_epoch = max(1, len(tokens) // seq_len - 1)
        self._shifts = min(seq_len, len(tokens) - self.per_epoch * seq_len)
        self._order = ShuffledOrder(self.per_epoch, seed)

    def offsets(self, samples: Sequence[int]) -> NDArray[np.int64]:
        numbers = np.asarray([self._order.locate(sample) for sample in samples], dtype=np.int64)
        epochs = np.asarray([sample // self.per_epoch for sample in samples], dtype=np.uint64)
        # Another stream of random numbers for each epoch than that of the order.
        shifts = split_mix_64(split_mix_64(self.seed, epochs), [0]) % np.uint64(self._shifts)
        return numbers * self.seq_len + shifts.astype(np.int64)
