"""Progress bars for reading, downloading and other work on many blocks or items."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from lightning_xt.system.messages import make_visible
from lightning_xt.system.time_left import TimeLeft

T = TypeVar("T")
PATIENCE = 2.0  # seconds before the bar appears
Block = TypeVar("Block", bound=Sized)


def with_progress(blocks: Iterable[Block], what: str, total: int | None = None, *, done: int = 0) -> Iterator[Block]:
    """Yield blocks, with a progress bar on standard error if they take more than `PATIENCE` seconds.

    One process of a machine draws the bar; it disappears at the end. Without a terminal, it prints a line after 10
    seconds, 20, 40 and so on.

    Args:
        blocks: blocks of bytes, or texts, whose characters count as bytes.
        what: the activity, such as "reading corpus.txt".
        total: bytes of all blocks; None if unknown.
        done: bytes of the total done before the first block.
    """
    return _show(blocks, what, len, (DownloadColumn(), TransferSpeedColumn()), total, done)


def count_progress(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield items, with a progress bar that counts them; see `with_progress`."""
    return _show(items, what, lambda item: 1, (MofNCompleteColumn(),), total, 0)


def _show(
    items: Iterable[T],
    what: str,
    size: Callable[[T], int],
    columns: tuple[ProgressColumn, ...],
    total: int | None,
    done: int,
) -> Iterator[T]:
    console = Console(stderr=True)
    if os.environ.get("LOCAL_RANK", "0") != "0":
        yield from items
    elif console.is_terminal:
        yield from _draw(items, what, size, columns, console, total, done)
    else:
        left = TimeLeft(total, done)
        for item in items:
            yield item
            done += size(item)
            if left.is_due():
                print(make_visible(f"{what}: {left.describe(done)}"), file=sys.stderr, flush=True)


def _draw(
    items: Iterable[T],
    what: str,
    size: Callable[[T], int],
    columns: tuple[ProgressColumn, ...],
    console: Console,
    total: int | None,
    done: int,
) -> Iterator[T]:
    words = TextColumn("{task.description}", markup=False)
    progress = Progress(words, BarColumn(), *columns, TimeRemainingColumn(), console=console, transient=True)
    task = progress.add_task(what, total=total, completed=done)
    due, new = time.monotonic() + PATIENCE, 0
    try:
        for item in items:
            new += size(item)
            # Blocks may be as short as a line, too many to redraw for each.
            if (now := time.monotonic()) > due:
                progress.start()
                progress.advance(task, new)
                due, new = now + 0.1, 0
            yield item
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
