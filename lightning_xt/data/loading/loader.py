"""The loader that is handed to Lightning."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.utils.data import DataLoader

AHEAD = 4
"""Batches that are prepared before they are asked for: now and then the disk takes as long as several steps."""
END = object()


class Loader:
    """Passes on the batches of another loader, which Lightning then leaves as it is.

    Lightning rebuilds a bare `DataLoader` with samplers of its own and asks for workers whenever there are none. Here
    the samplers are what makes a run resume exactly, and windows of a mapped file need no workers: a thread waits for
    the disk, or for workers, while the model trains on the batches before.

    Args:
        batches: gives the batches, anew for every iteration; without a length if there is no end.
    """

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches
        self.waited = 0.0
        """Seconds for which whoever asked for a batch has waited."""

    def __iter__(self) -> Iterator[Any]:
        asked = time.perf_counter()
        for batch in prepared_ahead(self.batches) if isinstance(self.batches, DataLoader) else self.batches:
            self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def __len__(self) -> int:
        if not isinstance(self.batches, Sized):
            raise TypeError("these batches have no end")
        return len(self.batches)


def prepared_ahead(batches: Iterable[Any]) -> Iterator[Any]:
    """The same batches in the same order, taken by a thread that lives as long as the iteration."""
    stream = iter(batches)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        coming = deque(thread.submit(next, stream, END) for _ in range(AHEAD))
        while (batch := coming.popleft().result()) is not END:
            coming.append(thread.submit(next, stream, END))
            yield batch
    finally:
        # Waits for a batch that is being taken: workers that persist serve one iteration at a time.
        thread.shutdown(cancel_futures=True)
