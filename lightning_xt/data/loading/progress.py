"""Progress bars for reading and downloading."""

import os
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

PATIENCE = 2.0  # seconds before the bar appears
Block = TypeVar("Block", bound=Sized)


def with_progress(blocks: Iterable[Block], what: str, total: int | None = None, *, done: int = 0) -> Iterator[Block]:
    """Yield blocks, with a progress bar on standard error if they take more than `PATIENCE` seconds.

    One process of a machine draws the bar, on a terminal only; it disappears at the end.

    Args:
        blocks: blocks of bytes, or texts, whose characters count as bytes.
        what: the activity, such as "reading corpus.txt".
        total: bytes of all blocks; None if unknown.
        done: bytes of the total done before the first block.
    """
    console = _find_terminal()
    if console is None:
        yield from blocks
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    progress = Progress(*columns, TimeRemainingColumn(), console=console, transient=True)
    task = progress.add_task(what, total=total, completed=done)
    due, new = time.monotonic() + PATIENCE, 0
    try:
        for block in blocks:
            new += len(block)
            # Blocks may be as short as a line, too many to redraw for each.
            if (now := time.monotonic()) > due:
                progress.start()
                progress.advance(task, new)
                due, new = now + 0.1, 0
            yield block
    finally:
        if progress.live.is_started:
            progress.stop()


@contextmanager
def show_activity(what: str) -> Iterator[None]:
    """Show the seconds that the block takes, if these are more than `PATIENCE`, for work whose end is unknown."""
    console = _find_terminal()
    if console is None:
        yield
        return
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    progress = Progress(*columns, console=console, transient=True)
    progress.add_task(what, total=None)
    timer = threading.Timer(max(0.0, PATIENCE), progress.start)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        if progress.live.is_started:
            progress.stop()


def _find_terminal() -> Console | None:
    """Return standard error if it is a terminal on which this process draws."""
    console = Console(stderr=True)
    return console if console.is_terminal and os.environ.get("LOCAL_RANK", "0") == "0" else None
