"""Which samples go into which batch of which process."""

from collections.abc import Callable, Iterator

from torch.utils.data import BatchSampler, Sampler


class CounterBatchSampler(Sampler[list[int]]):
    """Counts samples upwards without end and cuts them into batches.

    Global batches are cut first, then split: with B samples a process and W processes, global batch k holds the
    samples `start + k * B * W` and up, and rank r takes the r-th B of them. So one process with batches of B * W
    samples trains on the same batches as W processes with batches of B.

    Args:
        batch_size: samples per batch of one process.
        start: the first sample, asked each time an iteration begins, as Lightning begins one with every epoch.
        rank: number of this process, from 0.
        world: number of processes.
    """

    def __init__(self, batch_size: int, *, start: Callable[[], int], rank: int = 0, world: int = 1) -> None:
        self.batch_size = batch_size
        self.start = start
        self.rank = rank
        self.world = world

    def __iter__(self) -> Iterator[list[int]]:
        first = self.start() + self.rank * self.batch_size
        while True:
            yield list(range(first, first + self.batch_size))
            first += self.batch_size * self.world


def every_window_once(windows: int, batch_size: int, *, rank: int = 0, world: int = 1) -> BatchSampler:
    """Batches of the windows rank, rank + world, ..., none twice, and as many of them in every process.

    A process waits for the others with every batch, so none may have fewer: where the windows do not divide, some take
    a window number of `windows` or more, in which nothing counts.
    """
    share = -(-windows // world)
    return BatchSampler(range(rank, share * world, world), batch_size, drop_last=False)
