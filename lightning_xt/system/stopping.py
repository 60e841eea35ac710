"""How a command ends when it is told to by a signal. Imports nothing that takes time."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PREEMPTED = 75
"""The exit code of a run that was told to stop and goes on when it is started again: EX_TEMPFAIL of sysexits.h."""
TERMINATED = 128 + signal.SIGTERM
"""The exit code of anything else that was told to stop."""
INTERRUPTED = 128 + signal.SIGINT
"""The exit code of what the user has interrupted."""


class Stopped(SystemExit):
    """Ends a command that a signal has stopped.

    Args:
        code: the exit code.
        sentence: what to tell the user.
        together: whether all processes of the run stop at the same place, so that they can take leave of each other.
    """

    def __init__(self, code: int, sentence: str, *, together: bool = False) -> None:
        super().__init__(code)
        self.sentence, self.together = sentence, together


class StopSignals:
    """Ends a command when a signal comes, or remembers the signal while the command is to choose its moment itself.

    Args:
        command: what is stopped, for the message.
        code: the exit code.
        waits: whether to remember only. Processes that train together must stop together.
    """

    def __init__(self, command: str, code: int, *, waits: bool = False) -> None:
        self.command, self.code, self.waits = command, code, waits
        self.received: str | None = None
        """The name of the first signal that came."""
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal.

        Raises:
            Stopped: the command does not choose its moment.
        """
        if os.getpid() != self._process:
            # A worker that has just been forked: it ends with the process it works for.
            return
        self.received = self.received or signal.Signals(number).name
        if not self.waits:
            raise self.stop()

    def stop(self) -> Stopped:
        """What ends the command where it stands."""
        return Stopped(self.code, f"{self.command} was stopped by {self.received}; run the command again")

    @contextmanager
    def install(self, *numbers: signal.Signals) -> Iterator[None]:
        """Handles these signals while the block runs; only a process's main thread can."""
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
    """What handles SIGTERM in this process, if it is ours."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, StopSignals) else None


def count_processes() -> int:
    """Processes that were started for this run, as the environment of this one says; 1 where it says nothing."""
    told = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1"
    return int(told) if told.isdecimal() else 1
