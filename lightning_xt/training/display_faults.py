"""Faults of code that only displays a run."""

from collections.abc import Iterator
from contextlib import contextmanager

from lightning.pytorch.utilities import rank_zero_info


class DisplayFaults:
    """Guard of code that only displays a run: a fault does not end the run, and the first one is reported.

    Args:
        name: display that the message names.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._reported = False

    @contextmanager
    def tolerate(self) -> Iterator[None]:
        """Catch an exception of the block."""
        try:
            yield
        except Exception as error:
            if not self._reported:
                self._reported = True
                reason = " ".join(str(error).split())[:200]
                rank_zero_info(f"{self._name}: {type(error).__name__}: {reason}; training continues")
