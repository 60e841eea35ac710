"""Standard output whose reader has gone, or that was never open. Imports nothing that takes time."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO


class OptionalOutput:
    """Text stream that becomes silent where it cannot be written, so that a run does not end for its output."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._silence(error)
            return len(text)

    def flush(self) -> None:
        """Write what is buffered."""
        try:
            self._stream.flush()
        except OSError as error:
            self._silence(error)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def _silence(self, error: OSError) -> None:
        silence(self._stream)
        if not isinstance(error, BrokenPipeError) and self._stream is not sys.__stderr__:
            print(f"lightning-xt: the output cannot be written ({error.strerror}); its rest is lost", file=sys.stderr)


@contextmanager
def optional_output() -> Iterator[None]:
    """Continue the block where standard output or standard error cannot be written."""
    before: Any = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = map(OptionalOutput, before)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def silence(stream: TextIO) -> None:
    """Let a stream write nowhere from now on; Python would write the rest of its buffer at the end, and complain."""
    with suppress(OSError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def open_closed_streams() -> None:
    """Open the standard streams that are closed, as with `>&-`, for other files would get their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free.
            os.open(os.devnull, os.O_RDWR)
            setattr(sys, name, os.fdopen(number, "w" if number else "r", closefd=False))


def finish_output() -> None:
    """Write what standard output still holds; if nobody reads it, drop it."""
    try:
        sys.stdout.flush()
    except OSError:
        silence(sys.stdout)
