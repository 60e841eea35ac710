import time
from collections.abc import Callable
from queue import Full, Queue
from threading import Thread

from lightning.pytorch.utilities import rank_zero_info

MOST_WAITING = 10_000
"""Calls that wait at most; further ones are dropped."""


class BackgroundWriter:
    """Thread that makes calls in their order, so that training neither waits for them nor fails with them.

    Args:
        name: whose calls they are, for messages.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._calls: Queue[Callable[[], None] | None] = Queue(MOST_WAITING)
        self._lost = 0
        self._closed = False
        self._thread = Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], None]) -> None:
        """Have a call made after those before it."""
        try:
            self._calls.put_nowait(call)
        except Full:
            self._lost += 1

    def close(self, seconds: float) -> None:
        """Wait until the calls are made, at most for a time, and report those that are lost."""
        deadline = time.monotonic() + seconds
        try:
            self._calls.put(None, timeout=seconds)
            self._thread.join(max(0.0, deadline - time.monotonic()))
        except Full:
            pass
        self._closed = True
        if self._thread.is_alive():
            lost = f"what it has not sent within {seconds:.0f} s may be missing there"
        elif self._lost:
            lost = f"{self._lost} values or media are missing there"
        else:
            return
        rank_zero_info(f"{self._name}: {lost}; metrics.csv has the values of the run")

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            try:
                call()
            except Exception as error:
                self._lost += 1
                if self._lost == 1 and not self._closed:
                    reason = " ".join(str(error).split())[:200] or repr(error)
                    rank_zero_info(f"{self._name} cannot be written ({reason}); training continues")
