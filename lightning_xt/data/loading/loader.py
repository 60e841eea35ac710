"""The loader for Lightning."""

import time
from collections import deque
from collections.abc import Iterable, Iterator, Sized
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch.utils.data import DataLoader

AHEAD = 8
"""Most batches to prefetch, at least half as many: a slow read of the disk can take as long as several steps."""


class Loader:
    """Wrapper of a loader that Lightning leaves unchanged.

    Lightning replaces the samplers of a bare `DataLoader` and warns if it has no workers. Our samplers make a run
    resume exactly, and windows of a mapped file need no workers: a thread waits for the disk, or for workers, while
    the model trains on earlier batches.

    Args:
        batches: iterable of batches, restarted for every iteration; without a length if it is endless.
        ahead: whether a thread reads a `DataLoader` ahead. Data that may draw random numbers in this process are not,
            because the thread would share the generators with the model.
    """

    def __init__(self, batches: Iterable[Any], *, ahead: bool = True) -> None:
        self.batches, self.ahead = batches, ahead and isinstance(batches, DataLoader)
        self.waited = 0.0
        """Seconds spent waiting for batches."""

    def __iter__(self) -> Iterator[Any]:
        asked = time.perf_counter()
        for batch in prefetch(self.batches) if self.ahead else self.batches:
            self.waited += time.perf_counter() - asked
            yield batch
            asked = time.perf_counter()

    def __len__(self) -> int:
        if not isinstance(self.batches, Sized):
            raise TypeError("these batches are endless")
        return len(self.batches)


def prefetch(batches: Iterable[Any]) -> Iterator[Any]:
    """Yield the batches in order, read by a thread that ends with the iteration.

    It reads several at a time: waking it costs as much as reading a small batch.
    """
    stream = iter(batches)
    thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="batches")
    try:
        # The first batch is not kept waiting for others.
        coming = deque((thread.submit(_read, stream, 1), thread.submit(_read, stream, AHEAD // 2)))
        while coming:
            found, error = coming.popleft().result()
            yield from found
            if error is None:
                coming.append(thread.submit(_read, stream, AHEAD // 2))
            elif isinstance(error, StopIteration):
                return
            else:
                raise error
    finally:
        # Waits for the batches in flight: persistent workers serve one iteration at a time.
        thread.shutdown(cancel_futures=True)


def _read(stream: Iterator[Any], count: int) -> tuple[list[Any], Exception | None]:
    """Read this number of batches; fewer if an error ends them, which is returned with those before it."""
    found: list[Any] = []
    try:
        for _ in range(count):
            found.append(next(stream))
    except Exception as error:
        return found, error
    return found, None
