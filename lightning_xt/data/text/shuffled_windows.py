"""Training windows that cover a text once an epoch, in another order each time."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.loading.shuffled_order import ShuffledOrder
from lightning_xt.data.text.windows import TokenArray


class ShuffledWindows(Dataset[Tensor]):
    """Training windows that predict every token once an epoch; window n is a pure function of the seed and n.

    An epoch cuts the text into windows, one after the other, from an offset below `seq_len` that is drawn for it, and
    shuffles them. So the windows of another epoch end elsewhere. Fewer than two windows of tokens, at the beginning and
    the end of the text, are omitted in an epoch.

    Args:
        tokens: at least `seq_len + 1` tokens.
        seq_len: tokens that a window predicts; it holds one more.
        seed: chooses the sequence of windows, 0 to 2**64 - 1.
    """

    def __init__(self, tokens: TokenArray, seq_len: int, seed: int = 0) -> None:
        self.tokens, self.seq_len, self.seed = tokens, seq_len, seed
        # One fewer than fit at an offset of 0, so that every epoch has the same number at any offset.
        self.per_epoch = max(1, len(tokens) // seq_len - 1)
        self._shifts = min(seq_len, len(tokens) - self.per_epoch * seq_len)
        self._order = ShuffledOrder(self.per_epoch, seed)

    def offsets(self, samples: Sequence[int]) -> NDArray[np.int64]:
        """Return the offset of the first token of each sample."""
        numbers = np.asarray([self._order.locate(sample) for sample in samples], dtype=np.int64)
        epochs = np.asarray([sample // self.per_epoch for sample in samples], dtype=np.uint64)
        # Another stream of random numbers for each epoch than that of the order.
        shifts = split_mix_64(split_mix_64(self.seed, epochs), [0]) % np.uint64(self._shifts)
        return numbers * self.seq_len + shifts.astype(np.int64)

    def place(self, samples: Sequence[int]) -> None:
        """Return None: shuffled windows continue no earlier ones."""

    def __getitem__(self, sample: int) -> Int[Tensor, " n"]:
        """Return window `sample`, n = seq_len + 1."""
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> Int[Tensor, "b n"]:
        """Gather the windows of a batch at once, n = seq_len + 1."""
        index = self.offsets(samples)[:, None] + np.arange(self.seq_len + 1)
        return torch.from_numpy(self.tokens[index].astype(np.int64))
