"""Fixed-length windows of a long array of tokens: at random for training, all of them once for evaluation."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Int
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset

from lightning_xt.core.batch import EvaluationBatch


@runtime_checkable
class TokenArray(Protocol):
    """Tokens that can be measured and gathered: a numpy array, or `MappedBytes`."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: NDArray[np.int64]) -> NDArray[np.uint8]: ...


class TrainingWindows(Dataset[Tensor]):
    """Window n starts at an offset that depends on the seed and n alone, each offset equally likely.

    There is no end: any n from 0 to 2**64 - 1 is a sample. There is no state either, so it does not matter which
    process asks for which n.

    Args:
        tokens: at least `seq_len + 1` tokens.
        seq_len: tokens a window predicts; it holds one more.
        seed: chooses the sequence of offsets, 0 to 2**64 - 1.
    """

    def __init__(self, tokens: TokenArray, seq_len: int, seed: int = 0) -> None:
        self.tokens = tokens
        self.seq_len = seq_len
        self.seed = seed

    def offsets(self, samples: Sequence[int]) -> NDArray[np.int64]:
        """First token of each of the samples."""
        # The bias of the remainder is below (number of offsets) / 2**64.
        choices = np.uint64(len(self.tokens) - self.seq_len)
        return np.asarray(split_mix_64(self.seed, samples) % choices, dtype=np.int64)

    def __getitem__(self, sample: int) -> Int[Tensor, " n"]:
        """Window `sample`, n = seq_len + 1."""
        return self.__getitems__([sample])[0]

    def __getitems__(self, samples: Sequence[int]) -> Int[Tensor, "b n"]:
        """The windows of a batch, gathered at once, n = seq_len + 1."""
        index = self.offsets(samples)[:, None] + np.arange(self.seq_len + 1)
        return torch.from_numpy(self.tokens[index].astype(np.int64))


class EvaluationWindows(Dataset[EvaluationBatch]):
    """Cuts a split so that every token but the first is predicted exactly once.

        seq_len 4, stride 2, 10 tokens     . context   x predicted and counted here

        token      0 1 2 3 4 5 6 7 8 9
        window 0   . x x x x
        window 1       . . . x x
        window 2           . . . x x
        window 3               . . . x     and one token of padding

    Window 0 counts all its targets, each later one its last `stride`, which have at least `seq_len - stride + 1`
    tokens before them. A window past the last has nothing to count, which is `scored` all False.

    Args:
        tokens: at least 2 tokens.
        seq_len: tokens a window predicts; it holds one more.
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
        """Window `window`, as a batch of one."""
        return self.__getitems__([window])

    def __getitems__(self, windows: Sequence[int]) -> EvaluationBatch:
        """The windows of a batch, gathered at once."""
        number = np.asarray(windows, dtype=np.int64)[:, None]
        index = number * self.stride + np.arange(self.seq_len + 1)
        exists = index < len(self.tokens)
        tokens = np.where(exists, self.tokens[np.minimum(index, len(self.tokens) - 1)], 0)
        new = (number == 0) | (np.arange(self.seq_len) >= self.seq_len - self.stride)
        scored: Bool[Tensor, "b n"] = torch.from_numpy(new & exists[:, 1:])
        return EvaluationBatch(torch.from_numpy(tokens.astype(np.int64)), scored)


def split_mix_64(
    seed: int | NDArray[np.uint64], numbers: Sequence[int] | NDArray[np.uint64] | NDArray[np.int64]
) -> NDArray[np.uint64]:
    """Numbers `numbers` of the SplitMix64 generator that `seed` starts: 64 random bits that need no earlier ones.

    Many seeds at once are an array that is broadcast against that of the numbers.

    Steele, Lea and Flood 2014, https://doi.org/10.1145/2660193.2660195. Its start is itself a hash of the seed,
    so that seeds that lie close together share no stretch of their sequences.
    """
    golden = np.uint64(0x9E3779B97F4A7C15)
    start = _mix(np.atleast_1d(np.asarray(seed, dtype=np.uint64)))
    return _mix(start + (np.asarray(numbers, dtype=np.uint64) + np.uint64(1)) * golden)


def _mix(z: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's output function (Stafford's variant 13 of the MurmurHash3 finalizer), modulo 2**64."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(z ^ (z >> np.uint64(31)))
