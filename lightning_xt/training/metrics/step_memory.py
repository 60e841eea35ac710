"""Memory that work allocates."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch
from torch.profiler import ProfilerActivity, profile


@dataclass
class Allocations:
    """Bytes of tensors that a block of work has allocated.

    Args:
        peak: the most at any time, above what there was before.
        kept: those that remain.
    """

    peak: int = 0
    kept: int = 0


@contextmanager
def record_allocations(device: torch.device) -> Iterator[Allocations]:
    """Record the allocations of a block; on a CPU by the profiler, which slows it down."""
    found = Allocations()
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        torch.cuda.synchronize(device)
        found.kept = torch.cuda.memory_allocated(device) - before
        found.peak = torch.cuda.max_memory_allocated(device) - before
        return
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        yield found
    events = [each for each in recorded.profiler.kineto_results.events() if each.name() == "[memory]"]
    totals = list(accumulate(each.nbytes() for each in sorted(events, key=lambda each: each.start_ns())))
    found.peak, found.kept = max(totals, default=0), totals[-1] if totals else 0
