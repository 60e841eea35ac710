"""The loader that is handed to Lightning."""

import time
from collections.abc import Iterable, Iterator, Sized
from typing import Any


class Loader:
    """Passes on the batches of another loader, which Lightning then leaves as it is.

    Lightning rebuilds a bare `DataLoader` with samplers of its own and asks for workers whenever there are none. Here
    the samplers are what makes a run resume exactly, and windows of a mapped file need no workers.

    Args:
        batches: gives the batches, anew for every iteration; without a length if there is no end.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.waited = 0.0
        """Seconds for which whoever asked for a batch has waited."""

    def __iter__(self) -> Iterator[Any]:
        asked = time.perf_counter()
        for batch in self.batches:
            self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def __len__(self) -> int:
        if not isinstance(self.batches, Sized):
            raise TypeError("these batches have no end")
        return len(self.batches)
