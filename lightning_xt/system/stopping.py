"""The end of a command by a signal. Imports nothing that takes time."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

PREEMPTED = 75
"""The exit code of a stopped run that resumes when it is started again: EX_TEMPFAIL of sysexits.h."""
TERMINATED = 128 + signal.SIGTERM
"""The exit code of every other stopped command."""
INTERRUPTED = 128 + signal.SIGINT
"""The exit code of a command that the user has interrupted."""
FORWARDED = 0.1
"""Seconds in which a second SIGINT is the first one again: launchers forward what their group gets from a terminal."""


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

    A second Ctrl-C (SIGINT) leaves at once.

    Args:
        command: name of the command, for the message.
        code: the exit code.
        waits: True to record only, because processes that train together must stop together.
    """

    def __init__(self, command: str, code: int, *, waits: bool = False) -> None:
        self.command, self.code, self.waits = command, code, waits
        self.received: str | None = None
        """Name of the first signal, or None."""
        self.describe_way_out: Callable[[], str] = lambda: "run the command again"
        """Returns the way out for the message of a process that leaves at once."""
        self._process = os.getpid()
        self._interrupted: float | None = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        """Handle a signal; raise Stopped unless the command chooses its moment itself."""
        if os.getpid() != self._process:
            # A worker that has just been forked ends with its parent.
            return
        self.received = self.received or signal.Signals(number).name
        if number == signal.SIGINT:
            self._interrupt()
        if not self.waits:
            # The stop has begun, and further signals do not disturb it.
            self.waits = True
            raise self.stop()

    def stop(self) -> Stopped:
        """Return the exception that ends the command."""
        code = INTERRUPTED if self.received == "SIGINT" else self.code
        return Stopped(code, f"{self.command} was {describe_signal(self.received)}; run the command again")

    def _interrupt(self) -> None:
        now = time.monotonic()
        if self._interrupted is None:
            self._interrupted = now
            if self.waits:
                _write("Ctrl-C: stopping in good order; press it again to leave at once")
        elif now - self._interrupted > FORWARDED:
            _write(f"interrupted at once; {self.describe_way_out()}")
            os._exit(INTERRUPTED)

    @contextmanager
    def install(self, *numbers: signal.Signals, last: bool = False) -> Iterator[None]:
        """Handle these signals within the block; only the main thread of a process can.

        Args:
            numbers: the signals. SIGINT remains ignored where it is, as in a shell's background.
            last: True if the process ends after the block. Its exit code is decided then, and it ignores the signals;
                Ctrl-C ends it at once.
        """
        before: dict[signal.Signals, Any] = {}
        try:
            for number in numbers:
                if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                    before[number] = signal.signal(number, self)
        except ValueError:
            before.clear()
        try:
            yield
        finally:
            for number, handler in before.items():
                after = signal.SIG_DFL if number == signal.SIGINT else signal.SIG_IGN
                signal.signal(number, after if last else handler)


def find_installed_signals() -> StopSignals | None:
    """Return this process's handler of SIGTERM if it is a `StopSignals`."""
    handler = signal.getsignal(signal.SIGTERM)
    return handler if isinstance(handler, StopSignals) else None


def describe_signal(name: str | None) -> str:
    """Return a phrase about the signal that stopped a command; None = another process got it."""
    return "interrupted" if name == "SIGINT" else f"stopped by {name or 'a signal to another process'}"


def prints_for_user() -> bool:
    """Return whether this process, of those that share a terminal or a log, prints how the command ended."""
    return os.environ.get("LOCAL_RANK", os.environ.get("SLURM_PROCID", "0")) == "0"


def _write(sentence: str) -> None:
    """Print a sentence from a signal handler, which may have interrupted another print."""
    if prints_for_user():
        os.write(2, f"lightning-xt: {sentence}\n".encode())


def count_processes() -> int:
    """Count the processes of this run by the environment; 1 if the environment has no number."""
    count = os.environ.get("WORLD_SIZE") or os.environ.get("SLURM_NTASKS") or "1"
    return int(count) if count.isdecimal() else 1
