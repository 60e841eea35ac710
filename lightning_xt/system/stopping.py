"""The end of a command by a signal. Imports nothing that takes time."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PREEMPTED = 75
"""The exit code of a stopped run that resumes when it is started again: EX_TEMPFAIL of sysexits.h."""
TERMINATED = 128 + signal.SIGTERM
"""The exit code of every other stopped command."""
INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a command that the user has interrupted."""


class Stopped(SystemExit):
    """Exit of a command that a signal has stopped.

    Args:
        code: the exit code.
        sentence: message for the user.
        together: True if all processes of the run stop at the same place, so that they can close their connections.
    """

    def __init__(self, code: int, sentence: str, *, together: bool = False) -> None:
        super().__init__(code)
        self.sentence, self.together = sentence, together


class StopSignals:
    """Signal handler that ends a command, or records the signal for a command that chooses its moment.

    Args:
        command: name of the command, for the message.
        code: the exit code.
        waits: True to record only, because processes that train together must stop together.
    """

    def __init__(self, command: str, code: int, *, waits: bool = False) -> None:
        self.command, self.code, self.waits = command, code, waits
        self.received: str | None = None
        """Name of the first signal, or None."""
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; raise Stopped unless the command chooses its moment itself."""
        if os.getpid() != self._process:
            # A worker that has just been forked ends with its parent.
            return
        self.received = self.received or signal.Signals(number).name
        if not self.waits:
            raise self.stop()

    def stop(self) -> Stopped:
        """Return the exception that ends the command."""
        return Stopped(self.code, f"{self.command} was stopped by {self.received}; run the command again")

    @contextmanager
    def install(self, *numbers: signal.Signals) -> Iterator[None]:
        """Handle these signals within the block; only the main thread of a process can."""
        before: dict[signal.Signals, Any] = {}
        try:
            for number in numbers:
                before[number] = signal.signal(number, self)
        except ValueError:
            before.clear()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def find_installed_signals() -> StopSignals | None:
    """Return this process's handler of SIGTERM if it is a `StopSignals`."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, StopSignals) else None


def count_processes() -> int:
    """Count the processes of this run by the environment; 1 if the environment has no number."""
    count = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1"
    return int(count) if count.isdecimal() else 1
