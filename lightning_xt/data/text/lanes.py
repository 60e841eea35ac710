"""Lanes: contiguous parts of a long token array, whose windows the rows of successive batches read in order."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_xt.core.batch import LaneBatch
from lightning_xt.data.loading.random_numbers import split_mix_64
from lightning_xt.data.text.windows import EvaluationWindows, TokenArray


class TrainingLanes(Dataset[LaneBatch]):
    """Training windows in the order of the text, a pure function of the seed, the number of lanes and n.

        12 tokens, 2 lanes, seq_len 2, offset 1     . context   x predicted     a number is that of the sample

        token        0 1 2 3 4 5 6 7 8 9 10 11
        lane 0       0   . x x
                     2       . x x
        lane 1       1           . x x
                     3               . x x

    A pass over the text ends in all lanes at once. The next pass has another offset, so that each token comes to any
    place of a window.

    Args:
        tokens: at least `count_needed(seq_len, lanes)` tokens.
        seq_len: tokens that a window predicts; it holds one more, the first of the lane's next window.
        seed: chooses the offset of each pass, 0 to 2**64 - 1.
        lanes: number of lanes, the samples of an optimizer step.
        batch: samples of a batch of all processes; divides `lanes`.
    """

    def __init__(self, tokens: TokenArray, seq_len: int, seed: int, *, lanes: int, batch: int) -> None:
        self.tokens = tokens
        self.seq_len = seq_len
        self.seed = seed
        self.lanes = lanes
        self.batch = batch
        self.length = (len(tokens) - seq_len) // (lanes * seq_len)
        """Windows of a lane in one pass."""
        self._offsets = np.uint64(len(tokens) - lanes * self.length * seq_len)
        """Number of different offsets, at least `seq_len`."""

    def offsets(self, samples: Sequence[int]) -> NDArray[np.int64]:
        """Return the offset of the first token of each sample."""
        turn, lane = np.divmod(np.asarray(samples, dtype=np.uint64), np.uint64(self.lanes))
        number, window = np.divmod(turn, np.uint64(self.length))
        begin = split_mix_64(self.seed, number) % self._offsets
        return np.asarray(begin + (lane * np.uint64(self.length) + window) * np.uint64(self.seq_len), dtype=np.int64)

    def place(self, samples: Sequence[int]) -> tuple[bool, int]:
        """Return whether the samples of a batch begin a pass, and the batch's number in its step."""
        turn, lane = divmod(samples[0], self.lanes)
        return turn % self.length == 0, lane // self.batch

    def __getitem__(self, sample: int) -> LaneBatch:
        """Return window `sample`, as a batch of one."""
        return self.__getitems__([sample])

    def __getitems__(self, samples: Sequence[int]) -> LaneBatch:
        """Gather the windows of a batch at once."""
        index = self.offsets(samples)[:, None] + np.arange(self.seq_len + 1)
        tokens: Int[Tensor, "b n"] = torch.from_numpy(self.tokens[index].astype(np.int64))
        return LaneBatch(tokens, None, *self.place(samples))


class EvaluationLanes(Dataset[LaneBatch]):
    """Windows of a split in which every token but the first is predicted exactly once, in lanes of successive windows.

    Window w is number w % `length` of lane w // `length`. The windows past the last score nothing.

    Args:
        tokens: at least 2 tokens.
        seq_len: tokens that a window predicts; it holds one more.
        lanes: most lanes.
    """

    def __init__(self, tokens: TokenArray, seq_len: int, lanes: int) -> None:
        self.windows = EvaluationWindows(tokens, seq_len)
        self.length = -(-len(self.windows) // lanes)
        """Windows of a lane."""
        self.lanes = -(-len(self.windows) // self.length)

    def __getitem__(self, window: int) -> LaneBatch:
        """Return window `window`, as a batch of one."""
        return self.__getitems__([window])

    def __getitems__(self, windows: Sequence[int]) -> LaneBatch:
        """Gather the windows of a batch at once."""
        return LaneBatch(*self.windows.__getitems__(windows), begins=windows[0] % self.length == 0)


def count_needed(seq_len: int, lanes: int) -> int:
    """Return the tokens of a text that is long enough for its lanes: a window each, and room for all offsets."""
    return (lanes + 1) * seq_len
