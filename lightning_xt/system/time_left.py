"""Time left of long operations, and the few lines that report it without a terminal."""

import time
from collections.abc import Callable
from datetime import timedelta

FIRST = 10.0
"""Seconds before the first line. Each further one comes when twice the time has passed."""


def format_seconds(seconds: float) -> str:
    """Return a duration as hours, minutes and seconds."""
    return str(timedelta(seconds=round(seconds)))


class TimeLeft:
    """Estimate of the time that an operation still takes, from its speed so far.

    Args:
        total: amount of work; None if unknown.
        done: work that was done before.
        clock: returns seconds.
    """

    def __init__(self, total: float | None, done: float = 0, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self._before, self._clock = total, done, clock
        self._begun = clock()
        self._due = FIRST

    @property
    def elapsed(self) -> float:
        """Seconds since the operation began."""
        return self._clock() - self._begun

    def estimate(self, done: float) -> float | None:
        """Return the seconds left; None if they are unknown."""
        if self.total is None or done <= self._before:
            return None
        return max(0.0, self.elapsed * (self.total - done) / (done - self._before))

    def is_due(self) -> bool:
        """Return True if a line is due: after 10 seconds, 20, 40 and so on."""
        if self.elapsed < self._due:
            return False
        self._due = 2 * self.elapsed
        return True

    def describe(self, done: float) -> str:
        """Return how much is done and the time left, such as "40 %, 0:01:20 left"."""
        left = self.estimate(done)
        if left is None or not self.total:
            return f"{format_seconds(self.elapsed)} so far"
        return f"{100 * done / self.total:.0f} %, {format_seconds(left)} left"
