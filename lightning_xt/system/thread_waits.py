"""Waits of the threads that compute together, while other processes take their cores."""

import ctypes
import os
import sys
import threading
import time
from types import TracebackType
from typing import Any

from lightning_xt.system.core_use import LEAST, CoreMeter, CoreUse
from lightning_xt.system.cores import count_cores

SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Environment variables by which a user chooses how threads wait."""
EVERY = 0.5
"""Seconds between two measurements of other processes."""
AGAIN = 30.0
"""Seconds after which threads wait actively for one measurement, because sleeping ones give way to any process."""

SOFT = 1
"""OpenMP's `omp_pause_soft`: the runtime keeps its settings."""


class ThreadWaits:
    """Context in which torch's threads sleep while they wait for each other, as long as other processes take cores.

    Threads of GNU's OpenMP runtime wait for each other actively, for some milliseconds. With free cores that is the
    fastest. Next to a busy process it costs nine tenths of the speed: a thread that has spent its turn on a core with
    waiting has none left when there is work. The runtime hardly waits actively once it has more threads than cores, so
    that threads without work are added here. As many threads compute as before, with the same results.

    Nothing is done with one thread, with another runtime, or if the user has set one of `SETTINGS`.

    Args:
        meter: measures the cores in use. None = those of this machine.
        every: seconds between two measurements.
    """

    def __init__(self, meter: CoreMeter | None = None, every: float = EVERY) -> None:
        self._meter, self._every = meter, every
        self._ended = threading.Event()
        self._idle: _IdleThreads | None = None
        self._thread: threading.Thread | None = None

    @property
    def sleep(self) -> bool:
        """True while threads sleep to wait."""
        return self._idle is not None

    def __enter__(self) -> "ThreadWaits":
        if can_choose():
            self._thread = threading.Thread(target=self._run, name="lightning-xt waits", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        # Workers of this process need cores too.
        meter = self._meter or CoreMeter(started=False)
        until = 0.0
        while not self._ended.wait(self._every):
            use = meter.measure()
            if use is None:
                continue
            if self._idle is None and use.others >= LEAST:
                self._idle, until = _IdleThreads.add(use), time.monotonic() + AGAIN
            elif self._idle is not None and (use.others < LEAST or time.monotonic() > until):
                self._wake()
        self._wake()

    def _wake(self) -> None:
        if self._idle is not None:
            self._idle.end()
            self._idle = None


class _IdleThreads:
    """Threads of the runtime without work, which belong to a thread of Python.

    Args:
        runtime: GNU's OpenMP runtime.
        use: the cores in use.
    """

    def __init__(self, runtime: Any, use: CoreUse) -> None:
        self._runtime, self._use = runtime, use
        self._begun, self._ended = threading.Event(), threading.Event()
        self.exist = False
        # A thread keeps the number of threads that it has first asked torch for, so that a new one asks.
        self._owner = threading.Thread(target=self._own, name="lightning-xt idle threads", daemon=True)
        self._owner.start()
        self._begun.wait()

    @classmethod
    def add(cls, use: CoreUse) -> "_IdleThreads | None":
        """Return idle threads if other processes take cores from torch's; None otherwise."""
        runtime = _find_runtime()
        idle = None if runtime is None else cls(runtime, use)
        return idle if idle is not None and idle.exist else None

    def end(self) -> None:
        """End the threads; the runtime counts them no more."""
        self._ended.set()
        self._owner.join()

    def _own(self) -> None:
        try:
            threads, cores = sys.modules["torch"].get_num_threads(), self._runtime.omp_get_num_procs()
            if threads > 1 and self._use.is_short(threads):
                # One more than the cores, this one included, each of which frees nothing.
                free = ctypes.cast(self._runtime.free, ctypes.c_void_p)
                self._runtime.GOMP_parallel(free, None, max(2, cores - threads + 2), 0)
                self.exist = True
        finally:
            self._begun.set()
        if self.exist:
            self._ended.wait()


def can_choose() -> bool:
    """Return True if several threads may compute, and the user has not chosen how they wait."""
    several = count_cores() > 1 and os.environ.get("OMP_NUM_THREADS") != "1"
    return sys.platform == "linux" and several and not any(name in os.environ for name in SETTINGS)


def _find_runtime() -> Any | None:
    """Return the OpenMP runtime that torch has loaded; None if it is not GNU's."""
    if not hasattr(sys.modules.get("torch"), "get_num_threads"):
        # Not imported yet.
        return None
    loaded = ctypes.CDLL(None)
    # Others have GNU's functions too.
    return loaded if hasattr(loaded, "GOMP_parallel") and not hasattr(loaded, "kmp_set_blocktime") else None


def release_threads() -> None:
    """End the OpenMP threads of the calling thread of Python, which come again if it computes again.

    Otherwise, once another thread computes, the runtime has more threads than cores and lets all of them sleep.
    """
    runtime = _find_runtime()
    if runtime is not None and hasattr(runtime, "omp_pause_resource_all"):
        runtime.omp_pause_resource_all(SOFT)
