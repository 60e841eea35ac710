"""Garbage collection of Python."""

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def pause_garbage_collection() -> Iterator[None]:
    """Pause garbage collection within the block: it costs a tenth of imports and parsing, which leave little."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def freeze_imported() -> Iterator[None]:
    """Pause garbage collection within a block of imports, and let later collections pass over what they leave.

    Each full collection would take a tenth of the time of the imports, and modules stay. In a process that has imported
    Lightning before, nothing is frozen: other objects of its may become garbage.
    """
    is_first = "lightning.pytorch" not in sys.modules
    with pause_garbage_collection():
        yield
    if is_first:
        gc.freeze()
