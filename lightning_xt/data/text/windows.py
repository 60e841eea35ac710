"""Fixed-length windows of a long token array: random for training, each token once for evaluation."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_xt.core.batch import EvaluationBatch
from lightning_xt.data.loading.random_numbers import split_mix_64


@runtime_checkable
class TokenArray(Protocol):
    """An array of tokens with a length and integer indexing: a numpy array, or `MappedTokens`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.unsignedinteger]: ...


class SampledWindows(Dataset[Tensor], ABC):
    """Training windows of which any n from 0 to 2**64 - 1 is a sample, as a pure function of the seed and n.

    There is no state, so any process can read any n.

    Args:
        tokens: at least `seq_len + 1` tokens.
        seq_len: tokens that a window predicts; it holds one more.
        seed: chooses the sequence of offsets, 0 to 2**64 - 1.
    """

    def __init__(self, tokens: TokenArray, seq_len: int, seed: int = 0) -> None:
        self.tokens, self.seq_len, self.seed = tokens, seq_len, seed

    @abstractmethod
    def offsets(self, samples: Sequence[int]) -> NDArray[np.int64]:
        """Return the offset of the first token of each sample."""

    def place(self, samples: Sequence[int]) -> None:
        """Return None: such windows continue no earlier ones."""

    def __getitem__(self, sample: int) -> Int[Tensor, " n"]:
        """Return window `sample`, n = seq_len + 1."""
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> Int[Tensor, "b n"]:
        """Gather the windows of a batch at once, n = seq_len + 1."""
        index = self.offsets(samples)[:, None] + np.arange(self.seq_len + 1)
        return torch.from_numpy(self.tokens[index].astype(np.int64))


class TrainingWindows(SampledWindows):
    """Windows at random offsets, all equally likely; see `SampledWindows`."""

    def offsets(self, samples: Sequence[int]) -> NDArray[np.int64]:
        # The bias of the remainder is below (number of offsets) / 2**64.
        choices = np.uint64(len(self.tokens) - self.seq_len)
        return np.asarray(split_mix_64(self.seed, samples) % choices, dtype=np.int64)


class EvaluationWindows(Dataset[EvaluationBatch]):
    """Windows of a split in which every token but the first is predicted exactly once.

        seq_len 4, stride 2, 10 tokens     . context   x predicted and counted here

        token      0 1 2 3 4 5 6 7 8 9
        window 0   . x x x x
        window 1       . . . x x
        window 2           . . . x x
        window 3               . . . x     and one token of padding

    Window 0 scores all its targets, each later window its last `stride` targets, which have at least
    `seq_len - stride + 1` tokens before them. A window past the last scores none: `scored` is False everywhere.

    Args:
        tokens: at least 2 tokens.
        seq_len: tokens that a window predicts; it holds one more.
        stride: tokens from one window to the next, 1 to `seq_len`; None means `seq_len`.
    """

    def __init__(self, tokens: TokenArray, seq_len: int, stride: int | None = None) -> None:
        self.tokens = tokens
        self.seq_len = seq_len
        self.stride = seq_len if stride is None else stride

    def __len__(self) -> int:
        after_the_first = max(0, len(self.tokens) - 1 - self.seq_len)
        return 1 + -(-after_the_first // self.stride)

    def __getitem__(self, window: int) -> EvaluationBatch:
        """Return window `window`, as a batch of one."""
        return self.__getitems__([window])

    def __getitems__(self, windows: Sequence[int]) -> EvaluationBatch:
        """Gather the windows of a batch at once."""
        number = np.asarray(windows, dtype=np.int64)[:, None]
        index = number * self.stride + np.arange(self.seq_len + 1)
        exists = index < len(self.tokens)
        tokens = np.where(exists, self.tokens[np.minimum(index, len(self.tokens) - 1)], 0)
        new = (number == 0) | (np.arange(self.seq_len) >= self.seq_len - self.stride)
        scored: Bool[Tensor, "b n"] = torch.from_numpy(new & exists[:, 1:])
        return EvaluationBatch(torch.from_numpy(tokens.astype(np.int64)), scored)
