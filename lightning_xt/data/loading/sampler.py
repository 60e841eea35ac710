"""Samplers: the samples of each batch of each process."""

from collections.abc import Callable, Iterator

from torch.utils.data import BatchSampler, Sampler


class CounterBatchSampler(Sampler[list[int]]):
    """Endless batches of consecutive sample numbers.

    Global batches are cut first, then split: with B samples a process and W processes, global batch k holds the
    samples `start + k * B * W` and up, and rank r takes the r-th B of them. So one process with batches of B * W
    samples trains on the same batches as W processes with batches of B.

    Args:
        batch_size: samples per batch of one process.
        start: returns the first sample; called at the start of each iteration (Lightning starts one every epoch).
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


def batch_windows_once(windows: int, batch_size: int, *, rank: int = 0, world: int = 1) -> BatchSampler:
    """Return batches of the windows rank, rank + world, ..., each once, the same number in every process.

    The processes wait for each other at every batch, so each must have the same number: if the windows do not divide,
    some processes get a window number of `windows` or more, which is not scored.
    """
    count = -(-windows // world)
    return BatchSampler(range(rank, count * world, world), batch_size, drop_last=False)


def batch_lanes_once(lanes: int, length: int, batch_size: int, *, rank: int = 0, world: int = 1) -> list[list[int]]:
    """Return batches of the windows of the lanes rank, rank + world, ..., each once, each lane in order.

    Window w is number w % `length` of lane w // `length`. A batch holds windows of one number of up to `batch_size`
    lanes, and the next batch those of the next number. If the lanes do not divide, some processes get windows of a lane
    that does not exist, which are not scored.
    """
    own = [rank + world * number for number in range(-(-lanes // world))]
    rows = [own[first : first + batch_size] for first in range(0, len(own), batch_size)]
    return [[lane * length + window for lane in row] for row in rows for window in range(length)]
