"""Random sequences of symbols, none of which is in two splits."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lightning_xt.data.text.windows import split_mix_64

FIRST = 2
"""The id of the first symbol."""
SPLITS = ("test", "validation", "train")
"""Of ten sequences one is for the first, one for the second, and the others for the last."""
FEW = 2000
"""So many different sequences are looked through one by one; of more, every split has some."""


class Symbols(NamedTuple):
    """Sequences of ids.

    Args:
        ids: (sequences, longest), padded on the right by zeros.
        lengths: of each.
    """

    ids: NDArray[np.int64]
    lengths: NDArray[np.int64]


class SymbolSequences:
    """Sequence n of a split, a pure function of the seed and n: lengths and symbols are equally likely.

    A sequence belongs to one split by what it holds. Of a sequence of random candidates, n is the first that belongs
    to the split asked for.

    Args:
        split: train, validation or test.
        num_symbols: how many different symbols there are.
        lengths: the least and the most symbols of a sequence, at least 1.
        seed: chooses the sequences, 0 to 2**64 - 1.

    Raises:
        ValueError: no sequence belongs to the split.
    """

    def __init__(self, split: str, num_symbols: int, lengths: tuple[int, int], seed: int) -> None:
        self.split = SPLITS.index(split)
        self.num_symbols = num_symbols
        self.lengths = lengths
        self.seed = seed
        if self._is_empty():
            least, most = lengths
            raise ValueError(
                f"data.num_symbols {num_symbols} makes so few sequences of {least} to {most} symbols that none is left "
                f"for the {split} split; set a larger --data.num_symbols or --data.max_length"
            )

    def draw(self, numbers: NDArray[np.int64]) -> Symbols:
        """The sequences of these numbers."""
        ids = np.zeros((len(numbers), self.lengths[1]), dtype=np.int64)
        lengths = np.zeros(len(numbers), dtype=np.int64)
        pending, attempt = np.arange(len(numbers)), 0
        while len(pending):
            candidates = self._candidates(numbers[pending], attempt)
            fits = split_of(candidates) == self.split
            taken = pending[fits]
            ids[taken], lengths[taken] = candidates.ids[fits], candidates.lengths[fits]
            pending, attempt = pending[~fits], attempt + 1
        return Symbols(ids[:, : lengths.max(initial=0)], lengths)

    def _candidates(self, numbers: NDArray[np.int64], attempt: int) -> Symbols:
        stream = split_mix_64(self.seed, [attempt * len(SPLITS) + self.split])
        least, most = self.lengths
        random = split_mix_64(split_mix_64(stream, numbers)[:, None], np.arange(most + 1))
        # The bias of the remainders is below 2**-40.
        lengths = least + (random[:, 0] % np.uint64(most - least + 1)).astype(np.int64)
        ids = FIRST + (random[:, 1:] % np.uint64(self.num_symbols)).astype(np.int64)
        return Symbols(np.where(np.arange(most) < lengths[:, None], ids, 0), lengths)

    def _is_empty(self) -> bool:
        """Whether there are few sequences, and none of them belongs to the split."""
        least, most = self.lengths
        counts = [self.num_symbols**length for length in range(least, min(most, least + FEW) + 1)]
        if sum(counts) > FEW:
            return False
        for length in range(least, most + 1):
            number = np.arange(self.num_symbols**length)[:, None]
            ids = FIRST + number // self.num_symbols ** np.arange(length) % self.num_symbols
            if (split_of(Symbols(ids, np.full(len(ids), length))) == self.split).any():
                return False
        return True


def split_of(symbols: Symbols) -> NDArray[np.int64]:
    """The number in `SPLITS` of the split that each sequence belongs to, whatever the padding."""
    ids, lengths = symbols
    terms = split_mix_64(ids.astype(np.uint64), np.arange(ids.shape[1]))
    whole = np.where(ids == 0, np.uint64(0), terms).sum(axis=1, dtype=np.uint64)
    share = split_mix_64(whole, lengths) % np.uint64(10)
    return np.minimum(share, np.uint64(len(SPLITS) - 1)).astype(np.int64)
