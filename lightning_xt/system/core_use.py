"""Cores that this process and others use."""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from lightning_xt.system.cores import ROOT, count_cores

LEAST = 0.3
"""Cores: what other processes use besides this is noise."""
FULL = 0.8
"""Fraction of the cores in use from which processes wait for each other."""


@dataclass(frozen=True)
class CoreUse:
    """Cores in use, on average over some time.

    Args:
        own: cores that this process used.
        others: cores that other processes used.
        cores: number of cores that this process may run on.
    """

    own: float
    others: float
    cores: int

    def is_short(self, threads: int) -> bool:
        """Return True if other processes take cores from this number of threads."""
        needed, used = threads + self.others, self.own + self.others
        return self.others >= LEAST and needed >= self.cores + LEAST and used >= FULL * self.cores

    def __str__(self) -> str:
        return f"other processes use {self.others:.1f} of {self.cores} cores"


class CoreMeter:
    """Meter of the cores in use, from one measurement to the next.

    On Linux, other processes have what is in use of the cores of this process besides its own time. What a host takes
    from a virtual machine counts as theirs. Other systems report the runnable threads of the last minute, so that the
    value is an estimate there.

    Args:
        started: whether processes that this one has started count as its own.
        launched: whether those that its parent has started do so too: one launcher has started all processes of a run.
        root: folder of /proc.
        clock: returns seconds.
    """

    def __init__(
        self,
        *,
        started: bool = True,
        launched: bool = False,
        root: Path = ROOT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._started, self._launched, self._root, self._clock = started, launched, root, clock
        self._before = self._read()

    @property
    def elapsed(self) -> float:
        """Seconds since the last measurement."""
        return self._clock() - self._before[0]

    def measure(self) -> CoreUse | None:
        """Return the cores in use since the last measurement; None if unknown."""
        (before, own_before, all_before), (now, own_now, all_now) = self._before, self._read()
        self._before = now, own_now, all_now
        seconds, cores = now - before, count_cores()
        if seconds <= 0:
            return None
        # A process that was started in between adds the seconds before it was seen; one that ended loses them.
        own = max(0.0, own_now - own_before) / seconds
        if all_now is not None and all_before is not None:
            others = (all_now - all_before) / seconds - own
        elif hasattr(os, "getloadavg"):
            others = os.getloadavg()[0] - own
        else:
            return None
        return CoreUse(own, min(max(0.0, others), max(0.0, cores - own)), cores)

    def _read(self) -> tuple[float, float, float | None]:
        """Return the time, and the CPU seconds of this process and of all."""
        own = sum(os.times()[:4]) if self._started else time.process_time()
        if self._started:
            parent = os.getppid() if self._launched else os.getpid()
            own += sum(self._read_process(each) for each in self._find_started(parent, {os.getpid()}))
        return self._clock(), own, self._read_all()

    def _read_all(self) -> float | None:
        """Return the CPU seconds of the cores of this process; None if unknown."""
        found = None
        with suppress(OSError, ValueError, AttributeError):
            names = {f"cpu{core}" for core in os.sched_getaffinity(0)}
            for line in (self._root / "proc/stat").read_text().splitlines():
                name, *ticks = line.split()
                if name in names:
                    # user, nice, system, (idle, waiting for disks,) interrupts, theirs, and the host's.
                    busy = sum(map(int, ticks[:3] + ticks[5:8]))
                    found = (found or 0.0) + busy / os.sysconf("SC_CLK_TCK")
        return found

    def _find_started(self, process: int, seen: set[int]) -> list[int]:
        """Return the running processes that a process has started, and those that they have, besides those seen."""
        children: list[int] = []
        with suppress(OSError, ValueError):
            for task in (self._root / f"proc/{process}/task").iterdir():
                children += map(int, (task / "children").read_text().split())
        return [
            found
            for child in children
            for found in ([] if child in seen else [child]) + self._find_started(child, seen | {child})
        ]

    def _read_process(self, process: int) -> float:
        """Return the CPU seconds of a process and of its ended children; 0 if it has ended."""
        with suppress(OSError, ValueError, IndexError):
            # The name, in brackets, may hold anything.
            values = (self._root / f"proc/{process}/stat").read_text().rpartition(")")[2].split()
            return sum(map(int, values[11:15])) / os.sysconf("SC_CLK_TCK")
        return 0.0
