"""Memory-mapped tokens, one byte each."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class MappedBytes:
    """A range of a file as a memory-mapped array of uint8.

    The file is mapped at the first access; a pickled copy for a worker process holds the path, not the content.

    Args:
        path: the file.
        start: first byte of the range.
        stop: byte after the range; None ends it with the file.
    """

    def __init__(self, path: Path, start: int = 0, stop: int | None = None) -> None:
        self.path = path
        self.start = start
        self.stop = path.stat().st_size if stop is None else stop
        self._array: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, index: slice | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the bytes at `index`, a slice or an array of offsets from the start of the range."""
        if self._array is None:
            mapped = np.memmap(self.path, dtype=np.uint8, mode="r", offset=self.start, shape=(len(self),))
            self._array = np.asarray(mapped)
        return self._array[index]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}
