"""Memory-mapped tokens, one, two or four bytes each."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

TokenType = type[np.uint8] | type[np.uint16] | type[np.uint32]


def choose_token_type(vocab_size: int) -> TokenType:
    """Return the smaller of uint16 and uint32 that holds all ids of a vocabulary."""
    return np.uint16 if vocab_size <= 1 << 16 else np.uint32


class MappedTokens:
    """A range of a file as a memory-mapped array of unsigned integers.

    The file is mapped at the first access; a pickled copy for a worker process holds the path, not the content.

    Args:
        path: the file, of little-endian numbers.
        start: first token of the range.
        stop: token after the range; None ends it with the file.
        dtype: type of a token.
    """

    def __init__(self, path: Path, start: int = 0, stop: int | None = None, dtype: TokenType = np.uint8) -> None:
        self.path = path
        self.start = start
        self.dtype: np.dtype[Any] = np.dtype(dtype).newbyteorder("<")
        self.stop = path.stat().st_size // self.dtype.itemsize if stop is None else stop
        self._array: NDArray[Any] | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: slice | NDArray[np.int64]) -> NDArray[Any]:
        """Return the tokens at `index`, a slice or an array of offsets from the start of the range."""
        if self._array is None:
            begin = self.start * self.dtype.itemsize
            mapped = np.memmap(self.path, dtype=self.dtype, mode="r", offset=begin, shape=(len(self),))
            self._array = np.asarray(mapped)
        return self._array[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}
